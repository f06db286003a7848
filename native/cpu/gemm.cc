// isa: portable avx2 avx512 avx512bf16
// Matrix products of float32, bfloat16 and float16 operands.
#include "gemm.h"

#include "gemv.h"
#include "pairs.h"

namespace tunebook {
namespace TB_ISA {

namespace {

template <class P, class T>
void packed(int64_t m, int64_t n, int64_t k, const DenseA& a, const DenseB<T>& b, const Epilogue& e) {
  if (n <= 2 * kNR) {
    gemm_narrow<P>(m, n, k, a, b, e);
  } else {
    gemm_wide<P>(m, n, k, a, b, e);
  }
}

}  // namespace

void sgemm(int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t a_row, int64_t a_col, const Matrix& b, float beta, float* y, int64_t ldy,
           const float* bias, int64_t compute) {
  if (m <= 0 || n <= 0) return;
  const Epilogue e{alpha, beta, y, ldy, bias};
  if (k <= 0) {  // an empty sum
    for (int64_t i = 0; i < m; i++) {
      for (int64_t j = 0; j < n; j++) {
        y[i * ldy + j] = (beta != 0 ? beta * y[i * ldy + j] : 0.0f) + (bias != nullptr ? bias[j] : 0.0f);
      }
    }
    return;
  }
  const DenseA left{a, a_row, a_col};
  with_float_dtype(b.dtype, [&](auto* of) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(of)>>;
    const DenseB<T> right{static_cast<const T*>(b.data), b.row, b.col};
#if TB_BF16
    if constexpr (std::is_same_v<T, bf16>) {  // up to four rows are bound by memory, so nothing is rounded there
      if (compute == kBFloat16 && m > 4 && m <= kFewMost && a_col == 1 && b.row == 1) {
        return few_pairs(m, n, k, left, WordPairs{right.data, b.col}, k * (int64_t)sizeof(T), e);
      }
    }
#endif
    if (gemv(m, n, k, left, right, e)) return;
    if (compute == kBFloat16) {
      packed<Rounded>(m, n, k, left, right, e);
    } else {
      packed<Exact>(m, n, k, left, right, e);
    }
  });
}

namespace {

void check(const char* what, const Ref& x, int64_t rows, int64_t cols, int64_t ld, int64_t before = 0, bool halves = true) {
  if (rows <= 0 || cols <= 0) return;
  if (ld < cols && rows > 1) fail("%s has rows of %lld elements, but a row stride of %lld", what, (long long)cols, (long long)ld);
  const int64_t last = before + (rows - 1) * ld + cols, have = x.bytes / (int64_t)size_of(x.dtype);
  const bool half = x.dtype == DType::BFloat16 || x.dtype == DType::Float16;
  if (x.dtype != DType::Float32 && !(halves && half)) fail("%s must be float32%s", what, halves ? ", bfloat16 or float16" : "");
  if (last > have) fail("%s has %lld elements, but %lld are needed", what, (long long)have, (long long)last);
}

void check_compute(int64_t compute) {
  if (compute != kFloat32 && compute != kBFloat16) fail("compute must be 0 (float32) or 1 (bfloat16), but is %lld", (long long)compute);
}

// The left operand is float32 nearly always (activations, gradients): a 16-bit one is widened first.
const float* widened(const Ref& a) {
  if (a.dtype == DType::Float32) return a.f32();
  const int64_t n = a.bytes / 2;
  float* out = scratch_f32(0, n);
  with_float_dtype(a.dtype, [&](auto* of) {
    const auto* x = static_cast<decltype(of)>(a.data);
    parallel_pieces(n, 65536, [&](int64_t begin, int64_t end) {
      for_vectors(end - begin, [&](int64_t i, int64_t lanes) { store_to(out + begin + i, load_as(x + begin + i, lanes), lanes); });
    });
  });
  return out;
}

void gemm(const gemm_args& g) {
  check_compute(g.compute);
  check("a", g.a, g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, g.lda);
  check("b", g.b, g.trans_b ? g.n : g.k, g.trans_b ? g.k : g.n, g.ldb);
  check("y", g.y, g.m, g.n, g.ldy, 0, false);
  if (g.bias) check("bias", g.bias, 1, g.n, g.n, 0, false);
  const Matrix b{g.b.data, g.b.dtype, g.trans_b ? 1 : g.ldb, g.trans_b ? g.ldb : 1};
  sgemm(g.m, g.n, g.k, g.alpha, widened(g.a), g.trans_a ? 1 : g.lda, g.trans_a ? g.lda : 1, b, g.beta, g.y.f32(), g.ldy, g.bias.f32(), g.compute);
}

void gemm_batched(const gemm_batched_args& g) {
  check_compute(g.compute);
  if (g.batch <= 0) return;
  const int64_t group = g.b_group > 1 ? g.b_group : 1, last = g.batch - 1;
  check("a", g.a, g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, g.lda, last * g.stride_a);
  check("b", g.b, g.trans_b ? g.n : g.k, g.trans_b ? g.k : g.n, g.ldb, last / group * g.stride_b);
  check("y", g.y, g.m, g.n, g.ldy, last * g.stride_y, false);
  const float* a = widened(g.a);
  const int64_t item = (int64_t)size_of(g.b.dtype);
  auto one = [&](int64_t i) {
    const Matrix b{g.b.u8() + i / group * g.stride_b * item, g.b.dtype, g.trans_b ? 1 : g.ldb, g.trans_b ? g.ldb : 1};
    sgemm(g.m, g.n, g.k, g.alpha, a + i * g.stride_a, g.trans_a ? 1 : g.lda, g.trans_a ? g.lda : 1, b, g.beta, g.y.f32() + i * g.stride_y, g.ldy, nullptr,
          g.compute);
  };
  // Many products run side by side, few and large ones each on all threads.
  const double flops = 2.0 * g.m * g.n * g.k;
  tasks_if(g.batch >= 4 * thread_count() || (g.batch > 1 && flops < kSerialFlops && flops * g.batch > kSerialFlops), g.batch, one);
}

void low_rank_gradients(const low_rank_gradients_args& g) {
  if (g.rows <= 0 || g.cols <= 0 || g.rank <= 0)
    fail("rows, cols and rank are %lld, %lld and %lld, expected at least 1", (long long)g.rows, (long long)g.cols, (long long)g.rank);
  check("dy", g.dy, g.rows, g.cols, g.cols, 0, false);
  check("h", g.h, g.rows, g.rank, g.ld_h, 0, false);
  check("b", g.b, g.cols, g.rank, g.rank);
  check("dh", g.dh, g.rows, g.rank, g.ld_dh, 0, false);
  check("db", g.db, g.cols, g.rank, g.rank, 0, false);
  const Matrix b{g.b.data, g.b.dtype, g.rank, 1}, h{g.h.data, g.h.dtype, g.ld_h, 1};
  sgemm(g.rows, g.rank, g.cols, g.alpha, g.dy.f32(), g.cols, 1, b, 0.0f, g.dh.f32(), g.ld_dh, nullptr, kFloat32);
  sgemm(g.cols, g.rank, g.rows, g.alpha, g.dy.f32(), 1, g.cols, h, g.beta, g.db.f32(), g.rank, nullptr, kFloat32);
}

}  // namespace

void register_gemm(Backend& b) {
  b.gemm = gemm;
  b.low_rank_gradients = low_rank_gradients;
  b.gemm_batched = gemm_batched;
}

}  // namespace TB_ISA
}  // namespace tunebook
