// Reading 4-bit weights (NF4, FP4): decoding runs of elements, and a weight for products.
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
  const float* tables = nullptr;  // the scale of each code, a table for each group of blocks from `group` on (with_tables)
  int64_t group = 0;

  float scale(int64_t b) const {
    if (absmax8 == nullptr) return absmax[b];
    return rounded(map[absmax8[b]] * absmax2[b / kAbsmaxBlock]) + offset;
  }
};

// The same weight for work on blocks [begin, end), whose scales, if doubly quantised, can be looked up in `tables`. In scratch 7.
static inline Nf4 with_tables(const Nf4& w, int64_t begin, int64_t end) {
  if (w.absmax8 == nullptr || end <= begin) return w;
  Nf4 t = w;
  t.group = begin / kAbsmaxBlock;
  const int64_t groups = (end - 1) / kAbsmaxBlock + 1 - t.group;
  float* to = scratch_f32(7, groups * 256);
  t.tables = to;
  for (int64_t g = t.group; g < t.group + groups; g++, to += 256) {
    for (int i = 0; i < 256; i += W) store(to + i, rounded(load(w.map + i) * w.absmax2[g]) + w.offset);
  }
  return t;
}

// Checks the tensors of a weight of n elements.
static Nf4 open_nf4(const Ref& q, const Ref& absmax, const Ref& absmax2, const Ref& offset, int64_t n, int64_t block, int64_t kind) {
  const bool doubly = check_nf4(q, absmax, absmax2, offset, n, block, kind);
  Nf4 w{kind == 0 ? kNf4Codes : kFp4Codes, q.u8(), nullptr, nullptr, nullptr, 0.0f, dynamic_map(), block, nullptr, 0};
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
  int64_t b = first / w.block, left = (b + 1) * w.block - first;
  for (; count > 0; b++, left = w.block) {
    const int64_t run = left < count ? left : count;
    decode_run(w.codes, w.q, first, run, w.scale(b), out);
    first += run;
    out += run;
    count -= run;
  }
}

#if TB_BF16
// The same rounded to bfloat16, for whole halves of a lane: first, count and the block are multiples of 32. A block's sixteen values are scaled and
// rounded once, then looked up.
static void decode_rounded(const Nf4& w, int64_t first, int64_t count, float* out) {
  const vf codes = load(w.codes);
  // Two bytes in 64 bits give four 16-bit indices: an even element stands in a high nibble. What stands above the nibble is not looked at, or chooses
  // between equal halves of the table.
  const __m512i nibbles = _mm512_set1_epi64(0x0008000c00000004);
  const uint8_t* q = w.q + first / 2;
  int64_t b = first / w.block, left = (b + 1) * w.block - first;
  for (; count > 0; b++, left = w.block) {
    const int64_t run = left < count ? left : count;
    __builtin_prefetch(q + kAhead);
    const __m256i values = (__m256i)_mm512_cvtneps_pbh((__m512)(codes * w.scale(b)));
    const __m512i table = _mm512_maskz_broadcast_i64x4(0xff, values);
    for (int64_t i = 0; i < run; i += 32, q += 16, out += W) {
      const __m512i pairs = _mm512_maskz_cvtepu16_epi64(0xff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
      store(out, (vf)_mm512_maskz_permutexvar_epi16(~0u, _mm512_maskz_multishift_epi64_epi8(~0ull, nibbles, pairs), table));
    }
    count -= run;
  }
}
#endif

// A weight of rows of `cols` elements (restored.h).
struct Nf4Rows {
  Nf4 w;
  int64_t cols;

  void restore(int64_t row, int64_t from, int64_t count, float* to) const { decode(w, row * cols + from, count, to); }
  template <class P>
  void words(int64_t row, int64_t from, int64_t count, float* to) const {
#if TB_BF16
    if (P::kPair == 2 && cols % 32 == 0 && count % 32 == 0 && w.block % 32 == 0) return decode_rounded(w, row * cols + from, count, to);
#endif
    words_through_floats<P>(*this, row, from, count, to);
  }
};

}  // namespace TB_ISA
}  // namespace tunebook
