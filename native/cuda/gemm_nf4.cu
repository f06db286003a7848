// Products with a 4-bit weight (NF4, FP4). Up to 64 rows (decoding) read the codes straight into the product; otherwise the weight is restored once into scratch
// memory, in the type of the product, and multiplied as any other: that costs about 2% of a product of thousands of rows.
#include "nf4.cuh"

namespace tunebook {
namespace cuda {
namespace {

void gemm_nf4(const gemm_nf4_args& g) {
  check_compute(g.compute);
  const Nf4 w = open_nf4(g.q, g.absmax, g.absmax2, g.offset, g.rows * g.cols, g.block, g.kind);
  const int64_t n = g.trans_w ? g.rows : g.cols, k = g.trans_w ? g.cols : g.rows;
  if (g.m <= 0 || n <= 0) return;
  check_matrix("a", g.a, g.m, k, g.lda);
  check_matrix("y", g.y, g.m, n, g.ldy);
  if (g.bias) check_matrix("bias", g.bias, 1, n, n);
  const DType type = product_type(g.a.dtype, g.a.dtype, g.compute);
  Product p{g.m, n, k};
  p.y = g.y;
  p.ldy = g.ldy;
  p.alpha = g.alpha;
  p.beta = g.beta;
  p.bias = g.bias;
  if (k > 0) {
    p.a = as_type({g.a.data, g.a.dtype, g.lda}, 1, g.m, k, type, kOperandA);
    if (g.trans_w && g.m <= 8 && gemv_nf4(w, g.m, g.rows, g.cols, p.a, g.y, g.ldy, g.alpha, g.beta, g.bias)) return;
    if (g.trans_w && g.m <= 64 && gemm_nf4_rows(w, g.m, g.rows, g.cols, p.a, g.y, g.ldy, g.alpha, g.beta, g.bias)) return;
    const int64_t bytes = g.rows * g.cols * (int64_t)size_of(type);
    const Ref restored{scratch(kWeights, bytes), bytes, type};
    dequantize(w, g.rows * g.cols, restored, device.stream);
    p.b = {restored.data, type, g.cols, g.trans_w != 0};
  }
  multiply(p);
}

}  // namespace

void register_gemm_nf4(Backend& b) { b.gemm_nf4 = gemm_nf4; }

}  // namespace cuda
}  // namespace tunebook
