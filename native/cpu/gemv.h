// Products with few rows (decoding, one prompt of a few tokens): bound by memory, so B is read once, in the order in which it stands. A 16-bit B is
// widened on the way, so nothing is rounded here, whatever `compute` allows.
#pragma once
#include "gemm_driver.h"

namespace tunebook {
namespace TB_ISA {

// Bytes of weights of one task. Small, so that threads end together: a task is a microsecond.
constexpr int64_t kTaskBytes = 24576;

// f(begin, end) for pieces of `rows` rows of a weight, of row_bytes each, as many for every thread. A row's result does not depend on where pieces end.
// Another thread has everything at hand at once where f holds values instead of references.
template <class F>
static void weight_rows(int64_t rows, int64_t row_bytes, F&& f) {
  const int64_t bytes = rows * row_bytes, threads = thread_count();
  int64_t piece = ceil_div(rows, ceil_div(ceil_div(bytes, kTaskBytes), threads) * threads);
  if (piece < 1) piece = 1;
  tasks_if(bytes > 2 * kTaskBytes, ceil_div(rows, piece), [=](int64_t t) { f(t * piece, (t + 1) * piece < rows ? (t + 1) * piece : rows); });
}

// f(the number of rows as a constant), 4 for more: how many a kernel keeps in registers.
template <class F>
TB_INLINE void with_rows(int64_t rows, F&& f) {
  switch (rows) {
    case 1: f(std::integral_constant<int, 1>{}); break;
    case 2: f(std::integral_constant<int, 2>{}); break;
    case 3: f(std::integral_constant<int, 3>{}); break;
    default: f(std::integral_constant<int, 4>{}); break;
  }
}

// What a finished sum becomes: element (i, column) of y.
TB_INLINE void finish(const Epilogue& e, int64_t i, int64_t column, float sum) {
  float* y = e.y + i * e.ldy + column;
  float s = e.alpha * sum;
  if (e.bias != nullptr) s += e.bias[column];
  if (e.beta != 0) s += e.beta * *y;
  *y = s;
}

// B's columns stand along k (the usual weight, out x in): y[i, j] is a dot product. One column meets M rows of A, in U sums each.
template <int M, class T>
static void dot_column(int64_t k, const float* a, int64_t lda, const T* b, const Epilogue& e, int64_t column) {
  constexpr int U = M == 1 ? 4 : 2;
  vf acc[M][U];
TB_UNROLL(4)
  for (int i = 0; i < M; i++) {
TB_UNROLL(4)
    for (int u = 0; u < U; u++) acc[i][u] = vf{};
  }
  int64_t p = 0;
  for (; p + U * W <= k; p += U * W) {
TB_UNROLL(4)
    for (int line = 0; line < U * W * (int)sizeof(T); line += 64) __builtin_prefetch(reinterpret_cast<const char*>(b + p) + kAhead + line);
TB_UNROLL(4)
    for (int u = 0; u < U; u++) {
      const vf w = load_whole(b + p + u * W);
TB_UNROLL(4)
      for (int i = 0; i < M; i++) acc[i][u] += load(a + i * lda + p + u * W) * w;
    }
  }
  for (; p < k; p += W) {
    const int64_t left = k - p < W ? k - p : W;
    const vf w = load_as(b + p, left);
    for (int i = 0; i < M; i++) acc[i][0] += load_to(a + i * lda + p, left) * w;
  }
  for (int i = 0; i < M; i++) {
    vf sum = acc[i][0];
    for (int u = 1; u < U; u++) sum += acc[i][u];
    finish(e, i, column, hsum(sum));
  }
}

// R columns of B against M rows of A.
template <int M, int R, class T>
static void dot_rows(int64_t k, const float* a, int64_t lda, const T* b, int64_t ldb, const Epilogue& e, int64_t column) {
  vf acc[M][R];
TB_UNROLL(8)
  for (int i = 0; i < M; i++) {
TB_UNROLL(8)
    for (int r = 0; r < R; r++) acc[i][r] = vf{};
  }
  for (int64_t p = 0; p < k; p += W) {
    const int64_t left = k - p < W ? k - p : W;
    vf x[M];
TB_UNROLL(8)
    for (int i = 0; i < M; i++) x[i] = load_to(a + i * lda + p, left);
TB_UNROLL(8)
    for (int r = 0; r < R; r++) {
      const vf w = load_as(b + r * ldb + p, left);
      __builtin_prefetch(b + (R + r) * ldb + p);
TB_UNROLL(8)
      for (int i = 0; i < M; i++) acc[i][r] += x[i] * w;
    }
  }
  for (int i = 0; i < M; i++) {
    for (int r = 0; r < R; r++) finish(e, i, column + r, hsum(acc[i][r]));
  }
}

// Up to 16 rows: R columns of B stay in the first-level cache while groups of four rows meet them.
template <int R, class T>
static void dot_groups(int64_t m, int64_t k, const float* a, int64_t lda, const T* b, int64_t ldb, const Epilogue& e, int64_t column) {
  for (int64_t i = 0; i < m; i += 4) {
    const Epilogue at{e.alpha, e.beta, e.y + i * e.ldy, e.ldy, e.bias};
    with_rows(m - i, [&](auto rows) { dot_rows<decltype(rows)::value, R>(k, a + i * lda, lda, b, ldb, at, column); });
  }
}

template <class T>
static void few_rows_dot(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const T* b, int64_t ldb, const Epilogue& e) {
  constexpr int R = 4;
  int64_t piece = 65536 / (k > 0 ? k : 1) / R * R;
  if (piece < R) piece = R;
  tasks_if(m * n * k > 262144, ceil_div(n, piece), [&](int64_t t) {
    const int64_t end = (t + 1) * piece < n ? (t + 1) * piece : n;
    int64_t j = t * piece;
    for (; j + R <= end; j += R) dot_groups<R>(m, k, a, lda, b + j * ldb, ldb, e, j);
    for (; j < end; j++) dot_groups<1>(m, k, a, lda, b + j * ldb, ldb, e, j);
  });
}

template <int M, class T>
static void gemv_dot(int64_t n, int64_t k, const float* a, int64_t lda, const T* b, int64_t ldb, const Epilogue& e) {
  weight_rows(n, k * (int64_t)sizeof(T), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) dot_column<M>(k, a, lda, b + j * ldb, e, j);
  });
}

