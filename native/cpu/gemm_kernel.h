// The microkernel: a tile of MR rows by NV vectors of columns, kept in registers while k runs.
#pragma once
#include "half.h"

namespace tunebook {
namespace TB_ISA {

#if TB_AVX512
constexpr int kMR = 12, kNV = 2;  // 24 of 32 registers accumulate
#elif TB_AVX2
constexpr int kMR = 6, kNV = 2;  // 12 of 16
#else
constexpr int kMR = 4, kNV = 2;  // 8 of 16
#endif
// Loops over registers must unroll whole, or the arrays they run over end up in memory.
#define TB_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define TB_UNROLL(n) TB_PRAGMA(clang loop unroll(full))
#else
#define TB_UNROLL(n) TB_PRAGMA(GCC unroll n)
#endif

constexpr int kNR = kNV * W;  // columns of a packed panel of B

// How operands are packed and multiplied. Packed memory is made of 32-bit words: kPair consecutive steps of k of one lane. `along` makes up to W words
// from kPair * W elements that stand along k, `across` one word a lane from elements of kPair steps (x1 nullptr: zeros).
struct Exact {  // float32 as it is
  static constexpr int kPair = 1;
  static constexpr bool kInPlace = true;  // float32 operands can be read where they stand
  template <class T>
  TB_INLINE vf along(const T* x, int64_t n) { return load_as(x, n); }
  template <class T>
  TB_INLINE vf across(const T* x0, const T*, int64_t n) { return load_as(x0, n); }
  TB_INLINE void add(vf& acc, vf x, vf w) { acc += x * w; }
};

#if TB_BF16
struct Rounded {  // pairs of bfloat16, float32 accumulation: vdpbf16ps
  static constexpr int kPair = 2;
  static constexpr bool kInPlace = false;
  TB_INLINE vf pack(vf low, vf high) { return (vf)(__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }
  template <class T>
  TB_INLINE vf along(const T* x, int64_t n) {
    return pack(load_as(x, n < W ? n : W), n > W ? load_as(x + W, n - W) : vf{});
  }
  TB_INLINE vf along(const bf16* x, int64_t n) {
    if (n == 2 * W) return (vf)_mm512_loadu_si512(x);
    return (vf)_mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), x);
  }
  TB_INLINE vf interleave(__m512i both) {
    alignas(64) static constexpr uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return (vf)_mm512_maskz_permutexvar_epi16(~0u, _mm512_load_si512(order), both);
  }
  template <class T>
  TB_INLINE vf across(const T* x0, const T* x1, int64_t n) {
    return interleave((__m512i)pack(load_as(x0, n), x1 == nullptr ? vf{} : load_as(x1, n)));
  }
  TB_INLINE vf across(const bf16* x0, const bf16* x1, int64_t n) {
    const __m512i low = _mm512_maskz_cvtepu16_epi32(kAll, load_halves(x0, n));
    if (x1 == nullptr) return (vf)low;
    return (vf)((vu)low | (vu)_mm512_maskz_cvtepu16_epi32(kAll, load_halves(x1, n)) << 16);
  }
  TB_INLINE void add(vf& acc, vf x, vf w) {
    acc = (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)(__m512i)x, (__m512bh)(__m512i)w);
  }
};
#else
struct Rounded {  // values rounded to bfloat16, multiplied as float32
  static constexpr int kPair = 1;
  static constexpr bool kInPlace = false;
  template <class T>
  TB_INLINE vf along(const T* x, int64_t n) { return round_bf16(load_as(x, n)); }
  TB_INLINE vf along(const bf16* x, int64_t n) { return load_as(x, n); }
  template <class T>
  TB_INLINE vf across(const T* x0, const T*, int64_t n) { return along(x0, n); }
  TB_INLINE void add(vf& acc, vf x, vf w) { acc += x * w; }
};
#endif

// A word in every lane, its bits unchanged: a pair of bfloat16 is no number to calculate with.
TB_INLINE vf splat_word(const float* p) {
  int32_t word;
  memcpy(&word, p, 4);
  return (vf)splat_i(word);
}

