// What products with a frozen weight share, whatever it is stored as: their arguments, and the choice between reading codes in the dot product and restoring
// them while packing.
#pragma once
#include "checks.h"
#include "gemm.h"
#include "gemm_few.h"
#include "parallel.h"

namespace tunebook {
namespace TB_ISA {

// y (m x n) = alpha * a W + beta * y + bias, or W^T. W is rows x cols as stored.
struct FrozenProduct {
  int64_t m, n, k;
  DenseA a;
  Epilogue e;
  int64_t compute;
  bool transposed;  // W^T
  bool few;  // up to four rows that meet the weight's own (W^T): a dot product can read the codes as they stand
};

// Checks what the ops' arguments have in common. An empty y may have any tensors.
template <class Args>
static FrozenProduct open_product(const Args& g) {
  const int64_t n = g.trans_w ? g.rows : g.cols, k = g.trans_w ? g.cols : g.rows;
  const bool empty = g.m <= 0 || n <= 0;
  if (!empty) {
    check_tensor("a", g.a, span(g.m, k, g.lda));
    check_tensor("y", g.y, span(g.m, n, g.ldy));
    if (g.bias) check_tensor("bias", g.bias, n);
  }
  const Epilogue e{g.alpha, g.beta, g.y.f32(), g.ldy, g.bias.f32()};
  return {empty ? 0 : g.m, n, k, {g.a.f32(), g.lda, 1}, e, g.compute, g.trans_w != 0, !empty && g.m <= 4 && g.trans_w};
}

// Whether a few rows may be multiplied as pairs of bfloat16 (pairs.h).
TB_INLINE bool takes_pairs(const FrozenProduct& p) { return p.m > 0 && p.m <= kFewMost && p.transposed && p.compute == kBFloat16; }

template <class P, class Weight>
static void frozen_product(const FrozenProduct& p, const Weight& w, int64_t row_bytes) {
  if (p.transposed && p.m <= kFewMost) {
    gemm_few<P>(p.m, p.n, p.k, p.a, w, row_bytes, p.e);
  } else {
    gemm_wide<P>(p.m, p.n, p.k, p.a, RestoredB<Weight>{w, p.transposed}, p.e);
  }
}

// w: a weight as restored.h describes it, with rows of row_bytes.
template <class Weight>
static void gemm_frozen(const FrozenProduct& p, const Weight& w, int64_t row_bytes) {
  if (p.m == 0) return;
  if (p.compute == kBFloat16) {
    frozen_product<Rounded>(p, w, row_bytes);
  } else {
    frozen_product<Exact>(p, w, row_bytes);
  }
}

}  // namespace TB_ISA
}  // namespace tunebook
