// What products with a frozen weight share, whatever it is stored as: their arguments, and the way by a restored copy of the weight.
#pragma once
#include "gemm.h"

namespace tunebook {
namespace cuda {

// The product of an op's arguments but for b, checked (a only where it holds numbers, not codes); a is as it came. With an empty y (m or n 0) there is nothing to do, and
// any tensors will do.
template <class Args> Product open_product(const Args& g, bool numbers = true) {
  check_compute(g.compute);
  Product p{g.m, g.trans_w ? g.rows : g.cols, g.trans_w ? g.cols : g.rows};
  if (p.m > 0 && p.n > 0) {
    if (numbers) check_matrix("a", g.a, p.m, p.k, g.lda);
    check_matrix("y", g.y, p.m, p.n, g.ldy);
    if (g.bias) check_matrix("bias", g.bias, 1, p.n, p.n);
  }
  p.a = {g.a.data, g.a.dtype, g.lda};
  p.y = g.y;
  p.ldy = g.ldy;
  p.alpha = g.alpha;
  p.beta = g.beta;
  p.bias = g.bias;
  return p;
}

template <class Args> DType type_of(const Args& g) { return product_type(g.a.dtype, g.a.dtype, g.compute); }

// restore(y) writes the weight (rows x cols as stored) to y, in the product's type.
template <class Args, class Restore> void multiply_restored(Product p, const Args& g, Restore&& restore) {
  if (p.k > 0) {
    const DType type = type_of(g);
    p.a = as_type(p.a, 1, p.m, p.k, type, kOperandA);
    const int64_t bytes = g.rows * g.cols * (int64_t)size_of(type);
    const Ref weight{scratch(kWeights, bytes), bytes, type};
    restore(weight);
    p.b = {weight.data, type, g.cols, g.trans_w != 0};
  }
  multiply(p);
}

}  // namespace cuda
}  // namespace tunebook
