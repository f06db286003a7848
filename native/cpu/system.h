// What the CPU backend asks of the operating system.
#pragma once
#include <cstdint>

namespace tunebook {

// Memory for blocks and working buffers: 64-byte aligned; large blocks on their own (huge, where possible) pages. nullptr: exhausted.
void* alloc_pages(int64_t bytes);
void free_pages(void* data, int64_t bytes);

// Threads to use: the processors this process may run on, or fewer where a control group's quota says so; TUNEBOOK_THREADS overrides.
int default_threads();

// The pool of parallel.h.
void start_pool(int threads);
void stop_pool();
// Ops of the calling thread run on it alone from now on, since the pool serves one thread at a time.
void run_alone();

}  // namespace tunebook
