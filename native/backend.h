// The C table every backend fills: memory, synchronisation and one pointer an op.
#pragma once
#include "ops.gen.h"  // generated from ops.def: struct <op>_args for every op
#include "tensor.h"

namespace tunebook {

// Thrown by an op (and caught by the queue, which stops and reports it): the message says what was expected and what came.
// Visible outside its library, so that what the CUDA backend throws is caught by the queue.
struct __attribute__((visibility("default"))) OpError {
  char message[512];
  int opcode = -1;        // of a fault that was found later: the op that raised it; -1: the op that is running
  uint64_t sequence = 0;  // likewise
  bool lost = false;      // the device cannot be used by this process any more
  bool memory = false;    // the device's memory is exhausted
};
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// What a device says about itself, for reports.
struct DeviceInfo {
  char name[128];
  int major, minor;  // compute capability
  int multiprocessors;
  int driver, runtime;  // CUDA versions as 1000 * major + 10 * minor
  int64_t total_bytes, free_bytes;  // when it was opened
};

struct Backend {
  const char* name;                       // "cpu", "cuda:0"
  const char* isa;                        // "avx512bf16", "avx512", "avx2", "portable"; on other devices their architecture
  int threads;                            // that work on one op
  void* (*alloc)(int64_t bytes);          // nullptr: out of memory
  void (*free)(void* data, int64_t bytes);
  void (*upload)(void* to, const void* from, int64_t bytes);    // in stream order
  void (*download)(void* to, const void* from, int64_t bytes);  // in stream order
  void (*sync)();                         // until everything has been done, copies beside the ops too
  void (*close)();                        // ends its threads; nothing runs on it afterwards

  // Devices that run behind their launches. All of this is 0 on the CPU, where an op has run when it returns.
  const DeviceInfo* info;
  int64_t memory;                                // bytes that tensors and working memory may take; 0: memory_limit()
  void (*begin)(int opcode, uint64_t sequence);  // dispatcher, before each op: faults name it
  // The place in the stream that has been reached, counted from 1; `soon`: somebody waits for it, so spin rather than sleep.
  uint64_t (*fence)(bool soon);
  // Until the device has passed a fence; fences are waited for in order. Throws OpError for a fault raised before it. Any thread.
  void (*wait)(uint64_t fence);
  double (*elapsed)(uint64_t from, uint64_t to);  // device seconds between two fences that were waited for; only with TUNEBOOK_PROFILE=1
  // Host memory that `download` fills without waiting (nullptr: exhausted); it is filled when a later fence has been passed.
  void* (*alloc_host)(int64_t bytes);
  void (*free_host)(void* data, int64_t bytes);
  // Host memory for tensors, which the device's copies read and write by themselves (nullptr: exhausted). Freeing waits for all copies.
  void* (*alloc_pinned)(int64_t bytes);
  void (*free_pinned)(void* data, int64_t bytes);
  int64_t (*scratch_bytes)();  // working memory of the ops; any thread
  void (*trim)();              // dispatcher: gives working memory back
  // Work that is launched again and again as one (0: it is launched op by op). Dispatcher alone. Between capture_begin and capture_end ops do not run
  // but are put into a graph; capture_end gives it, or throws OpError when the ops cannot be captured, and nullptr without `keep`. A graph is launched
  // only while capture_generation() is what it was when it was made: working memory that it uses may have moved since.
  void (*capture_begin)();
  void* (*capture_end)(bool keep);
  void (*graph_launch)(void* graph);
  void (*graph_free)(void* graph);
  uint64_t (*capture_generation)();

#define OP(name) void (*name)(const name##_args&);
#include "ops.list.gen.h"  // generated: OP(fill) OP(copy) …
#undef OP
};

// Opens the CPU backend with the best instruction set of this machine, or with the one named by TUNEBOOK_ISA. Throws OpError.
const Backend& open_cpu();
// Memory that this process may use: the machine's, or its control group's if that is less; TUNEBOOK_MEMORY_LIMIT (bytes) overrides.
int64_t memory_limit();

}  // namespace tunebook
