// isa: portable avx2 avx512 avx512bf16
// Cross entropy with label smoothing, and the linear head fused with it.
#include "checks.h"
#include "gemm.h"
#include "parallel.h"
#include "rows.h"

namespace tunebook {
namespace TB_ISA {

namespace {

constexpr int32_t kIgnored = -100;

void check_labels(const Ref& labels, int64_t rows, int64_t vocab, float smoothing) {
  check_size("rows", rows);
  check_size("vocab", vocab, 1);
  check_tensor("labels", labels, rows, DType::Int32);
  if (!(smoothing >= 0.0f && smoothing <= 1.0f)) fail("smoothing is %g, expected 0..1", (double)smoothing);
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t label = labels.i32()[r];
    if (label != kIgnored && (label < 0 || label >= vocab))
      fail("label %d at row %lld is outside the vocabulary of %lld (0..%lld, or -100 for none)", label,
          (long long)r, (long long)vocab, (long long)vocab - 1);
  }
}

float log_sum_exp(const float* x, int64_t n) {
  const float shift = row_max(x, n);
  if (shift == -kInf) return row_sum(x, n) != row_sum(x, n) ? __builtin_nanf("") : -kInf;  // NaN must not hide behind a row of -inf
  return shift + __builtin_logf(row_sum_exp(x, n, shift));
}

// (1 - e) * nll + e * mean(-log p)
float row_loss(const float* x, int64_t vocab, int32_t label, float lse, float smoothing) {
  const float nll = lse - x[label];
  return smoothing == 0.0f ? nll : (1.0f - smoothing) * nll + smoothing * (lse - row_sum(x, vocab) / (float)vocab);
}

// d = scale * (softmax(x) - target); d may be x
void row_gradient(const float* x, float* d, int64_t vocab, int32_t label, float lse, float smoothing, float scale) {
  const float at_label = x[label], spread = smoothing / (float)vocab;
  for_vectors(vocab, [=](int64_t i, int64_t m) { store_to(d + i, (exp_v(load_to(x + i, m) - lse) - spread) * scale, m); });
  vf one = exp_v(splat(at_label - lse));
  d[label] = (one[0] - spread - (1.0f - smoothing)) * scale;
}

void cross_entropy(const cross_entropy_args& a) {
  check_labels(a.labels, a.rows, a.vocab, a.smoothing);
  check_tensor("logits", a.logits, product(a.rows, a.vocab));
  check_tensor("loss", a.loss, a.rows);
  check_tensor("lse", a.lse, a.rows);
  parallel_pieces(a.rows, rows_of(8192, a.vocab), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = a.logits.f32() + r * a.vocab;
      const int32_t label = a.labels.i32()[r];
      const float lse = label == kIgnored ? 0.0f : log_sum_exp(x, a.vocab);
      a.lse.f32()[r] = lse;
      a.loss.f32()[r] = label == kIgnored ? 0.0f : row_loss(x, a.vocab, label, lse, a.smoothing);
    }
  });
}

void cross_entropy_backward(const cross_entropy_backward_args& a) {
  check_labels(a.labels, a.rows, a.vocab, a.smoothing);
  check_tensor("logits", a.logits, product(a.rows, a.vocab));
  check_tensor("dlogits", a.dlogits, product(a.rows, a.vocab));
  check_tensor("lse", a.lse, a.rows);
  check_tensor("dloss", a.dloss, a.rows);
  parallel_pieces(a.rows, rows_of(8192, a.vocab), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int32_t label = a.labels.i32()[r];
      float* d = a.dlogits.f32() + r * a.vocab;
      if (label == kIgnored) memset(d, 0, (size_t)a.vocab * 4);
      else row_gradient(a.logits.f32() + r * a.vocab, d, a.vocab, label, a.lse.f32()[r], a.smoothing, a.dloss.f32()[r]);
    }
  });
}

