// isa: portable avx2 avx512 avx512bf16
// Weights in E4M3 codes with one scale a row: quantising, restoring, products, whose left operand may be rounded to E4M3 as well.
#include "fp8.h"
#include "fp8_checks.h"
#include "frozen.h"

namespace tunebook {
namespace TB_ISA {
namespace {

struct Fp8 {
  const uint8_t* q;
  const float* scale;
  int64_t cols;

  bool plain = false;  // codes as numbers, without their row's scale

  void restore(int64_t row, int64_t from, int64_t count, float* to) const {
    const uint8_t* x = q + row * cols + from;
    const float s = plain ? 1.0f : scale[row];
    for_vectors(count, [=](int64_t i, int64_t lanes) { store_to(to + i, load_e4m3(x + i, lanes) * s, lanes); });
  }

  template <class P>
  void words(int64_t row, int64_t from, int64_t count, float* to) const {
    words_through_floats<P>(*this, row, from, count, to);
  }
};

Fp8 open_fp8(const Ref& q, const Ref& scale, int64_t rows, int64_t cols) {
  check_size("rows", rows);
  check_size("cols", cols);
  check_tensor("q", q, product(rows, cols), DType::UInt8);
  check_tensor("scale", scale, rows);
  return {q.u8(), scale.f32(), cols};
}

void quantize_fp8(const quantize_fp8_args& g) {
  const Fp8 w = open_fp8(g.q, g.scale, g.rows, g.cols);
  check_tensor("x", g.x, product(g.rows, g.cols));
  parallel_pieces(g.rows, rows_of(16384, g.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const float* x = g.x.f32() + r * g.cols;
      const RowScale s = row_scale(largest(g.cols, [=](int64_t i, int64_t lanes) { return load_to(x + i, lanes); }));
      g.scale.f32()[r] = s.back;
      uint8_t* q = g.q.u8() + r * w.cols;
      for_vectors(g.cols, [=](int64_t i, int64_t lanes) { store_codes(q + i, codes_of(round_e4m3(load_to(x + i, lanes) * s.to)), lanes); });
    }
  });
}

void dequantize_fp8(const dequantize_fp8_args& g) {
  const Fp8 w = open_fp8(g.q, g.scale, g.rows, g.cols);
  check_tensor("y", g.y, product(g.rows, g.cols));
  parallel_pieces(g.rows, rows_of(16384, g.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) w.restore(r, 0, g.cols, g.y.f32() + r * g.cols);
  });
}

// ---- products -----------------------------------------------------------------------------

// One row of W against M rows of A: codes are summed first, then scaled, with the rows' own scales where they have some.
template <int M>
void dot_codes(const Fp8& w, const float* a, int64_t lda, const float* a_scale, int64_t row, const Epilogue& e) {
  constexpr int U = M == 1 ? 4 : 2;
  vf acc[M][U] = {};
  const uint8_t* q = w.q + row * w.cols;
  int64_t p = 0;
  for (; p + U * W <= w.cols; p += U * W) {
    __builtin_prefetch(q + p + kAhead);
TB_UNROLL(4)
    for (int u = 0; u < U; u += 2) {
      vf low, high;
      e4m3_pair(q + p + u * W, low, high);
TB_UNROLL(4)
      for (int i = 0; i < M; i++) {
        acc[i][u] += load(a + i * lda + p + u * W) * low;
        acc[i][u + 1] += load(a + i * lda + p + (u + 1) * W) * high;
      }
    }
  }
  const float unit = holds_nan(q, p) ? bits_float(kNanBits) : kE4m3Unit;
  for (; p < w.cols; p += W) {
    const int64_t left = w.cols - p < W ? w.cols - p : W;
    const vf v = e4m3_over_unit(q + p, left);
    for (int i = 0; i < M; i++) acc[i][0] += load_to(a + i * lda + p, left) * v;
  }
  for (int i = 0; i < M; i++) {
    vf sum = acc[i][0];
    for (int u = 1; u < U; u++) sum += acc[i][u];
    finish(e, i, row, hsum(sum) * unit * w.scale[row] * (a_scale ? a_scale[i] : 1.0f));
  }
}

template <int M>
void gemv_fp8(int64_t rows, const float* a, int64_t lda, const float* a_scale, const Fp8& w, const Epilogue& e) {
  weight_rows(rows, w.cols, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) dot_codes<M>(w, a, lda, a_scale, j, e);
  });
}

void few(const FrozenProduct& p, const float* a, int64_t lda, const float* a_scale, const Fp8& w) {
  with_rows(p.m, [&](auto M) { gemv_fp8<decltype(M)::value>(p.n, a, lda, a_scale, w, p.e); });
}

