// Launching a kernel that takes one struct of arguments, with as much shared memory as it asks for.
#pragma once
#include "device.cuh"

namespace tunebook {
namespace cuda {

constexpr int64_t kMostBlocks = 2147483647;

// Kernels' own times, where they are asked for (kernel_times.cu).
bool kernels_are_timed();
void kernel_begins();
void kernel_ends(const char* name);

template <class Args>
void launch(const char* name, void (*kernel)(Args), int64_t blocks, int threads, int64_t shared_bytes, const Args& args) {
  if (blocks <= 0) return;
  if (blocks > kMostBlocks) fail("%s would need %lld blocks", name, (long long)blocks);
  // More than 48 KiB, static memory included, must be allowed for each kernel; once is enough, but asking again costs less than remembering.
  if (shared_bytes > 44 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes), name);
  const bool timed = kernels_are_timed();
  if (timed) kernel_begins();
  kernel<<<(unsigned)blocks, (unsigned)threads, (size_t)shared_bytes, device.stream>>>(args);
  launched(name);
  if (timed) kernel_ends(name);
}

// The block's dynamic shared memory.
__device__ inline char* shared_memory() {
  extern __shared__ __align__(1024) char bytes_of_the_block[];
  return bytes_of_the_block;
}

}  // namespace cuda
}  // namespace tunebook
