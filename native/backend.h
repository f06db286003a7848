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
  const char* isa;                        // "avx512bf16", "avx512", "avx2", "portable"; on other devices their architecture
  int threads;                            // that work on one op
  void* (*alloc)(int64_t bytes);          // nullptr: out of memory
  void (*free)(void* data, int64_t bytes);
  void (*upload)(void* to, const void* from, int64_t bytes);    // in stream order
  void (*download)(void* to, const void* from, int64_t bytes);  // in stream order
  void (*sync)();
  void (*close)();                        // ends its threads; nothing runs on it afterwards
#define OP(name) void (*name)(const name##_args&);
#include "ops.list.gen.h"  // generated: OP(fill) OP(copy) …
#undef OP
};

// Opens the CPU backend with the best instruction set of this machine, or with the one named by TUNEBOOK_ISA. Throws OpError.
const Backend& open_cpu();
// Memory that this process may use: the machine's, or its control group's if that is less; TUNEBOOK_MEMORY_LIMIT (bytes) overrides.
int64_t memory_limit();

}  // namespace tunebook
