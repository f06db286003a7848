// Cross entropy with label smoothing.
#include "cross_entropy.cuh"

#include "rows.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int32_t kIgnored = -100;
constexpr int kBatch = 4;  // loads of 16 bytes that a thread has in flight

// -100 also for a label that is none, after raising a fault.
__device__ __forceinline__ int32_t label_of(const int32_t* labels, int64_t row, int64_t first_row, int64_t vocab, Fault* fault) {
  const int32_t label = labels[row];
  if (label == kIgnored || (label >= 0 && label < vocab)) return label;
  if (threadIdx.x == 0) raise(fault, kBadLabel, (int)(row + first_row), label, (int)vocab);
  return kIgnored;
}

// Maximum and sum of exponentials so far. The maximum of nothing but -inf is no shift: e^(-inf - -inf) would be NaN.
struct Online {
  float top = -INFINITY, total = 0.0f;
  __device__ __forceinline__ float shift() const { return top == -INFINITY ? 0.0f : top; }
};

// d = scale * (softmax(x) - target)
template <int N>
__device__ __forceinline__ void gradient_of(float (&v)[N], int64_t i, int32_t label, float lse, float spread, float rest, float scale) {
#pragma unroll
  for (int j = 0; j < N; ++j) v[j] = (expf(v[j] - lse) - spread - (i + j == label ? rest : 0.0f)) * scale;
}

// One block a row. `kept` elements of it stay in shared memory.
template <class T, int N>
__global__ void __launch_bounds__(1024) cross_entropy_kernel(T* logits, int64_t vocab, int64_t stride, const int32_t* labels, float* loss,
    float* lse_out, bool gradient, float scale, float smoothing, int64_t first_row, int64_t kept, Fault* fault) {
  extern __shared__ uint4 shared[];
  T* const store = reinterpret_cast<T*>(shared);
  const int64_t row = blockIdx.x, step = (int64_t)blockDim.x * N, start = (int64_t)threadIdx.x * N;
  T* const x = logits + row * stride;
  const int32_t label = label_of(labels, row, first_row, vocab, fault);
  if (label == kIgnored) {
    if (threadIdx.x == 0) {
      loss[row] = 0.0f;
      if (lse_out != nullptr) lse_out[row] = 0.0f;
    }
    const float zero[N] = {};
    if (gradient)
      for (int64_t i = start; i < vocab; i += step) store_floats<N>(x + i, zero);
    return;
  }
  const float at_label = to_float<T>(x[label]);
  Online online;
  float sum = 0.0f, v[kBatch][N];
  for (int64_t base = start; base < vocab; base += kBatch * step) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (base + b * step < vocab) load_floats<N>(x + base + b * step, v[b]);
      else each_is<N>(v[b], -INFINITY);
    }
    float top = online.top;
#pragma unroll
    for (int b = 0; b < kBatch; ++b)
#pragma unroll
      for (int j = 0; j < N; ++j) top = fmaxf(top, v[b][j]);
    const float old = online.top;  // not its shift: nothing so far must weigh nothing
    online.top = top;
    const float shift = online.shift();
    float part = 0.0f;
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int64_t i = base + b * step;
#pragma unroll
      for (int j = 0; j < N; ++j) part += expf(v[b][j] - shift);
      if (smoothing != 0.0f && i < vocab)
#pragma unroll
        for (int j = 0; j < N; ++j) sum += v[b][j];
      if (i + N <= kept) store_floats<N>(store + i, v[b]);
    }
    online.total = online.total * expf(old - shift) + part;
  }
  Online all;
  all.top = block_reduce(online.top, Max());
  all.total = block_reduce(online.total * expf(online.top - all.shift()), Sum());
  const float lse = all.top == -INFINITY ? all.top + all.total : all.top + logf(all.total);  // a sum of NaN must not hide behind -inf
  if (smoothing != 0.0f) sum = block_reduce(sum, Sum());
  if (threadIdx.x == 0) {
    const float nll = lse - at_label;
    loss[row] = smoothing == 0.0f ? nll : (1.0f - smoothing) * nll + smoothing * (lse - sum / (float)vocab);
    if (lse_out != nullptr) lse_out[row] = lse;
  }
  if (!gradient) return;
  const float spread = smoothing / (float)vocab, rest = 1.0f - smoothing;
  for (int64_t base = start; base < vocab; base += kBatch * step) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int64_t i = base + b * step;
      if (i + N <= kept) load_floats<N>(store + i, v[b]);
      else if (i < vocab) load_floats<N>(x + i, v[b]);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int64_t i = base + b * step;
      if (i >= vocab) break;
      gradient_of(v[b], i, label, lse, spread, rest, scale);
      store_floats<N>(x + i, v[b]);
    }
  }
}

