// Every op's number, in the order of ops.def.
#pragma once

namespace tunebook {

enum Opcode : int {
#define OP(name) op_##name,
#include "ops.list.gen.h"
#undef OP
  kOpCount
};

}  // namespace tunebook
