// The small matrix products inside attention: operands of a few dozen rows that stand in the first-level cache.
#pragma once
#include "transpose.h"

namespace tunebook {
namespace TB_ISA {

constexpr int kTileRows = 6;
constexpr int kTileVectors = TB_AVX512 ? 4 : 2;  // 24 or 12 accumulators: what 32 or 16 registers hold beside the operands

enum class Into { Store, Add, Rescale };

// C (R x V vectors) = or += A B, or C * rescale + A B. A's element (i, p) stands at a[i * a_row + p * a_col], B is k x V vectors.
template <int R, int V, Into into>
TB_INLINE void tile(int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t ldb, float* c, int64_t ldc,
                    const float* rescale) {
  vf acc[R][V];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) {
      if (into == Into::Store) acc[i][j] = splat(0.0f);
      else acc[i][j] = load(c + i * ldc + j * W);
      if (into == Into::Rescale) acc[i][j] *= load(rescale + j * W);
    }
  for (int64_t p = 0; p < k; ++p) {
    vf row[V];
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) row[j] = load(b + p * ldb + j * W);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const vf x = splat(a[i * a_row + p * a_col]);
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) acc[i][j] += x * row[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) store(c + i * ldc + j * W, acc[i][j]);
}

template <int V, Into into>
static void tile_column(int64_t m, int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t ldb, float* c, int64_t ldc,
                        const float* rescale) {
  int64_t i = 0;
  for (; i + kTileRows <= m; i += kTileRows) tile<kTileRows, V, into>(k, a + i * a_row, a_row, a_col, b, ldb, c + i * ldc, ldc, rescale);
  const float* from = a + i * a_row;
  float* to = c + i * ldc;
  switch (m - i) {
    case 5: return tile<5, V, into>(k, from, a_row, a_col, b, ldb, to, ldc, rescale);
    case 4: return tile<4, V, into>(k, from, a_row, a_col, b, ldb, to, ldc, rescale);
    case 3: return tile<3, V, into>(k, from, a_row, a_col, b, ldb, to, ldc, rescale);
    case 2: return tile<2, V, into>(k, from, a_row, a_col, b, ldb, to, ldc, rescale);
    case 1: return tile<1, V, into>(k, from, a_row, a_col, b, ldb, to, ldc, rescale);
  }
}

// C (m x n) from A (m x k) and B (k x n); n is a multiple of W, rows of B stand ldb apart. rescale: n factors, one a column.
template <Into into>
static void small_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t ldb, float* c,
                       int64_t ldc, const float* rescale = nullptr) {
  constexpr int64_t kStep = kTileVectors * W;
  int64_t j = 0;
  for (; j + kStep <= n; j += kStep)
    tile_column<kTileVectors, into>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, rescale ? rescale + j : nullptr);
  const float* r = rescale ? rescale + j : nullptr;
  switch ((n - j) / W) {
#if TB_AVX512
    case 3: return tile_column<3, into>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, r);
    case 2: return tile_column<2, into>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, r);
#endif
    case 1: return tile_column<1, into>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, r);
  }
}

}  // namespace TB_ISA
}  // namespace tunebook