void check_smoothing(float smoothing) {
  if (!(smoothing >= 0.0f && smoothing <= 1.0f)) fail("smoothing is %g, expected 0..1", (double)smoothing);
}

void check_labels(const Ref& labels, int64_t rows, int64_t vocab, float smoothing) {
  check_size("rows", rows);
  check_size("vocab", vocab, 1);
  check_tensor("labels", labels, rows, DType::Int32);
  check_smoothing(smoothing);
}

void cross_entropy(const cross_entropy_args& a) {
  check_labels(a.labels, a.rows, a.vocab, a.smoothing);
  check_floats("logits", a.logits, product(a.rows, a.vocab));
  check_tensor("loss", a.loss, a.rows);
  check_tensor("lse", a.lse, a.rows);
  CrossEntropyRows rows{a.logits.data, a.logits.dtype, a.rows, a.vocab, a.vocab, a.labels.i32(), a.loss.f32()};
  rows.lse = a.lse.f32();
  rows.smoothing = a.smoothing;
  cross_entropy_rows(rows);
}

constexpr int kBackwardThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kBackwardThreads) cross_entropy_backward_kernel(const T* logits, const int32_t* labels, const float* lse,
    const float* dloss, T* dlogits, int64_t vocab, int64_t segments, float smoothing, Fault* fault) {
  const int64_t row = blockIdx.x / segments, step = (int64_t)kBackwardThreads * N;
  const int64_t begin = blockIdx.x % segments * step * kBatch;
  const T* x = logits + row * vocab;
  T* d = dlogits + row * vocab;
  const int32_t label = label_of(labels, row, 0, vocab, fault);
  const float at = lse[row], scale = dloss[row], spread = smoothing / (float)vocab, rest = 1.0f - smoothing;
  float v[N];
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    const int64_t i = begin + b * step + (int64_t)threadIdx.x * N;
    if (i >= vocab) return;
    if (label == kIgnored) {
      each_is<N>(v, 0.0f);
    } else {
      load_floats<N>(x + i, v);
      gradient_of(v, i, label, at, spread, rest, scale);
    }
    store_floats<N>(d + i, v);
  }
}

void cross_entropy_backward(const cross_entropy_backward_args& a) {
  check_labels(a.labels, a.rows, a.vocab, a.smoothing);
  check_floats("logits", a.logits, product(a.rows, a.vocab));
  check_like("dlogits", a.dlogits, product(a.rows, a.vocab), "logits", a.logits);
  check_tensor("lse", a.lse, a.rows);
  check_tensor("dloss", a.dloss, a.rows);
  if (a.rows == 0) return;
  with_float_type(a.logits.dtype, "logits", [&](auto type) {
    using T = decltype(type);
    with_width<T>(a.vocab % Pack<T>::kCount == 0 && aligned(16, a.logits.data, a.dlogits.data), [&](auto width) {
      constexpr int N = decltype(width)::value;
      const int64_t segments = blocks_for(a.vocab, (int64_t)kBackwardThreads * N * kBatch);
      cross_entropy_backward_kernel<T, N><<<grid_of(product(a.rows, segments), 1), kBackwardThreads, 0, device.stream>>>(
          a.logits.as<const T>(), a.labels.i32(), a.lse.f32(), a.dloss.f32(), a.dlogits.as<T>(), a.vocab, segments, a.smoothing, faults());
      launched("cross_entropy_backward");
    });
  });
}

}  // namespace

void cross_entropy_rows(const CrossEntropyRows& a) {
  check_smoothing(a.smoothing);
  if (a.rows == 0) return;
  with_float_type(a.dtype, "logits", [&](auto type) {
    using T = decltype(type);
    with_width<T>(a.vocab % Pack<T>::kCount == 0 && packed<T>(a.logits, a.stride), [&](auto width) {
      constexpr int N = decltype(width)::value;
      const int64_t threads = (blocks_for(a.vocab, N) + 31) / 32 * 32;
      int64_t kept = a.gradient ? shared_limit() / (int64_t)sizeof(T) : 0;
      if (kept > a.vocab) kept = a.vocab;
      const int64_t bytes = (kept * (int64_t)sizeof(T) + 15) / 16 * 16;
      const auto kernel = cross_entropy_kernel<T, N>;
      allow_shared(kernel, bytes);
      kernel<<<grid_of(a.rows, 1), (unsigned)(threads < 1024 ? threads : 1024), bytes, device.stream>>>(static_cast<T*>(a.logits), a.vocab,
          a.stride, a.labels, a.loss, a.lse, a.gradient, a.scale, a.smoothing, a.first_row, kept, faults());
      launched("cross_entropy");
    });
  });
}

void register_cross_entropy(Backend& b) {
  b.cross_entropy = cross_entropy;
  b.cross_entropy_backward = cross_entropy_backward;
}

}  // namespace cuda
}  // namespace tunebook
