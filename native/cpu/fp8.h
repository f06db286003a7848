// E4M3 (OCP 8-bit float without infinities, Micikevicius et al. 2022): vectors of codes as float32, and rounding to it.
#pragma once
#include "half.h"

namespace tunebook {
namespace TB_ISA {

constexpr float kE4m3Most = 448.0f;             // 1.75 * 2^8
constexpr float kE4m3Least = 7.888609052e-31f;  // 2^-100: a row without anything as large is zeros
constexpr uint32_t kNanBits = 0x7fc00000u;

// W codes (n of them read) as float32, divided by 256: a float16 has the same fields with an exponent of 15 instead of 7, which the
// hardware widens, subnormals too; what the code 0x7f looks like then becomes NaN. Portable code looks all of it up.
constexpr float kE4m3Unit = 256.0f;

#if TB_AVX2
TB_INLINE vf without_nan(vf v) {
#if TB_AVX512
  const __mmask16 nan = _mm512_cmp_ps_mask((__m512)vabs(v), (__m512)splat(480.0f / kE4m3Unit), _CMP_EQ_OQ);
  return (vf)_mm512_mask_mov_ps((__m512)v, nan, (__m512)from_bits(splat_i((int32_t)kNanBits)));
#else
  return from_bits(bits(v) | (vabs(v) == splat(480.0f / kE4m3Unit)));
#endif
}
#endif

#if TB_AVX512
TB_INLINE vf e4m3_over_unit(const uint8_t* q, int64_t n) {
  const __m128i bytes = n == W ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)) : _mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1), q);
  const __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7);  // sign, sign again, and the fields below
  return without_nan((vf)_mm512_maskz_cvtph_ps(kAll, _mm256_and_si256(wide, _mm256_set1_epi16((short)0xbf80))));
}
#elif TB_AVX2
TB_INLINE vf e4m3_over_unit(const uint8_t* q, int64_t n) {
  alignas(8) uint8_t part[8] = {};
  if (n != W) memcpy(part, q, (size_t)n);
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(n == W ? q : part));
  const __m128i wide = _mm_slli_epi16(_mm_cvtepi8_epi16(bytes), 7);
  return without_nan((vf)_mm256_cvtph_ps(_mm_and_si128(wide, _mm_set1_epi16((short)0xbf80))));
}
#else
struct E4m3Table {
  float values[256] = {};
  constexpr E4m3Table() {
    for (int code = 0; code < 256; code++) {
      const int exponent = code >> 3 & 15, mantissa = code & 7;
      float v = (exponent == 0 ? mantissa : 8 + mantissa) / 512.0f / kE4m3Unit;
      for (int e = 1; e < exponent; e++) v *= 2;
      if (exponent == 15 && mantissa == 7) v = __builtin_nanf("");
      values[code] = code & 128 ? -v : v;
    }
  }
};
static constexpr E4m3Table kE4m3Table;
TB_INLINE vf e4m3_over_unit(const uint8_t* q, int64_t n) {
  vf v = {};
  for (int i = 0; i < W; i++)
    if (i < n) v[i] = kE4m3Table.values[q[i]];
  return v;
}
#endif

// 2 W codes over kE4m3Unit without looking for NaN, which comes out as 480: see holds_nan.
TB_INLINE void e4m3_pair(const uint8_t* q, vf& low, vf& high) {
#if TB_AVX512
  const __m512i wide = _mm512_slli_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q))), 7);
  const __m512i halves = _mm512_and_si512(wide, _mm512_set1_epi16((short)0xbf80));
  low = (vf)_mm512_maskz_cvtph_ps(kAll, _mm512_castsi512_si256(halves));
  high = (vf)_mm512_maskz_cvtph_ps(kAll, _mm512_maskz_extracti64x4_epi64(0xff, halves, 1));
