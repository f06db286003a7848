// RMSNorm and LayerNorm with the residual addition before them, forward.
#include "norm.cuh"
#include "philox.cuh"

namespace tunebook {
namespace cuda {
namespace {

// h may be residual or x. Without h the sum is rounded to T as if it had been stored: the backward pass, which sees the stored one, agrees.
template <class T, int N>
__global__ void rms_norm_kernel(const T* x, const T* residual, const void* weight, bool weight_is_float32, T* y, T* h, float* rstd,
    int64_t rows, int64_t cols, float eps, bool keep) {
  extern __shared__ uint4 shared[];
  const int64_t row = worker(), step = (int64_t)blockDim.x * N, start = (int64_t)threadIdx.x * N;
  if (row >= rows) return;
  x += row * cols, y += row * cols;
  if (residual != nullptr) residual += row * cols;
  if (h != nullptr) h += row * cols;
  T* kept = reinterpret_cast<T*>(shared) + threadIdx.y * cols;
  if (!keep) kept = y;  // a row that shared memory does not hold waits where the result goes
  float v[N], r[N], squares = 0.0f;
  for (int64_t i = start; i < cols; i += step) {
    load_floats<N>(x + i, v);
    if (residual != nullptr) {
      load_floats<N>(residual + i, r);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] = to_float<T>(from_float<T>(v[j] + r[j]));
    }
    if (h != nullptr) store_floats<N>(h + i, v);
    store_floats<N>(kept + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) squares += v[j] * v[j];
  }
  const float scale = 1.0f / sqrtf(row_reduce(squares, Sum()) / (float)cols + eps);
  if (threadIdx.x == 0) rstd[row] = scale;
  for (int64_t i = start; i < cols; i += step) {
    load_floats<N>(kept + i, v);
    load_weight<N, T>(weight, weight_is_float32, i, r);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = v[j] * scale * r[j];
    store_floats<N>(y + i, v);
  }
}

void rms_norm(const rms_norm_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  const int64_t n = product(a.rows, a.cols);
  check_floats("x", a.x, n);
  if (a.residual) check_like("residual", a.residual, n, "x", a.x);
  check_weight("weight", a.weight, a.cols, a.x.dtype);
  check_like("y", a.y, n, "x", a.x);
  if (a.h) check_like("h", a.h, n, "x", a.x);
  check_tensor("rstd", a.rstd, a.rows);
  if (a.rows == 0) return;
  with_float_type(a.x.dtype, "x", [&](auto type) {
    using T = decltype(type);
    const bool whole = a.cols % Pack<T>::kCount == 0 && aligned(16, a.x.data, a.residual.data, a.weight.data, a.y.data, a.h.data);
    with_width<T>(whole, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const dim3 block = row_block(a.rows, a.cols / N);
      const int64_t bytes = a.cols * (int64_t)sizeof(T) * block.y;
      const bool keep = bytes <= shared_limit();
      const auto kernel = rms_norm_kernel<T, N>;
      if (keep) allow_shared(kernel, bytes);
      kernel<<<grid_of(a.rows, block.y), block, keep ? bytes : 0, device.stream>>>(a.x.as<const T>(), a.residual.as<const T>(),
          a.weight.data, a.weight.dtype == DType::Float32, a.y.as<T>(), a.h.as<T>(), a.rstd.f32(), a.rows, a.cols, a.eps, keep);
      launched("rms_norm");
    });
  });
}

// Without h the sum is rounded to T as in rms_norm. What is not x itself waits where y goes if shared memory does not hold it.
template <class T, int N, bool kDrop>
__global__ void layer_norm_kernel(const T* x, const T* residual, const void* weight, bool weight_is_float32, const void* bias,
    bool bias_is_float32, T* y, T* h, float* mean, float* rstd, int64_t rows, int64_t cols, float eps, Dropout dropout, bool keep) {
  extern __shared__ uint4 shared[];
  const int64_t row = worker(), step = (int64_t)blockDim.x * N, start = (int64_t)threadIdx.x * N;
  if (row >= rows) return;
  x += row * cols, y += row * cols;
  if (residual != nullptr) residual += row * cols;
  if (h != nullptr) h += row * cols;
  const bool changed = residual != nullptr || kDrop;
  T* kept = keep ? reinterpret_cast<T*>(shared) + threadIdx.y * cols : y;
  float v[N], r[N], sum = 0.0f, squares = 0.0f;
  for (int64_t i = start; i < cols; i += step) {
    load_floats<N>(x + i, v);
    if constexpr (kDrop) dropout.apply<N>(v, row * cols + i);
    if (residual != nullptr) {
      load_floats<N>(residual + i, r);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] += r[j];
    }
    if (changed) {
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] = to_float<T>(from_float<T>(v[j]));
    }
    if (h != nullptr) store_floats<N>(h + i, v);
    if (keep || changed) store_floats<N>(kept + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += v[j];
  }
  const T* from = keep || changed ? kept : x;
  const float center = row_reduce(sum, Sum()) / (float)cols;
  for (int64_t i = start; i < cols; i += step) {  // of the centred row: no cancellation
    load_floats<N>(from + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) squares += (v[j] - center) * (v[j] - center);
  }
  const float scale = 1.0f / sqrtf(row_reduce(squares, Sum()) / (float)cols + eps);
  if (threadIdx.x == 0) mean[row] = center, rstd[row] = scale;
  for (int64_t i = start; i < cols; i += step) {
    load_floats<N>(from + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = (v[j] - center) * scale;
    if (weight != nullptr) {
      load_weight<N, T>(weight, weight_is_float32, i, r);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] *= r[j];
    }
    if (bias != nullptr) {
      load_weight<N, T>(bias, bias_is_float32, i, r);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] += r[j];
    }
    store_floats<N>(y + i, v);
  }
}