// B's rows stand along n: V vectors of columns accumulate while k runs.
template <int M, int V, class T>
static void axpy_columns(int64_t k, const float* a, int64_t lda, const T* b, int64_t ldb, const Epilogue& e, int64_t column, int64_t columns) {
  vf acc[M][V];
TB_UNROLL(8)
  for (int i = 0; i < M; i++) {
TB_UNROLL(16)
    for (int v = 0; v < V; v++) acc[i][v] = vf{};
  }
  const int64_t last = columns - (V - 1) * W;
  for (int64_t p = 0; p < k; p++, b += ldb) {
    vf x[M];
TB_UNROLL(8)
    for (int i = 0; i < M; i++) x[i] = splat(a[i * lda + p]);
TB_UNROLL(16)
    for (int v = 0; v < V; v++) {
      const vf w = v == V - 1 && last < W ? load_as(b + v * W, last) : load_whole(b + v * W);
      __builtin_prefetch(b + 12 * ldb + v * W);
TB_UNROLL(8)
      for (int i = 0; i < M; i++) acc[i][v] += x[i] * w;
    }
  }
  for (int i = 0; i < M; i++) store_row<V>(acc[i], e, e.y + i * e.ldy + column, e.bias == nullptr ? nullptr : e.bias + column, columns);
}

template <int M, class T>
static void gemv_axpy(int64_t n, int64_t k, const float* a, int64_t lda, const T* b, int64_t ldb, const Epilogue& e) {
  constexpr int V = TB_AVX512 ? (M == 1 ? 16 : M == 2 ? 8 : 4) : M <= 2 ? 4 : 2;
  tasks_if(n * k > 65536, ceil_div(n, V * W), [&](int64_t t) {
    int64_t j = t * V * W;
    const int64_t end = j + V * W < n ? j + V * W : n;
    if (end - j > (V - 1) * W) {
      axpy_columns<M, V>(k, a, lda, b + j, ldb, e, j, end - j);
    } else {
      for (; j < end; j += W) axpy_columns<M, 1>(k, a, lda, b + j, ldb, e, j, end - j < W ? end - j : W);
    }
  });
}

// m rows of A as rows along k: in place, or copied.
TB_INLINE const float* rows_along_k(int64_t m, int64_t k, const DenseA& a, int64_t* lda) {
  *lda = a.row;
  if (a.col == 1) return a.data;
  float* copy = scratch_f32(4, m * k);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t p = 0; p < k; p++) copy[i * k + p] = a.data[i * a.row + p * a.col];
  }
  *lda = k;
  return copy;
}

constexpr int64_t kFewRows = TB_AVX512 ? 20 : 8;

// Whether it took the product: few rows, and B stands along k (or, for one to four rows, along n).
template <class T>
static bool gemv(int64_t m, int64_t n, int64_t k, const DenseA& a, const DenseB<T>& b, const Epilogue& e) {
  if (b.row == 1 ? m > kFewRows : b.col == 1 ? m > 4 : true) return false;
  int64_t lda;
  const float* rows = rows_along_k(m, k, a, &lda);
  if (b.row != 1) {
    with_rows(m, [&](auto M) { gemv_axpy<decltype(M)::value>(n, k, rows, lda, b.data, b.row, e); });
  } else if (m <= 4) {
    with_rows(m, [&](auto M) { gemv_dot<decltype(M)::value>(n, k, rows, lda, b.data, b.col, e); });
  } else {
    few_rows_dot(m, n, k, rows, lda, b.data, b.col, e);
  }
  return true;
}

}  // namespace TB_ISA
}  // namespace tunebook