#elif TB_AVX2
  const __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q))), 7);
  const __m256i halves = _mm256_and_si256(wide, _mm256_set1_epi16((short)0xbf80));
  low = (vf)_mm256_cvtph_ps(_mm256_castsi256_si128(halves));
  high = (vf)_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
#else
  low = e4m3_over_unit(q, W);
  high = e4m3_over_unit(q + W, W);
#endif
}

TB_INLINE bool holds_nan(const uint8_t* q, int64_t n) {
  int64_t i = 0;
  bool found = false;
#if TB_AVX512
  const __m512i nan = _mm512_set1_epi8(0x7f);
  __mmask64 any = 0;
  for (; i + 64 <= n; i += 64) any |= _mm512_cmpeq_epi8_mask(_mm512_and_si512(_mm512_loadu_si512(q + i), nan), nan);
  found = any != 0;
#elif TB_AVX2
  const __m256i nan = _mm256_set1_epi8(0x7f);
  __m256i any = _mm256_setzero_si256();
  for (; i + 32 <= n; i += 32)
    any = _mm256_or_si256(any, _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + i)), nan), nan));
  found = !_mm256_testz_si256(any, any);
#endif
  for (; i < n; i++) found |= (q[i] & 0x7f) == 0x7f;
  return found;
}

// W codes as they are.
TB_INLINE vf load_e4m3(const uint8_t* q, int64_t n) { return e4m3_over_unit(q, n) * kE4m3Unit; }

// Each lane to the nearest value of E4M3, ties to even, at most 448 in magnitude. NaN stays NaN.
TB_INLINE vf round_e4m3(vf x) {
  const vf a = vmin(splat(kE4m3Most), vabs(x));  // NaN is the second operand: it comes out
  const vu u = (vu)a;
  const vf normal = (vf)((u + 0x7ffffu + ((u >> 20) & 1u)) & 0xfff00000u);
  const vf subnormal = rounded(a + splat(16384.0f)) - splat(16384.0f);  // the sum has steps of 2^-9
  const vf magnitude = a < splat(0.015625f) ? subnormal : normal;
  return copysign_v(a != a ? a : magnitude, x);
}

// The codes of what round_e4m3 gives, one a lane. NaN: 0x7f.
TB_INLINE vu codes_of(vf v) {
  const vf a = vabs(v);
  const vu u = (vu)a;
  const vu code = a < splat(0.015625f) ? (vu)__builtin_convertvector(a * splat(512.0f), vi) : (u >> 20) - (120u << 3);
  const vu signed_code = code | ((vu)bits(v) >> 31) << 7;
  return v != v ? (vu)splat_i(0x7f) : signed_code;
}

TB_INLINE void store_codes(uint8_t* q, vu codes, int64_t n) {
#if TB_AVX512
  if (n == W) return _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_maskz_cvtepi32_epi8(kAll, (__m512i)codes));
#endif
  for (int i = 0; i < n; i++) q[i] = (uint8_t)codes[i];
}

// What a row is multiplied by before it is rounded, and what its codes are multiplied by afterwards, from its largest magnitude.
struct RowScale {
  float to, back;
};
TB_INLINE RowScale row_scale(float most) {
  if (!(most < __builtin_inff())) return {bits_float(kNanBits), bits_float(kNanBits)};
  if (most < kE4m3Least) return {0.0f, 0.0f};
  return {kE4m3Most / most, most / kE4m3Most};
}

// The largest of |f(i)| over the vectors of a row; NaN where there is one.
template <class F>
TB_INLINE float largest(int64_t n, F f) {
  vi most = {};  // bits of magnitudes stand in the order of their values, NaN above infinity
  for_vectors(n, [&](int64_t i, int64_t lanes) {
    const vi m = bits(vabs(f(i, lanes)));
    most = m > most ? m : most;
  });
  int32_t top = 0;
  for (int i = 0; i < W; i++) top = most[i] > top ? most[i] : top;
  return bits_float((uint32_t)top);
}

}  // namespace TB_ISA
}  // namespace tunebook
