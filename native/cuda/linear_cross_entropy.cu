// The linear head fused with cross entropy, in chunks of rows: the full logits never exist. A chunk's logits (in the activations' type) become their own gradient
// in place, which two products turn into dx and dweight. The gradient is kept unscaled, so that float16 does not lose it; the products bring the scale.
#include "cross_entropy.cuh"
#include "gemm.h"

namespace tunebook {
namespace cuda {
namespace {

constexpr int64_t kLogitsBytes = int64_t{128} << 20;  // wide enough for full speed

void check_elements(const char* name, const Ref& x, int64_t n) {
  const int64_t have = x.bytes / (int64_t)size_of(x.dtype);
  if (have < n) fail("%s holds %lld elements, expected at least %lld", name, (long long)have, (long long)n);
}

Ref rows_of(const Ref& x, int64_t first, int64_t count, int64_t cols) {
  const int64_t row = cols * (int64_t)size_of(x.dtype);
  return Ref{x.u8() + first * row, count * row, x.dtype};
}

void linear_cross_entropy(const linear_cross_entropy_args& g) {
  check_compute(g.compute);
  if (g.dim < 1 || g.vocab < 1) fail("dim and vocab are %lld and %lld, expected at least 1", (long long)g.dim, (long long)g.vocab);
  if (!(g.smoothing >= 0.0f && g.smoothing <= 1.0f)) fail("smoothing is %g, expected 0..1", (double)g.smoothing);
  if (g.labels.dtype != DType::Int32 || g.loss.dtype != DType::Float32) fail("labels must be int32 and loss float32");
  if (g.dweight && g.dweight.dtype != DType::Float32) fail("dweight must be float32");
  check_matrix("x", g.x, g.rows, g.dim, g.dim);
  check_matrix("weight", g.weight, g.vocab, g.dim, g.dim);
  check_elements("labels", g.labels, g.rows);
  check_elements("loss", g.loss, g.rows);
  if (g.dx) check_matrix("dx", g.dx, g.rows, g.dim, g.dim);
  if (g.dweight) check_elements("dweight", g.dweight, g.vocab * g.dim);
  if (g.rows <= 0) return;

  const DType type = product_type(g.x.dtype, g.weight.dtype, g.compute);
  const DType kept = g.x.dtype == DType::Float32 ? DType::Float32 : type;  // of the logits
  const Matrix weight = as_type({g.weight.data, g.weight.dtype, g.dim}, 1, g.vocab, g.dim, type, kWeights);
  const Matrix x = as_type({g.x.data, g.x.dtype, g.dim}, 1, g.rows, g.dim, type, kOperandB);
  const int64_t ld = blocks_for(g.vocab, 8) * 8, row = ld * (int64_t)size_of(kept);
  int64_t chunk = kLogitsBytes / row > 1 ? kLogitsBytes / row : 1;
  if (g.chunk > 0 && g.chunk < chunk) chunk = g.chunk;
  chunk = blocks_for(g.rows, blocks_for(g.rows, chunk));  // equal pieces
  // The place of restored weights is free here, unless this op's own weight is in it.
  const Slot slot = weight.data == g.weight.data ? kWeights : kLogits;
  const Ref logits{scratch(slot, chunk * row), chunk * row, kept};
  const bool gradient = g.dx || g.dweight;

  for (int64_t at = 0; at < g.rows; at += chunk) {
    const int64_t count = g.rows - at < chunk ? g.rows - at : chunk;
    Matrix rows = x;
    rows.data = static_cast<const uint8_t*>(x.data) + at * x.ld * (int64_t)size_of(type);
    Product p{count, g.vocab, g.dim, rows, {weight.data, type, weight.ld, true}, logits, ld};
    multiply(p);
    CrossEntropyRows r{logits.data, kept, count, g.vocab, ld, g.labels.i32() + at, g.loss.f32() + at};
    r.gradient = gradient;
    r.smoothing = g.smoothing;
    r.first_row = at;
    cross_entropy_rows(r);
    if (!gradient) continue;
    Matrix dlogits = as_type({logits.data, kept, ld}, 1, count, g.vocab, type, kOperandA);
    if (g.dx) {
      Product q{count, g.dim, g.vocab, dlogits, weight, rows_of(g.dx, at, count, g.dim), g.dim};
      q.alpha = g.scale;
      multiply(q);
    }
    if (g.dweight) {
      dlogits.transposed = true;
      Product q{g.vocab, g.dim, count, dlogits, rows, g.dweight, g.dim};
      q.alpha = g.scale;
      q.beta = 1;
      multiply(q);
    }
  }
}

}  // namespace

void register_linear_cross_entropy(Backend& b) { b.linear_cross_entropy = linear_cross_entropy; }

}  // namespace cuda
}  // namespace tunebook