void linear_cross_entropy(const linear_cross_entropy_args& a) {
  check_labels(a.labels, a.rows, a.vocab, a.smoothing);
  check_size("dim", a.dim, 1);
  check_size("chunk", a.chunk);
  const int64_t vocab = a.vocab, dim = a.dim, head = product(vocab, dim), n = product(a.rows, dim);
  check_tensor("x", a.x, n);
  check_tensor("weight", a.weight, head, a.weight.dtype);
  check_tensor("loss", a.loss, a.rows);
  if (a.dx) check_tensor("dx", a.dx, n);
  if (a.dweight) check_tensor("dweight", a.dweight, head);
  const float* x = a.x.f32();
  const Matrix w{a.weight.data, a.weight.dtype, dim, 1}, w_transposed{a.weight.data, a.weight.dtype, 1, dim};
  const int32_t* labels = a.labels.i32();
  float* loss = a.loss.f32();

  // Rows without a label cost nothing: the others are gathered.
  int32_t* rows = static_cast<int32_t*>(scratch(3, (a.rows + 1) * 4));
  int64_t used = 0;
  for (int64_t r = 0; r < a.rows; ++r) {
    if (labels[r] != kIgnored) {
      rows[used++] = (int32_t)r;
      continue;
    }
    loss[r] = 0.0f;
    if (a.dx) memset(a.dx.f32() + r * dim, 0, (size_t)dim * 4);
  }
  int64_t chunk = a.chunk > 0 ? a.chunk : rows_of((int64_t)1 << 24, vocab);  // 64 MB of logits
  if (chunk > used) chunk = used;
  if (chunk == 0) return;
  const int64_t pieces = (used + chunk - 1) / chunk;
  chunk = (used + pieces - 1) / pieces;
  float *logits = scratch_f32(0, product(chunk, vocab)), *gathered = scratch_f32(1, chunk * dim);
  float* dgathered = a.dx ? scratch_f32(2, chunk * dim) : nullptr;
  for (int64_t at = 0; at < used; at += chunk) {
    const int64_t count = used - at < chunk ? used - at : chunk;
    const int32_t* row = rows + at;
    const bool together = row[count - 1] - row[0] == count - 1;
    const float* from = together ? x + row[0] * dim : gathered;
    if (!together)
      for (int64_t i = 0; i < count; ++i) memcpy(gathered + i * dim, x + row[i] * dim, (size_t)dim * 4);
    sgemm(count, vocab, dim, 1.0f, from, dim, 1, w_transposed, 0.0f, logits, vocab, nullptr, a.compute);
    parallel_pieces(count, rows_of(8192, vocab), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float* l = logits + i * vocab;
        const int32_t label = labels[row[i]];
        const float lse = log_sum_exp(l, vocab);
        loss[row[i]] = row_loss(l, vocab, label, lse, a.smoothing);
        if (a.dx || a.dweight) row_gradient(l, l, vocab, label, lse, a.smoothing, a.scale);
      }
    });
    if (a.dx) {
      float* to = together ? a.dx.f32() + row[0] * dim : dgathered;
      sgemm(count, dim, vocab, 1.0f, logits, vocab, 1, w, 0.0f, to, dim, nullptr, a.compute);
      if (!together)
        for (int64_t i = 0; i < count; ++i) memcpy(a.dx.f32() + row[i] * dim, dgathered + i * dim, (size_t)dim * 4);
    }
    if (a.dweight) sgemm(vocab, dim, count, 1.0f, logits, 1, vocab, Matrix{from, DType::Float32, dim, 1}, 1.0f, a.dweight.f32(), dim);
  }
}

}  // namespace

void register_cross_entropy(Backend& b) {
  b.cross_entropy = cross_entropy;
  b.cross_entropy_backward = cross_entropy_backward;
  b.linear_cross_entropy = linear_cross_entropy;
}

}  // namespace TB_ISA
}  // namespace tunebook
