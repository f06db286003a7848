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

// The words of N elements from element i on: i and N are multiples of 4, or N is 1.
template <int N> __device__ __forceinline__ void words_of(uint32_t seed, uint32_t offset, int64_t i, uint32_t (&words)[N]) {
  if constexpr (N == 1) {
    const Words4 four = philox(seed, (uint64_t)offset + (uint64_t)(i / 4));
    const int k = (int)(i % 4);
    words[0] = k < 2 ? (k == 0 ? four.w[0] : four.w[1]) : (k == 2 ? four.w[2] : four.w[3]);
  } else {
#pragma unroll
    for (int j = 0; j < N; j += 4) {
      const Words4 four = philox(seed, (uint64_t)offset + (uint64_t)((i + j) / 4));
#pragma unroll
      for (int k = 0; k < 4; ++k) words[j + k] = four.w[k];
    }
  }
}

// Inverted dropout of an element; scale is 1 / (1 - p).
__device__ __forceinline__ float dropped(float x, uint32_t word, float p, float scale) { return uniform(word) >= p ? x * scale : 0.0f; }

// What dropout inside another op is told.
struct Dropout {
  uint32_t seed, offset;
  float p, scale;
  Dropout(int64_t seed, int64_t offset, float p) : seed((uint32_t)seed), offset((uint32_t)offset), p(p), scale(1.0f / (1.0f - p)) {}
  template <int N> __device__ __forceinline__ void apply(float (&v)[N], int64_t i) const {
    uint32_t words[N];
    words_of<N>(seed, offset, i, words);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = dropped(v[j], words[j], p, scale);
  }
};

}  // namespace cuda
}  // namespace tunebook
