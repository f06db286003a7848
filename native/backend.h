// The C table every backend fills: memory, synchronisation and one pointer an op.
#pragma once
#include "ops.gen.h"  // generated from ops.def: struct <op>_args for every op
#include "tensor.h"

namespace tunebook {

// Thrown by an op (and caught by the queue, which stops and reports it): the message says what was expected and what came.
struct OpError {
  char message[512];
};
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

struct Backend {
  const char* name;                       // "cpu", "cuda:0"
  void* (*alloc)(int64_t bytes);          // nullptr: out of memory
  void (*free)(void* data, int64_t bytes);
  void (*upload)(void* to, const void* from, int64_t bytes);    // in stream order
  void (*download)(void* to, const void* from, int64_t bytes);  // in stream order
  void (*sync)();
#define OP(name) void (*name)(const name##_args&);
#include "ops.list.gen.h"  // generated: OP(fill) OP(copy) …
#undef OP
};

}  // namespace tunebook
