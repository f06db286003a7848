// The microkernel: a tile of MR rows by NV vectors of columns, kept in registers while k runs.
#pragma once
#include "simd.h"

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

// Rows of A: packed, element (i, p) at a[p * MR + i]; or in place, at a[i * a_row + p * a_col].
// Rows of B: vectors at b[p * ldb + v * W]; a packed panel has ldb = kNR and is padded with zeros. kMaskedB: B in place, whose last vector holds only what
// `columns` leaves of it.
template <int MR, int NV, bool kPackedA, bool kMaskedB>
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
  for (int64_t p = 0; p < k; p++) {
    vf bv[NV];
TB_UNROLL(4)
    for (int v = 0; v < NV; v++) bv[v] = kMaskedB && v == NV - 1 && last < W ? load_n(b + v * W, last) : load(b + v * W);
    if (kPackedA) __builtin_prefetch(a + 16 * MR);
    __builtin_prefetch(b + (kMaskedB ? 8 : 16) * ldb);
TB_UNROLL(16)
    for (int i = 0; i < MR; i++) {
      const vf x = splat(kPackedA ? a[i] : a3[i / 3][(i % 3) * a_row]);
TB_UNROLL(4)
      for (int v = 0; v < NV; v++) acc[i][v] += x * bv[v];
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
