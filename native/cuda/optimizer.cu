// AdamW and SGD over all tensors of a step at once.
#include "adamw.h"
#include "tensors.cuh"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPiece = 4096;

void check_list(const char* name, const RefList& list, const RefList& param) {
  if (list.count != param.count) fail("%s lists %d tensors, param %d", name, list.count, param.count);
  for (int i = 0; i < list.count; ++i) check_tensor(name, list[i], param[i].bytes / 4);
}

// The factor of the gradients, read on the device so that nothing waits for it; false: they are not finite and nothing may change.
__device__ __forceinline__ bool clip_factor(const float* norm_squared, float max_norm, float* factor) {
  *factor = 1.0f;
  if (norm_squared == nullptr) return true;
  const float squared = *norm_squared;
  if (!isfinite(squared)) return false;
  if (max_norm > 0.0f) *factor = fminf(1.0f, max_norm / (sqrtf(squared) + 1e-6f));
  return true;
}

// f(i, N) for the packs of a piece, f(i, 1) for single elements where addresses or the end do not allow packs.
template <class F> __device__ __forceinline__ void each_element(int64_t begin, int64_t end, bool whole, F f) {
  int64_t i = begin + threadIdx.x * 4;
  if (whole) {
    for (; i + 4 <= end; i += kThreads * 4) f(i, std::integral_constant<int, 4>{});
    if (i < end)
      for (; i < end; ++i) f(i, std::integral_constant<int, 1>{});
  } else {
    for (i = begin + threadIdx.x; i < end; i += kThreads) f(i, std::integral_constant<int, 1>{});
  }
}

__global__ void __launch_bounds__(kThreads) adamw_kernel(const __grid_constant__ Chunk<4> chunk, AdamW o, const float* norm_squared) {
  float clip;
  if (!clip_factor(norm_squared, o.max_norm, &clip)) return;
  const int t = chunk.find((int)blockIdx.x);
  float *p = static_cast<float*>(chunk.data[0][t]), *m = static_cast<float*>(chunk.data[2][t]), *v = static_cast<float*>(chunk.data[3][t]);
  const float* g = static_cast<const float*>(chunk.data[1][t]);
  const int64_t begin = (int64_t)((int)blockIdx.x - chunk.first[t]) * kPiece,
                end = begin + kPiece < chunk.n[t] ? begin + kPiece : chunk.n[t];
  const bool whole =
      ((reinterpret_cast<uintptr_t>(p) | reinterpret_cast<uintptr_t>(g) | reinterpret_cast<uintptr_t>(m) | reinterpret_cast<uintptr_t>(v)) &
          15) == 0;
  each_element(begin, end, whole, [&](int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    float w[N], d[N], first[N], second[N];
    load_floats<N>(p + i, w), load_floats<N>(g + i, d), load_floats<N>(m + i, first), load_floats<N>(v + i, second);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float gradient = d[j] * clip;
      first[j] = first[j] * o.beta1 + gradient * o.new1;
      second[j] = second[j] * o.beta2 + gradient * gradient * o.new2;
      w[j] = w[j] * o.keep - o.rate * first[j] / (sqrtf(second[j]) * o.root + o.eps);
    }
    store_floats<N>(m + i, first), store_floats<N>(v + i, second), store_floats<N>(p + i, w);
  });
}

void adamw(const adamw_args& a) {
  check_size("step", a.step, 1);
  for (int i = 0; i < a.param.count; ++i) check_tensor("param", a.param[i], 0);
  check_list("grad", a.grad, a.param);
  check_list("m", a.m, a.param);
  check_list("v", a.v, a.param);
  if (a.norm_squared) check_tensor("norm_squared", a.norm_squared, 1);
  const AdamW o = adamw_of(a);
  const float* norm = a.norm_squared ? a.norm_squared.f32() : nullptr;
  each_chunk<4>({&a.param, &a.grad, &a.m, &a.v}, kPiece, [&](const Chunk<4>& chunk, int64_t pieces, int64_t) {
    adamw_kernel<<<(unsigned)pieces, kThreads, 0, device.stream>>>(chunk, o, norm);
    launched("adamw");
  });
}

__global__ void __launch_bounds__(kThreads)
    sgd_kernel(const __grid_constant__ Chunk<3> chunk, float keep, float lr, float factor, float max_norm, const float* norm_squared) {
  float clip;
  if (!clip_factor(norm_squared, max_norm, &clip)) return;
  const int t = chunk.find((int)blockIdx.x);
  float *p = static_cast<float*>(chunk.data[0][t]), *b = static_cast<float*>(chunk.data[2][t]);
  const float* g = static_cast<const float*>(chunk.data[1][t]);
  const int64_t begin = (int64_t)((int)blockIdx.x - chunk.first[t]) * kPiece,
                end = begin + kPiece < chunk.n[t] ? begin + kPiece : chunk.n[t];
  const bool whole = ((reinterpret_cast<uintptr_t>(p) | reinterpret_cast<uintptr_t>(g) | reinterpret_cast<uintptr_t>(b)) & 15) == 0;
  each_element(begin, end, whole, [&](int64_t i, auto width) {
    constexpr int N = decltype(width)::value;
    float w[N], d[N], old[N];
    load_floats<N>(p + i, w), load_floats<N>(g + i, d);
    if (b != nullptr) load_floats<N>(b + i, old);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      d[j] *= clip;
      if (b != nullptr) d[j] += old[j] * factor;
      w[j] = w[j] * keep - lr * d[j];
    }
    if (b != nullptr) store_floats<N>(b + i, d);
    store_floats<N>(p + i, w);
  });
}

void sgd(const sgd_args& a) {
  for (int i = 0; i < a.param.count; ++i) check_tensor("param", a.param[i], 0);
  check_list("grad", a.grad, a.param);
  if (a.momentum.count > 0) check_list("momentum", a.momentum, a.param);
  if (a.norm_squared) check_tensor("norm_squared", a.norm_squared, 1);
  const float keep = kept_of(a.lr, a.weight_decay);
  const float* norm = a.norm_squared ? a.norm_squared.f32() : nullptr;
  each_chunk<3>({&a.param, &a.grad, &a.momentum}, kPiece, [&](const Chunk<3>& chunk, int64_t pieces, int64_t) {
    sgd_kernel<<<(unsigned)pieces, kThreads, 0, device.stream>>>(chunk, keep, a.lr, a.momentum_factor, a.max_norm, norm);
    launched("sgd");
  });
}

}  // namespace

void register_optimizer(Backend& b) {
  b.adamw = adamw;
  b.sgd = sgd;
}

}  // namespace cuda
}  // namespace tunebook