// Rows of a, multiplied by column scales where there are some, as values of E4M3 without their scale, which goes to a_scale.
void round_rows(const float* a, int64_t lda, const float* columns, int64_t m, int64_t k, float* to, float* a_scale) {
  auto at = [=](int64_t r, int64_t i, int64_t lanes) {
    const vf x = load_to(a + r * lda + i, lanes);
    return columns == nullptr ? x : rounded(x * load_to(columns + i, lanes));
  };
  parallel_pieces(m, rows_of(16384, k), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const RowScale s = row_scale(largest(k, [&](int64_t i, int64_t lanes) { return at(r, i, lanes); }));
      a_scale[r] = s.back;
      for_vectors(k, [&](int64_t i, int64_t lanes) { store_to(to + r * k + i, round_e4m3(at(r, i, lanes) * s.to), lanes); });
    }
  });
}

// y = alpha * sum * (row scale) * (column scale) + beta * y + bias.
void finish_rows(const Epilogue& e, const float* sum, int64_t m, int64_t n, const float* rows, const float* columns) {
  parallel_pieces(m, rows_of(16384, n), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      float* y = e.y + r * e.ldy;
      const float scale = e.alpha * rows[r];
      for_vectors(n, [&](int64_t i, int64_t lanes) {
        vf v = load_to(sum + r * n + i, lanes) * scale;
        if (columns != nullptr) v *= load_to(columns + i, lanes);
        if (e.bias != nullptr) v += load_to(e.bias + i, lanes);
        if (e.beta != 0) v += e.beta * load_to(y + i, lanes);
        store_to(y + i, v, lanes);
      });
    }
  });
}

// Codes are exact in bfloat16, so their product is the same in either type but for the order of its sums: the faster one is taken.
using Codes = std::conditional_t<TB_BF16 != 0, Rounded, Exact>;

void rounded_product(const gemm_fp8_args& g, const FrozenProduct& p, const Fp8& w) {
  if (p.m == 0) return;
  constexpr int64_t kElements = int64_t{16} << 20, kLeastRows = 256;
  int64_t most = kElements / (p.n + p.k);
  most = p.few || most < kLeastRows ? kLeastRows : most > kMB ? kMB : most;
  if (most > p.m) most = p.m;
  const float* given = g.a_scale.f32();  // then a holds the codes' values
  float* rows = given != nullptr ? nullptr : scratch_f32(0, most * p.k);
  float* sums = p.few ? nullptr : scratch_f32(1, most * p.n);
  float* a_scale = given != nullptr ? nullptr : scratch_f32(2, most);
  Fp8 codes = w;
  codes.plain = true;
  for (int64_t i = 0; i < p.m; i += most) {
    const int64_t m = p.m - i < most ? p.m - i : most;
    if (given == nullptr) round_rows(g.a.f32() + i * g.lda, g.lda, g.trans_w ? nullptr : w.scale, m, p.k, rows, a_scale);
    const float *values = given != nullptr ? g.a.f32() + i * p.k : rows, *scales = given != nullptr ? given + i : a_scale;
    if (p.few) return few(p, values, p.k, scales, w);  // all rows at once
    gemm_wide<Codes>(m, p.n, p.k, {values, p.k, 1}, RestoredB<Fp8>{codes, g.trans_w != 0}, {1.0f, 0.0f, sums, p.n, nullptr});
    const Epilogue e{p.e.alpha, p.e.beta, p.e.y + i * p.e.ldy, p.e.ldy, p.e.bias};
    finish_rows(e, sums, m, p.n, scales, g.trans_w ? w.scale : nullptr);
  }
}

// The same where a has been rounded before: its codes become numbers.
void product_of_codes(gemm_fp8_args g, const Fp8& w) {
  const int64_t m = g.m > 0 ? g.m : 0, k = g.cols;
  const uint8_t* codes = g.a.u8();
  float* a = scratch_f32(3, m * k);
  parallel_pieces(m, rows_of(16384, k), [&](int64_t begin, int64_t end) {
    const int64_t at = begin * k;
    for_vectors((end - begin) * k, [&](int64_t i, int64_t lanes) { store_to(a + at + i, load_e4m3(codes + at + i, lanes), lanes); });
  });
  g.a = Ref{a, m * k * 4, DType::Float32};
  rounded_product(g, open_product(g), w);
}

void gemm_fp8(const gemm_fp8_args& g) {
  const Fp8 w = open_fp8(g.q, g.scale, g.rows, g.cols);
  check_rounding(g);
  if (g.a_scale) return product_of_codes(g, w);
  const FrozenProduct p = open_product(g);
  if (g.round_a) return rounded_product(g, p, w);
  if (p.few) return few(p, g.a.f32(), g.lda, nullptr, w);
  gemm_frozen(p, w, w.cols);
}

}  // namespace

void register_fp8(Backend& b) {
  b.gemm_fp8 = gemm_fp8;
  b.quantize_fp8 = quantize_fp8;
  b.dequantize_fp8 = dequantize_fp8;
}

}  // namespace TB_ISA
}  // namespace tunebook