// Where a tile goes: y = alpha * acc + beta * y + bias.
struct Epilogue {
  float alpha, beta;
  float* y;
  int64_t ldy;
  const float* bias;  // nullptr: none
};

// One row of a tile; `columns` of its NV vectors are written.
template <int NV>
TB_INLINE void store_row(const vf* acc, const Epilogue& e, float* y, const float* bias, int64_t columns) {
TB_UNROLL(4)
  for (int v = 0; v < NV; v++) {
    const int64_t left = columns - v * W;
    if (left <= 0) return;
    vf r = acc[v] * e.alpha;
    if (left >= W) {
      if (bias != nullptr) r += load(bias + v * W);
      if (e.beta != 0) r += load(y + v * W) * e.beta;
      store(y + v * W, r);
    } else {
      if (bias != nullptr) r += load_n(bias + v * W, left);
      if (e.beta != 0) r += load_n(y + v * W, left) * e.beta;
      store_n(y + v * W, r, left);
    }
  }
}

// k counts words (kPair steps each). Rows of A: packed, word (i, p) at a[p * MR + i]; or in place, at a[i * a_row + p * a_col].
// Rows of B: vectors at b[p * ldb + v * W]; a packed panel has ldb = kNR and is padded with zeros. kMaskedB: B in place, whose last vector holds only what
// `columns` leaves of it.
template <class P, int MR, int NV, bool kPackedA, bool kMaskedB>
static void tile(int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t ldb, const Epilogue& e, int64_t row, int64_t column,
                 int64_t rows, int64_t columns) {
  vf acc[MR][NV];
TB_UNROLL(16)
  for (int i = 0; i < MR; i++) {
TB_UNROLL(4)
    for (int v = 0; v < NV; v++) acc[i][v] = vf{};
  }
  const int64_t last = columns - (NV - 1) * W;  // lanes of the last vector
  // Three rows hang on one pointer, so that twelve rows need four of them.
  const float* a3[(MR + 2) / 3];
  for (int g = 0; g < (MR + 2) / 3; g++) a3[g] = a + g * 3 * a_row;
  // The tile's rows of y come near while the first steps run, one row a step; the last one is asked for again and again.
  const float* y_row = e.y + row * e.ldy + column;
  const float* y_last = y_row + (rows - 1) * e.ldy;
  for (int64_t p = 0; p < k; p++) {
    if (kPackedA) {
TB_UNROLL(4)
      for (int v = 0; v < NV; v++) __builtin_prefetch(y_row + v * W, 1);
      y_row = y_row < y_last ? y_row + e.ldy : y_last;
    }
    vf bv[NV];
TB_UNROLL(4)
    for (int v = 0; v < NV; v++) bv[v] = kMaskedB && v == NV - 1 && last < W ? load_n(b + v * W, last) : load(b + v * W);
    if (kPackedA) __builtin_prefetch(a + 16 * MR);
    __builtin_prefetch(b + (kMaskedB ? 8 : 16) * ldb);
TB_UNROLL(16)
    for (int i = 0; i < MR; i++) {
      const vf x = splat_word(kPackedA ? a + i : a3[i / 3] + (i % 3) * a_row);
TB_UNROLL(4)
      for (int v = 0; v < NV; v++) P::add(acc[i][v], x, bv[v]);
    }
    if (kPackedA) {
      a += MR;
    } else {
TB_UNROLL(16)
      for (int g = 0; g < (MR + 2) / 3; g++) a3[g] += a_col;
    }
    b += ldb;
  }
  float* y = e.y + row * e.ldy + column;
  const float* bias = e.bias == nullptr ? nullptr : e.bias + column;
  if (rows == MR) {
TB_UNROLL(16)
    for (int i = 0; i < MR; i++) store_row<NV>(acc[i], e, y + i * e.ldy, bias, columns);
  } else {
    vf spilled[MR][NV];
TB_UNROLL(16)
    for (int i = 0; i < MR; i++) {
TB_UNROLL(4)
      for (int v = 0; v < NV; v++) spilled[i][v] = acc[i][v];
    }
    for (int64_t i = 0; i < rows; i++) store_row<NV>(spilled[i], e, y + i * e.ldy, bias, columns);
  }
}

}  // namespace TB_ISA
}  // namespace tunebook
