// 16-bit floats: scalars and vectors of them as float32, and rounding to bfloat16.
#pragma once
#include "simd.h"

namespace tunebook {
namespace TB_ISA {

// Elements as they stand in memory; the types tell the two 16-bit formats apart.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

TB_INLINE uint32_t float_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
TB_INLINE float bits_float(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

TB_INLINE float to_float(float x) { return x; }
TB_INLINE float to_float(bf16 h) { return bits_float((uint32_t)h.bits << 16); }
#if TB_AVX2
TB_INLINE float to_float(f16 h) { return _cvtsh_ss(h.bits); }
#else
TB_INLINE float to_float(f16 h) {
  const uint32_t magnitude = h.bits & 0x7fffu;
  // Exponent and mantissa moved into place are the value * 2^-112; the product is exact, for subnormal halves too.
  const float scaled = bits_float(magnitude << 13) * 5.192296858534828e33f;
  const uint32_t special = 0x7f800000u | (magnitude << 13);
  const uint32_t u = magnitude >= 0x7c00u ? special : float_bits(scaled);
  return bits_float(u | ((uint32_t)(h.bits & 0x8000u) << 16));
}
#endif

// To nearest, ties to even; NaN stays NaN.
TB_INLINE uint16_t to_bf16_bits(float x) {
  const uint32_t u = float_bits(x);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
}
TB_INLINE uint16_t to_f16_bits(float x) {
  const uint32_t u = float_bits(x);
  const uint32_t a = u & 0x7fffffffu;
  const uint32_t normal = (a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u) >> 13;
  const uint32_t subnormal = float_bits(bits_float(a) + 0.5f) - 0x3f000000u;  // the addition rounds to 2^-24
  uint32_t h = a < 0x38800000u ? subnormal : normal;
  h = a >= 0x47800000u ? 0x7c00u : h;
  h = h > 0x7c00u ? 0x7c00u : h;
  h = a > 0x7f800000u ? 0x7e00u : h;
  return (uint16_t)(h | ((u >> 16) & 0x8000u));
}

// Each lane rounded to bfloat16 and kept as float32.
TB_INLINE vf round_bf16(vf x) {
  const vu u = (vu)x;
  const vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
  const vu nan = (vu)(x != x);
  return (vf)((rounded & ~nan) | ((u | 0x400000u) & nan));
}

// The first n (0 < n <= W) elements as float32, the other lanes zero.
TB_INLINE vf load_as(const float* p, int64_t n) { return load_to(p, n); }
#if TB_AVX512
TB_INLINE __m256i load_halves(const void* p, int64_t n) {
  if (n == W) return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
}
TB_INLINE vf load_as(const bf16* p, int64_t n) {
  return (vf)((vu)_mm512_maskz_cvtepu16_epi32(kAll, load_halves(p, n)) << 16);
}
TB_INLINE vf load_as(const f16* p, int64_t n) { return (vf)_mm512_maskz_cvtph_ps(kAll, load_halves(p, n)); }
#elif TB_AVX2
TB_INLINE __m128i load_halves(const void* p, int64_t n) {
  if (n == W) return _mm_loadu_si128(static_cast<const __m128i*>(p));
  alignas(16) uint16_t part[W] = {};
  memcpy(part, p, (size_t)n * 2);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(part));
}
TB_INLINE vf load_as(const bf16* p, int64_t n) { return (vf)((vu)_mm256_cvtepu16_epi32(load_halves(p, n)) << 16); }
TB_INLINE vf load_as(const f16* p, int64_t n) { return (vf)_mm256_cvtph_ps(load_halves(p, n)); }
#else
template <class T>
TB_INLINE vf load_as(const T* p, int64_t n) {
  vf v = {};
  for (int i = 0; i < W; ++i)
    if (i < n) v[i] = to_float(p[i]);
  return v;
}
#endif
TB_INLINE vf load_whole(const float* p) { return load(p); }
template <class T>
TB_INLINE vf load_whole(const T* p) {
  return load_as(p, W);
}

// Calls f with a null pointer of the element type of a float dtype.
template <class F>
void with_float_dtype(DType t, F f) {
  switch (t) {
    case DType::Float32: return f(static_cast<const float*>(nullptr));
    case DType::BFloat16: return f(static_cast<const bf16*>(nullptr));
    case DType::Float16: return f(static_cast<const f16*>(nullptr));
    default: fail("a float dtype is needed (float32, bfloat16 or float16)");
  }
}

}  // namespace TB_ISA
}  // namespace tunebook
