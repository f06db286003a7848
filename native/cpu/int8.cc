// isa: portable avx2 avx512 avx512bf16
// Weights in 8 bits with one scale a row: quantising, restoring, products.
#include "check.h"
#include "gemm.h"
#include "restored.h"

namespace tunebook {
namespace TB_ISA {
namespace {

// (float)q[i] for n <= W elements.
TB_INLINE vf load_int8(const int8_t* q, int64_t n) {
#if TB_AVX512
  const __m128i bytes = n == W ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)) : _mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1), q);
  return to_float((vi)_mm512_maskz_cvtepi8_epi32(kAll, bytes));
#else
  vi v = {};
  for (int i = 0; i < W; i++)
    if (i < n) v[i] = q[i];
  return to_float(v);
#endif
}

constexpr float kUnit = 1.0f / 127.0f;

struct Int8 {
  const int8_t* q;
  const float* absmax;
  int64_t cols;

  void restore(int64_t row, int64_t from, int64_t count, float* to) const {
    const int8_t* x = q + row * cols + from;
    const float scale = absmax[row];
    for_vectors(count, [=](int64_t i, int64_t lanes) { store_to(to + i, load_int8(x + i, lanes) * scale * kUnit, lanes); });
  }
};

struct Int8B {
  Int8 w;
  bool transposed;

  template <class P>
  void pack_panels(float* out, int64_t p, int64_t k, int64_t j, int64_t n) const {
    pack_restored<P>(out, k, n, transposed, [&](int64_t line, int64_t from, int64_t count, float* to) {
      w.restore((transposed ? j : p) + line, (transposed ? p : j) + from, count, to);
    });
  }
};

Int8 open_int8(const Ref& q, const Ref& absmax, int64_t rows, int64_t cols) {
  check_size("rows", rows);
  check_size("cols", cols);
  check_tensor("q", q, product(rows, cols), DType::UInt8);
  check_tensor("absmax", absmax, rows);
  return {q.as<int8_t>(), absmax.f32(), cols};
}

void quantize_int8(const quantize_int8_args& g) {
  const Int8 w = open_int8(g.q, g.absmax, g.rows, g.cols);
  check_tensor("x", g.x, product(g.rows, g.cols));
  parallel_pieces(g.rows, rows_of(16384, g.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const float* x = g.x.f32() + r * g.cols;
      float most = 0;
      for (int64_t i = 0; i < g.cols; i++) {
        const float v = __builtin_fabsf(x[i]);
        if (!(v <= most)) most = v;  // a NaN stays
        if (v != v) break;
      }
      g.absmax.f32()[r] = most;
      const float scale = most == 0 ? 0.0f : 127.0f / most;
      int8_t* q = g.q.as<int8_t>() + r * w.cols;
      for (int64_t i = 0; i < g.cols; i++) {
        // Adding and taking off 1.5 * 2^23 rounds to the nearest whole number, ties to even.
        const float v = rounded(x[i] * scale) + 12582912.0f;
        int32_t bits;
        memcpy(&bits, &v, 4);
        q[i] = (int8_t)(bits - 0x4b400000);
      }
    }
  });
}

void dequantize_int8(const dequantize_int8_args& g) {
  const Int8 w = open_int8(g.q, g.absmax, g.rows, g.cols);
  check_tensor("y", g.y, product(g.rows, g.cols));
  parallel_pieces(g.rows, rows_of(16384, g.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) w.restore(r, 0, g.cols, g.y.f32() + r * g.cols);
  });
}

// R rows of W against M rows of A: codes are summed first, then scaled.
template <int M, int R>
void dot_codes(const Int8& w, const float* a, int64_t lda, int64_t row, const Epilogue& e) {
  vf acc[M][R] = {};
  for_vectors(w.cols, [&](int64_t p, int64_t lanes) {
    vf x[M];
TB_UNROLL(4)
    for (int i = 0; i < M; i++) x[i] = load_to(a + i * lda + p, lanes);
TB_UNROLL(4)
    for (int r = 0; r < R; r++) {
      const int8_t* from = w.q + (row + r) * w.cols + p;
      __builtin_prefetch(from + 512);
      const vf v = load_int8(from, lanes);
TB_UNROLL(4)
      for (int i = 0; i < M; i++) acc[i][r] += x[i] * v;
    }
  });
  for (int i = 0; i < M; i++) {
    float* y = e.y + i * e.ldy + row;
    for (int r = 0; r < R; r++) {
      float s = e.alpha * (hsum(acc[i][r]) * w.absmax[row + r] * kUnit);
      if (e.bias != nullptr) s += e.bias[row + r];
      if (e.beta != 0) s += e.beta * y[r];
      y[r] = s;
    }
  }
}

template <int M>
void gemv_int8(int64_t rows, const float* a, int64_t lda, const Int8& w, const Epilogue& e) {
  constexpr int R = 4;
  int64_t piece = 131072 / (w.cols > 0 ? w.cols : 1) / R * R;
  if (piece < R) piece = R;
  tasks_if(rows * w.cols > 131072, ceil_div(rows, piece), [&](int64_t t) {
    const int64_t end = (t + 1) * piece < rows ? (t + 1) * piece : rows;
    int64_t j = t * piece;
    for (; j + R <= end; j += R) dot_codes<M, R>(w, a, lda, j, e);
    for (; j < end; j++) dot_codes<M, 1>(w, a, lda, j, e);
  });
}

void gemm_int8(const gemm_int8_args& g) {
  const Int8 w = open_int8(g.q, g.absmax, g.rows, g.cols);
  const int64_t n = g.trans_w ? g.rows : g.cols, k = g.trans_w ? g.cols : g.rows;
  if (g.m <= 0 || n <= 0) return;
  check_tensor("a", g.a, span(g.m, k, g.lda));
  check_tensor("y", g.y, span(g.m, n, g.ldy));
  if (g.bias) check_tensor("bias", g.bias, n);
  const Epilogue e{g.alpha, g.beta, g.y.f32(), g.ldy, g.bias.f32()};
  if (g.m <= 4 && g.trans_w) {
    switch (g.m) {
      case 1: gemv_int8<1>(n, g.a.f32(), g.lda, w, e); return;
      case 2: gemv_int8<2>(n, g.a.f32(), g.lda, w, e); return;
      case 3: gemv_int8<3>(n, g.a.f32(), g.lda, w, e); return;
      default: gemv_int8<4>(n, g.a.f32(), g.lda, w, e); return;
    }
  }
  const DenseA a{g.a.f32(), g.lda, 1};
  const Int8B b{w, g.trans_w != 0};
  if (g.compute == kBFloat16) {
    gemm_wide<Rounded>(g.m, n, k, a, b, e);
  } else {
    gemm_wide<Exact>(g.m, n, k, a, b, e);
  }
}

}  // namespace

void register_int8(Backend& b) {
  b.gemm_int8 = gemm_int8;
  b.quantize_int8 = quantize_int8;
  b.dequantize_int8 = dequantize_int8;
}

}  // namespace TB_ISA
}  // namespace tunebook
