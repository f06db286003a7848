// isa: portable avx2 avx512
// Matrix products in float32.
#include "gemm.h"

#include "gemv.h"

namespace tunebook {
namespace TB_ISA {

void sgemm(int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, int64_t b_col,
           float beta, float* y, int64_t ldy, const float* bias) {
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
  const DenseB right{b, b_row, b_col};
  if (gemv(m, n, k, left, right, e)) return;
  if (n <= 2 * kNR) {
    gemm_narrow(m, n, k, left, right, e);
  } else {
    gemm_wide(m, n, k, left, right, e);
  }
}

namespace {

void check(const char* what, const Ref& x, int64_t rows, int64_t cols, int64_t ld, int64_t before = 0) {
  if (rows <= 0 || cols <= 0) return;
  if (ld < cols && rows > 1) fail("%s has rows of %lld elements, but a row stride of %lld", what, (long long)cols, (long long)ld);
  const int64_t last = before + (rows - 1) * ld + cols;
  if (x.dtype != DType::Float32) fail("%s must be float32", what);
  if (last * 4 > x.bytes) fail("%s has %lld elements, but %lld are needed", what, (long long)(x.bytes / 4), (long long)last);
}

void gemm(const gemm_args& g) {
  check("a", g.a, g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, g.lda);
  check("b", g.b, g.trans_b ? g.n : g.k, g.trans_b ? g.k : g.n, g.ldb);
  check("y", g.y, g.m, g.n, g.ldy);
  if (g.bias) check("bias", g.bias, 1, g.n, g.n);
  sgemm(g.m, g.n, g.k, g.alpha, g.a.f32(), g.trans_a ? 1 : g.lda, g.trans_a ? g.lda : 1, g.b.f32(), g.trans_b ? 1 : g.ldb, g.trans_b ? g.ldb : 1,
        g.beta, g.y.f32(), g.ldy, g.bias.f32());
}

void gemm_batched(const gemm_batched_args& g) {
  if (g.batch <= 0) return;
  const int64_t group = g.b_group > 1 ? g.b_group : 1, last = g.batch - 1;
  check("a", g.a, g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, g.lda, last * g.stride_a);
  check("b", g.b, g.trans_b ? g.n : g.k, g.trans_b ? g.k : g.n, g.ldb, last / group * g.stride_b);
  check("y", g.y, g.m, g.n, g.ldy, last * g.stride_y);
  auto one = [&](int64_t i) {
    sgemm(g.m, g.n, g.k, g.alpha, g.a.f32() + i * g.stride_a, g.trans_a ? 1 : g.lda, g.trans_a ? g.lda : 1, g.b.f32() + i / group * g.stride_b,
          g.trans_b ? 1 : g.ldb, g.trans_b ? g.ldb : 1, g.beta, g.y.f32() + i * g.stride_y, g.ldy);
  };
  // Many products run side by side, few and large ones each on all threads.
  const double flops = 2.0 * g.m * g.n * g.k;
  tasks_if(g.batch >= 4 * thread_count() || (g.batch > 1 && flops < kSerialFlops && flops * g.batch > kSerialFlops), g.batch, one);
}

}  // namespace

void register_gemm(Backend& b) {
  b.gemm = gemm;
  b.gemm_batched = gemm_batched;
}

}  // namespace TB_ISA
}  // namespace tunebook