void layer_norm(const layer_norm_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  const int64_t n = product(a.rows, a.cols);
  check_floats("x", a.x, n);
  if (a.residual) check_like("residual", a.residual, n, "x", a.x);
  if (a.h) check_like("h", a.h, n, "x", a.x);
  check_share(a.p, a.h);
  if (a.weight) check_weight("weight", a.weight, a.cols, a.x.dtype);
  if (a.bias) check_weight("bias", a.bias, a.cols, a.x.dtype);
  check_like("y", a.y, n, "x", a.x);
  check_tensor("mean", a.mean, a.rows);
  check_tensor("rstd", a.rstd, a.rows);
  if (a.rows == 0) return;
  with_float_type(a.x.dtype, "x", [&](auto type) {
    using T = decltype(type);
    const bool whole = a.cols % Pack<T>::kCount == 0 && aligned(16, a.x.data, a.weight.data, a.bias.data, a.y.data) &&
                       aligned(16, a.residual.data, a.h.data);
    with_width<T>(whole, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const dim3 block = row_block(a.rows, a.cols / N);
      const int64_t bytes = a.cols * (int64_t)sizeof(T) * block.y;
      const bool keep = bytes <= shared_limit();
      const auto kernel = a.p > 0.0f ? layer_norm_kernel<T, N, true> : layer_norm_kernel<T, N, false>;
      if (keep) allow_shared(kernel, bytes);
      kernel<<<grid_of(a.rows, block.y), block, keep ? bytes : 0, device.stream>>>(a.x.as<const T>(), a.residual.as<const T>(),
          a.weight.data, a.weight.dtype == DType::Float32, a.bias.data, a.bias.dtype == DType::Float32, a.y.as<T>(), a.h.as<T>(),
          a.mean.f32(), a.rstd.f32(), a.rows, a.cols, a.eps, Dropout(a.seed, a.offset, a.p), keep);
      launched("layer_norm");
    });
  });
}

}  // namespace

void register_norm(Backend& b) {
  b.rms_norm = rms_norm;
  b.rms_norm_backward = rms_norm_backward;
  b.layer_norm = layer_norm;
  b.layer_norm_backward = layer_norm_backward;
}

}  // namespace cuda
}  // namespace tunebook
