// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; 2011): four 32-bit words for a counter and a key.
#pragma once
#include "simd.h"

namespace tunebook {
namespace TB_ISA {

#if TB_AVX512
typedef __m512i Wide;
TB_INLINE Wide wide_product(Wide a, Wide b) { return _mm512_maskz_mul_epu32(0xff, a, b); }
TB_INLINE Wide low_pairs(Wide a, Wide b) { return _mm512_maskz_unpacklo_epi64(0xff, a, b); }
TB_INLINE Wide high_pairs(Wide a, Wide b) { return _mm512_maskz_unpackhi_epi64(0xff, a, b); }
#elif TB_AVX2
typedef __m256i Wide;
TB_INLINE Wide wide_product(Wide a, Wide b) { return _mm256_mul_epu32(a, b); }
TB_INLINE Wide low_pairs(Wide a, Wide b) { return _mm256_unpacklo_epi64(a, b); }
TB_INLINE Wide high_pairs(Wide a, Wide b) { return _mm256_unpackhi_epi64(a, b); }
#elif defined(__SSE2__)
typedef __m128i Wide;
TB_INLINE Wide wide_product(Wide a, Wide b) { return _mm_mul_epu32(a, b); }
TB_INLINE Wide low_pairs(Wide a, Wide b) { return _mm_unpacklo_epi64(a, b); }
TB_INLINE Wide high_pairs(Wide a, Wide b) { return _mm_unpackhi_epi64(a, b); }
#else
typedef uint64_t Wide __attribute__((vector_size(16)));
TB_INLINE Wide wide_product(Wide a, Wide b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
TB_INLINE Wide low_pairs(Wide a, Wide b) { return Wide{a[0], b[0]}; }
TB_INLINE Wide high_pairs(Wide a, Wide b) { return Wide{a[1], b[1]}; }
#endif
typedef uint64_t vl __attribute__((vector_size(W * 4)));

constexpr int kCounters = W / 2;       // of one call
constexpr int kWords = 4 * kCounters;  // two vectors of results

// out[4 * j + k] = word k of counter first + j. The four words of a counter stand in 64-bit lanes; only the lower halves count, and the
// upper ones are not cleared.
TB_INLINE void philox(uint32_t key, uint64_t first, uint32_t* out) {
  vl counter;  // in the order that low_pairs and high_pairs undo
  for (int l = 0; l < kCounters; ++l) counter[l] = first + (uint64_t)((l >> 1) + (l & 1) * (kCounters / 2));
  vl c0 = counter, c1 = counter >> 32, c2 = {}, c3 = {};
  const vl m0 = c2 + 0xD2511F53u, m1 = c2 + 0xCD9E8D57u;
  uint32_t k0 = key, k1 = 0;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const vl p0 = (vl)wide_product((Wide)c0, (Wide)m0), p1 = (vl)wide_product((Wide)c2, (Wide)m1);
    c0 = (p1 >> 32) ^ c1 ^ (uint64_t)k0;
    c2 = (p0 >> 32) ^ c3 ^ (uint64_t)k1;
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const Wide a = (Wide)((c0 & 0xffffffffu) | (c1 << 32)), b = (Wide)((c2 & 0xffffffffu) | (c3 << 32));
  const Wide low = low_pairs(a, b), high = high_pairs(a, b);
  memcpy(out, &low, sizeof low);
  memcpy(out + W, &high, sizeof high);
}

// Uniform on [0, 1): 24 bits, so that every value is exact in float32.
TB_INLINE vf uniform_v(const uint32_t* words) {
  vi v;
  memcpy(&v, words, sizeof v);
  return to_float((vi)((vu)v >> 8)) * 5.9604644775390625e-8f;
}

}  // namespace TB_ISA
}  // namespace tunebook
