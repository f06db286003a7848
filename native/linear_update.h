// linear_update (ops.def) one product after the other: the update is written, the products with the weights are added to it. For a backend, or shapes, without a kernel for
// all of it at once.
#pragma once
#include "backend.h"

namespace tunebook {

// Rows of weight i.
static inline int64_t rows_of(const linear_update_args& g, int i) {
  return g.a.count == 1 || g.m <= 0 ? g.rows : g.a[i].bytes / (int64_t)size_of(g.a[i].dtype) / g.m;
}

static inline void check_linear_update(const linear_update_args& g) {
  const int count = g.a.count;
  const bool dense = g.b.count > 0, doubly = g.absmax2.count > 0;
  if (count < 1 || (g.trans_w && count != 1)) fail("expected one a%s, received %d", g.trans_w ? "" : " or more", count);
  if ((dense ? g.b.count : g.q.count) != count || (dense && g.q.count > 0)) {
    fail("%d tensors a need as many weights, as numbers or as codes; there are %d in b and %d in q", count, g.b.count, g.q.count);
  }
  if (!dense && (g.absmax.count != count || (doubly && g.absmax2.count != count) || g.offset.count != g.absmax2.count)) {
    fail("%d weights of codes have %d absmax, %d absmax2 and %d offset", count, g.absmax.count, g.absmax2.count, g.offset.count);
  }
  if (g.rank <= 0) fail("rank must be at least 1, but is %lld", (long long)g.rank);
  int64_t rows = 0;
  for (int i = 0; i < count; ++i) rows += rows_of(g, i);
  if (rows != g.rows) fail("the tensors a have %lld columns in all, but rows is %lld", (long long)rows, (long long)g.rows);
}

// The product with weight i alone, where weights are codes.
static inline gemm_nf4_args codes_of(const linear_update_args& g, int i) {
  gemm_nf4_args p{};
  const int64_t rows = rows_of(g, i);
  p.a = g.a[i], p.q = g.q[i], p.absmax = g.absmax[i], p.bias = i == 0 ? g.bias : Ref{}, p.y = g.y;
  if (g.absmax2.count > 0) p.absmax2 = g.absmax2[i], p.offset = g.offset[i];
  p.m = g.m, p.rows = rows, p.cols = g.cols, p.trans_w = g.trans_w, p.block = g.block, p.lda = g.trans_w ? g.cols : rows, p.ldy = g.ldy;
  p.kind = g.kind, p.compute = g.compute;
  p.alpha = 1, p.beta = 1;
  return p;
}

// The same where they are numbers.
static inline gemm_args numbers_of(const linear_update_args& g, int i) {
  gemm_args p{};
  const int64_t rows = rows_of(g, i);
  p.a = g.a[i], p.b = g.b[i], p.bias = i == 0 ? g.bias : Ref{}, p.y = g.y;
  p.m = g.m, p.n = g.trans_w ? rows : g.cols, p.k = g.trans_w ? g.cols : rows, p.trans_b = g.trans_w, p.lda = p.k, p.ldb = g.cols, p.ldy = g.ldy, p.compute = g.compute;
  p.alpha = 1, p.beta = 1;
  return p;
}

// The update alone, written.
static inline gemm_args update_of(const linear_update_args& g) {
  gemm_args p{};
  p.a = g.u, p.b = g.v, p.y = g.y;
  p.m = g.m, p.n = g.trans_w ? g.rows : g.cols, p.k = g.rank, p.trans_b = g.trans_w, p.lda = g.ldu, p.ldb = g.trans_w ? g.rank : g.cols, p.ldy = g.ldy;
  p.alpha = g.scale;
  return p;
}

// Adds the products with weights `first` and on to beta * y.
static inline void add_products(const Backend& backend, const linear_update_args& g, int first, float beta = 1) {
  for (int i = first; i < g.a.count; ++i, beta = 1) {
    if (g.b.count > 0) {
      gemm_args p = numbers_of(g, i);
      p.beta = beta;
      backend.gemm(p);
    } else {
      gemm_nf4_args p = codes_of(g, i);
      p.beta = beta;
      backend.gemm_nf4(p);
    }
  }
}

static inline void update_then_products(const Backend& backend, const linear_update_args& g) {
  backend.gemm(update_of(g));
  add_products(backend, g, 0);
}

}  // namespace tunebook
