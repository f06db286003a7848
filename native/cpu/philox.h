// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; 2011): four 32-bit words for a counter and a key.
#pragma once
#include "simd.h"

namespace tunebook {
namespace TB_ISA {

// out[4 * j + k] = word k of counter first + j, for W counters.
TB_INLINE void philox(uint32_t key, uint64_t first, uint32_t* out) {
  uint32_t c0[W], c1[W], c2[W], c3[W];
  for (int j = 0; j < W; ++j) {
    c0[j] = (uint32_t)(first + (uint64_t)j);
    c1[j] = (uint32_t)((first + (uint64_t)j) >> 32);
    c2[j] = c3[j] = 0;
  }
  uint32_t k0 = key, k1 = 0;
  for (int round = 0; round < 10; ++round) {
    for (int j = 0; j < W; ++j) {
      const uint64_t p0 = (uint64_t)c0[j] * 0xD2511F53u, p1 = (uint64_t)c2[j] * 0xCD9E8D57u;
      const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1[j] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3[j] ^ k1;
      c1[j] = (uint32_t)p1;
      c3[j] = (uint32_t)p0;
      c0[j] = n0;
      c2[j] = n2;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int j = 0; j < W; ++j) {
    out[4 * j] = c0[j];
    out[4 * j + 1] = c1[j];
    out[4 * j + 2] = c2[j];
    out[4 * j + 3] = c3[j];
  }
}

// Uniform on [0, 1): 24 bits, so that every value is exact in float32.
TB_INLINE vf uniform_v(const uint32_t* words) {
  vi v;
  memcpy(&v, words, sizeof v);
  return to_float((vi)((vu)v >> 8)) * 5.9604644775390625e-8f;
}

}  // namespace TB_ISA
}  // namespace tunebook
