// Products with a 4-bit weight (NF4, FP4). Up to 64 rows (decoding) read the codes straight into the product; otherwise the weight is restored once into scratch
// memory, in the type of the product, and multiplied as any other: that costs about 2% of a product of thousands of rows.
#include "frozen.h"
#include "nf4.cuh"

namespace tunebook {
namespace cuda {
namespace {

void gemm_nf4(const gemm_nf4_args& g) {
  const Nf4 w = open_nf4(g.q, g.absmax, g.absmax2, g.offset, g.rows * g.cols, g.block, g.kind);
  Product p = open_product(g);
  if (p.m <= 0 || p.n <= 0) return;
  if (p.k > 0) {
    p.a = as_type(p.a, 1, p.m, p.k, type_of(g), kOperandA);
    if (g.trans_w && g.m <= 8 && gemv_nf4(w, g.m, g.rows, g.cols, p.a, g.y, g.ldy, g.alpha, g.beta, g.bias)) return;
    if (g.trans_w && g.m <= 64 && gemm_nf4_rows(w, g.m, g.rows, g.cols, p.a, g.y, g.ldy, g.alpha, g.beta, g.bias)) return;
  }
  multiply_restored(p, g, [&](const Ref& to) { dequantize(w, g.rows * g.cols, to, device.stream); });
}

}  // namespace

void register_gemm_nf4(Backend& b) { b.gemm_nf4 = gemm_nf4; }

}  // namespace cuda
}  // namespace tunebook
