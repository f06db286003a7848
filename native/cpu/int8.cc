// isa: portable avx2 avx512 avx512bf16
// Weights in 8 bits with one scale a row: quantising, restoring, products.
#include "frozen.h"
#include "pairs.h"

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
  template <class P>
  void words(int64_t row, int64_t from, int64_t count, float* to) const {
    words_through_floats<P>(*this, row, from, count, to);
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

// One row of W against M rows of A: codes are summed first, then scaled.
template <int M>
void dot_codes(const Int8& w, const float* a, int64_t lda, int64_t row, const Epilogue& e) {
  constexpr int U = M == 1 ? 4 : 2;
  vf acc[M][U] = {};
  const int8_t* q = w.q + row * w.cols;
  int64_t p = 0;
  for (; p + U * W <= w.cols; p += U * W) {
    __builtin_prefetch(q + p + kAhead);
TB_UNROLL(4)
    for (int u = 0; u < U; u++) {
      const vf v = load_int8(q + p + u * W, W);
TB_UNROLL(4)
      for (int i = 0; i < M; i++) acc[i][u] += load(a + i * lda + p + u * W) * v;
    }
  }
  for (; p < w.cols; p += W) {
    const int64_t left = w.cols - p < W ? w.cols - p : W;
    const vf v = load_int8(q + p, left);
    for (int i = 0; i < M; i++) acc[i][0] += load_to(a + i * lda + p, left) * v;
  }
  for (int i = 0; i < M; i++) {
    vf sum = acc[i][0];
    for (int u = 1; u < U; u++) sum += acc[i][u];
    finish(e, i, row, hsum(sum) * w.absmax[row] * kUnit);
  }
}

template <int M>
void gemv_int8(int64_t rows, const float* a, int64_t lda, const Int8& w, const Epilogue& e) {
  weight_rows(rows, w.cols, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) dot_codes<M>(w, a, lda, j, e);
  });
}

#if TB_BF16
// In bfloat16 (pairs.h), which holds the codes exactly.
struct Int8Pairs {
  static constexpr int kVectors = 4;
  static constexpr bool kScaled = true, kHalves = false;
  Int8 w;

  static void along(const float* x, float* to) {
TB_UNROLL(4)
    for (int v = 0; v < kVectors; v++) store(to + v * W, Rounded::along(x + 2 * v * W, 2 * W));
  }
  Int8Pairs near(int64_t, int64_t) const { return *this; }

  struct Row {
    const int8_t* q;
    vf scale;

    TB_MEMBER vf codes(const int8_t* from, int64_t n) const { return n <= 0 ? vf{} : load_int8(from, n < W ? n : W); }
    TB_MEMBER void words(int64_t c, int64_t left, vf* to) const {
      const int8_t* from = q + c * 128;
      __builtin_prefetch(from + kAhead);
      __builtin_prefetch(from + kAhead + 64);
TB_UNROLL(4)
      for (int v = 0; v < kVectors; v++) {
        to[v] = Rounded::pack(codes(from + 2 * v * W, left - 2 * v * W), codes(from + (2 * v + 1) * W, left - (2 * v + 1) * W));
      }
    }
    TB_MEMBER vf scales(int64_t, int64_t) const { return scale; }
    template <int M>
    TB_MEMBER void start(int64_t, vf*) const {}
  };

  TB_MEMBER Row row(int64_t j) const { return {w.q + j * w.cols, splat(w.absmax[j] * kUnit)}; }
};
#endif

void gemm_int8(const gemm_int8_args& g) {
  const Int8 w = open_int8(g.q, g.absmax, g.rows, g.cols);
  const FrozenProduct p = open_product(g);
#if TB_BF16
  if (takes_pairs(p)) return few_pairs(p.m, p.n, p.k, p.a, Int8Pairs{w}, w.cols, p.e);
#endif
  if (p.few) return with_rows(p.m, [&](auto M) { gemv_int8<decltype(M)::value>(p.n, g.a.f32(), g.lda, w, p.e); });
  gemm_frozen(p, w, w.cols);
}

}  // namespace

void register_int8(Backend& b) {
  b.gemm_int8 = gemm_int8;
  b.quantize_int8 = quantize_int8;
  b.dequantize_int8 = dequantize_int8;
}

}  // namespace TB_ISA
}  // namespace tunebook
