// The linear head fused with cross entropy, in chunks of rows: the full logits never exist. A chunk's logits (in the activations' type) become their own gradient
// in place, which two products turn into dx and dweight. The gradient is kept unscaled, so that float16 does not lose it; the products bring the scale.
#include <cfloat>

#include "gemm.h"

namespace tunebook {
namespace cuda {
namespace {

constexpr int32_t kIgnored = -100;
constexpr int kThreads = 512;
constexpr int64_t kLogitsBytes = int64_t{256} << 20;

template <class T> __device__ inline float exponential(float x) { return __expf(x); }
template <> __device__ inline float exponential<float>(float x) { return expf(x); }

// A block of threads a row of `vocab` logits: its loss, and the logits replaced by softmax - target when `gradient`. Rows stand a multiple of 16 bytes apart.
template <class T>
__global__ void __launch_bounds__(kThreads) cross_entropy_rows(T* logits, int64_t ld, const int32_t* labels, float* loss, int64_t first_row, int64_t vocab,
                                                               float smoothing, bool gradient, Fault* fault) {
  constexpr int kEach = Pack<T>::kCount;
  T* row = logits + blockIdx.x * ld;
  const int64_t r = first_row + blockIdx.x;
  int32_t label = labels[r];
  if (label != kIgnored && (label < 0 || label >= vocab)) {
    if (threadIdx.x == 0) raise(fault, kBadLabel, (int)r, label, (int)vocab);
    label = kIgnored;
  }
  if (label == kIgnored) {
    if (threadIdx.x == 0) loss[r] = 0.0f;
    if (gradient) {
      Pack<T> none;
#pragma unroll
      for (int e = 0; e < kEach; e++) none.v[e] = from_float<T>(0.0f);
      for (int64_t i = threadIdx.x * kEach; i < ld; i += kThreads * kEach) store_pack(row + i, none);
    }
    return;
  }
  // The greatest so far, the sum of exponentials of what stands below it, and the plain sum. Starting from the least finite number, a row of -infinity
  // gives -infinity and NaN stays NaN.
  float most = -FLT_MAX, sum = 0, plain = 0;
  auto take = [&](const float (&v)[kEach], int count) {
    float here = most;
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      if (e < count) here = fmaxf(here, v[e]);
    }
    if (here > most) {
      sum *= exponential<T>(most - here);
      most = here;
    }
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      if (e < count) {
        sum += exponential<T>(v[e] - most);
        plain += v[e];
      }
    }
  };
  const int64_t whole = vocab / kEach * kEach;
#pragma unroll 4
  for (int64_t i = threadIdx.x * kEach; i < whole; i += kThreads * kEach) {
    const Pack<T> p = load_pack(row + i);
    float v[kEach];
#pragma unroll
    for (int e = 0; e < kEach; e++) v[e] = to_float(p.v[e]);
    take(v, kEach);
  }
  if (whole < vocab && threadIdx.x == kThreads - 1) {
    float v[kEach];
#pragma unroll
    for (int e = 0; e < kEach; e++) v[e] = whole + e < vocab ? to_float(row[whole + e]) : 0.0f;
    take(v, (int)(vocab - whole));
  }
  const float at_label = to_float(row[label]);  // read before any thread writes: the reductions stand between
  const float top = block_reduce(most, Max());
  const float lse = top + logf(block_reduce(sum * exponential<T>(most - top), Sum()));
  const float spread = smoothing / (float)vocab;
  if (smoothing != 0.0f) plain = block_reduce(plain, Sum());
  if (threadIdx.x == 0) {
    const float nll = lse - at_label;
    loss[r] = smoothing == 0.0f ? nll : (1.0f - smoothing) * nll + smoothing * (lse - plain / (float)vocab);
  }
  if (!gradient) return;
  for (int64_t i = threadIdx.x * kEach; i < ld; i += kThreads * kEach) {  // what stands past the vocabulary is never read
    const Pack<T> p = load_pack(row + i);
    Pack<T> d;
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      float v = exponential<T>(to_float(p.v[e]) - lse) - spread;
      if (i + e == label) v -= 1.0f - smoothing;
      d.v[e] = from_float<T>(v);
    }
    store_pack(row + i, d);
  }
}

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
  const Ref logits{scratch(kLogits, chunk * row), chunk * row, kept};
  const bool gradient = g.dx || g.dweight;
  Fault* fault = faults();

  for (int64_t at = 0; at < g.rows; at += chunk) {
    const int64_t count = g.rows - at < chunk ? g.rows - at : chunk;
    Matrix rows = x;
    rows.data = static_cast<const uint8_t*>(x.data) + at * x.ld * (int64_t)size_of(type);
    Product p{count, g.vocab, g.dim, rows, {weight.data, type, weight.ld, true}, logits, ld};
    multiply(p);
    with_float_type(kept, "x", [&](auto of) {
      using T = decltype(of);
      cross_entropy_rows<T><<<(unsigned)count, kThreads, 0, device.stream>>>(logits.as<T>(), ld, g.labels.i32(), g.loss.f32(), at, g.vocab, g.smoothing, gradient, fault);
    });
    launched("linear_cross_entropy");
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
