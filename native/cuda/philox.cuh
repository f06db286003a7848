// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; 2011): four 32-bit words for a counter and a
// key.
#pragma once
#include "device.cuh"

namespace tunebook {
namespace cuda {

struct Words4 {
  uint32_t w[4];
};

__device__ __forceinline__ Words4 philox(uint32_t key, uint64_t counter) {
  uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0, k0 = key, k1 = 0;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Uniform on [0, 1): 24 bits, so that every value is exact in float32.
__device__ __forceinline__ float uniform(uint32_t word) { return (float)(word >> 8) * 5.9604644775390625e-8f; }

}  // namespace cuda
}  // namespace tunebook
