// Reading 4-bit weights (NF4, FP4): decoding runs of elements, and a right operand of the packed product that decodes while it packs.
#pragma once
#include "nf4_checks.h"
#include "nf4_tables.h"
#include "restored.h"

namespace tunebook {
namespace TB_ISA {

struct Nf4 {
  const float* codes;        // the sixteen values
  const uint8_t* q;
  const float* absmax;       // one a block, or
  const uint8_t* absmax8;    // doubly quantised: codes,
  const float* absmax2;      // one scale for 256 codes,
  float offset;              // and what was taken off before
  const float* map;
  int64_t block;

  float scale(int64_t b) const {
    if (absmax8 == nullptr) return absmax[b];
    return rounded(map[absmax8[b]] * absmax2[b / kAbsmaxBlock]) + offset;
  }
};

// Checks the tensors of a weight of n elements.
static Nf4 open_nf4(const Ref& q, const Ref& absmax, const Ref& absmax2, const Ref& offset, int64_t n, int64_t block, int64_t kind) {
  const bool doubly = check_nf4(q, absmax, absmax2, offset, n, block, kind);
  Nf4 w{kind == 0 ? kNf4Codes : kFp4Codes, q.u8(), nullptr, nullptr, nullptr, 0.0f, dynamic_map(), block};
  if (doubly) {
    w.absmax8 = absmax.u8();
    w.absmax2 = absmax2.f32();
    w.offset = *offset.f32();
  } else {
    w.absmax = absmax.f32();
  }
  return w;
}

#if TB_AVX512
// The codes of sixteen 32-bit lanes; only their low four bits are looked at.
TB_INLINE vf codes_of(const float* codes, __m512i nibbles) { return (vf)_mm512_maskz_permutexvar_ps(kAll, nibbles, _mm512_load_ps(codes)); }
#elif TB_AVX2
TB_INLINE vf codes_of(const float* codes, __m256i nibbles) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(codes), nibbles);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(codes + 8), nibbles);
  return (vf)_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(nibbles, 28)));
}
#endif

// out[i] = code of element first + i, times scale. All lie in one block.
static void decode_run(const float* codes, const uint8_t* q, int64_t first, int64_t count, float scale, float* out) {
  if (count > 0 && first & 1) {
    *out++ = codes[q[first >> 1] & 15] * scale;
    first++;
    count--;
  }
  q += first >> 1;
  int64_t i = 0;
#if TB_AVX2
  const __m128i mask = _mm_set1_epi8(15);
  for (; i + 16 <= count; i += 16) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + i / 2));
    const __m128i nibbles = _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(bytes, 4), mask), _mm_and_si128(bytes, mask));
#if TB_AVX512
    store(out + i, codes_of(codes, _mm512_maskz_cvtepu8_epi32(kAll, nibbles)) * scale);
#else
    store(out + i, codes_of(codes, _mm256_cvtepu8_epi32(nibbles)) * scale);
    store(out + i + 8, codes_of(codes, _mm256_cvtepu8_epi32(_mm_srli_si128(nibbles, 8))) * scale);
#endif
  }
#endif
  for (; i + 2 <= count; i += 2) {
    out[i] = codes[q[i / 2] >> 4] * scale;
    out[i + 1] = codes[q[i / 2] & 15] * scale;
  }
  if (i < count) out[i] = codes[q[i / 2] >> 4] * scale;
}

// Elements [first, first + count) of the flattened weight.
static void decode(const Nf4& w, int64_t first, int64_t count, float* out) {
  while (count > 0) {
    const int64_t b = first / w.block;
    const int64_t end = (b + 1) * w.block - first;
    const int64_t run = end < count ? end : count;
    decode_run(w.codes, w.q, first, run, w.scale(b), out);
    first += run;
    out += run;
    count -= run;
  }
}

// The right operand: W (rows x cols) itself, k running over its rows, or its transpose, k running over its columns.
struct Nf4B {
  Nf4 w;
  int64_t cols;
  bool transposed;

  template <class P>
  void pack_panels(float* out, int64_t p, int64_t k, int64_t j, int64_t n) const {
    pack_restored<P>(out, k, n, transposed, [&](int64_t line, int64_t from, int64_t count, float* to) {
      decode(w, transposed ? (j + line) * cols + p + from : (p + line) * cols + j + from, count, to);
    });
  }
};

}  // namespace TB_ISA
}  // namespace tunebook
