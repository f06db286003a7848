// Softmax and its logarithm over rows.
#include "rows.cuh"

namespace tunebook {
namespace cuda {
namespace {

// In every pass the place of a thread's elements is the same, so y may be x and dx may be dy.
template <class T, int N, bool kLog> __global__ void softmax_kernel(const T* x, T* y, int64_t rows, int64_t cols, bool keep) {
  extern __shared__ uint4 shared[];
  const int64_t row = worker(), step = (int64_t)blockDim.x * N, start = (int64_t)threadIdx.x * N;
  if (row >= rows) return;
  x += row * cols, y += row * cols;
  T* kept = reinterpret_cast<T*>(shared) + threadIdx.y * cols;
  float v[N], top = -INFINITY, total = 0.0f;
  for (int64_t i = start; i < cols; i += step) {
    load_floats<N>(x + i, v);
    if (keep) store_floats<N>(kept + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) top = fmaxf(top, v[j]);
  }
  const T* from = keep ? kept : x;
  top = row_reduce(top, Max());
  for (int64_t i = start; i < cols; i += step) {
    load_floats<N>(from + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) total += expf(v[j] - top);
  }
  total = row_reduce(total, Sum());
  const float scale = kLog ? logf(total) : 1.0f / total;
  for (int64_t i = start; i < cols; i += step) {
    load_floats<N>(from + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = kLog ? (v[j] - top) - scale : expf(v[j] - top) * scale;
    store_floats<N>(y + i, v);
  }
}

template <class T, int N, bool kLog>
__global__ void softmax_backward_kernel(const T* y, const T* dy, T* dx, int64_t rows, int64_t cols, bool keep) {
  extern __shared__ uint4 shared[];
  const int64_t row = worker(), step = (int64_t)blockDim.x * N, start = (int64_t)threadIdx.x * N;
  if (row >= rows) return;
  y += row * cols, dy += row * cols, dx += row * cols;
  T* kept = reinterpret_cast<T*>(shared) + threadIdx.y * 2 * cols;
  float v[N], d[N], total = 0.0f;
  for (int64_t i = start; i < cols; i += step) {
    load_floats<N>(y + i, v);
    load_floats<N>(dy + i, d);
    if (keep) store_floats<N>(kept + i, v), store_floats<N>(kept + cols + i, d);
#pragma unroll
    for (int j = 0; j < N; ++j) total += kLog ? d[j] : v[j] * d[j];
  }
  total = row_reduce(total, Sum());
  for (int64_t i = start; i < cols; i += step) {
    load_floats<N>(keep ? kept + i : y + i, v);
    load_floats<N>(keep ? kept + cols + i : dy + i, d);
#pragma unroll
    for (int j = 0; j < N; ++j) d[j] = kLog ? d[j] - expf(v[j]) * total : v[j] * (d[j] - total);
    store_floats<N>(dx + i, d);
  }
}

template <bool kLog> void forward(const Ref& x, const Ref& y, int64_t rows, int64_t cols) {
  check_size("rows", rows);
  check_size("cols", cols);
  check_floats("x", x, product(rows, cols));
  check_like("y", y, product(rows, cols), "x", x);
  if (rows == 0 || cols == 0) return;
  with_float_type(x.dtype, "x", [&](auto type) {
    using T = decltype(type);
    with_width<T>(aligned(16, x.data, y.data) && cols % Pack<T>::kCount == 0, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const dim3 block = row_block(rows, cols / N);
      const int64_t bytes = cols * (int64_t)sizeof(T) * block.y;
      const bool keep = bytes <= shared_limit();
      const auto kernel = softmax_kernel<T, N, kLog>;
      if (keep) allow_shared(kernel, bytes);
      kernel<<<grid_of(rows, block.y), block, keep ? bytes : 0, device.stream>>>(x.as<const T>(), y.as<T>(), rows, cols, keep);
      launched(kLog ? "log_softmax" : "softmax");
    });
  });
}

template <bool kLog> void backward(const Ref& y, const Ref& dy, const Ref& dx, int64_t rows, int64_t cols) {
  check_size("rows", rows);
  check_size("cols", cols);
  check_floats("y", y, product(rows, cols));
  check_like("dy", dy, product(rows, cols), "y", y);
  check_like("dx", dx, product(rows, cols), "y", y);
  if (rows == 0 || cols == 0) return;
  with_float_type(y.dtype, "y", [&](auto type) {
    using T = decltype(type);
    with_width<T>(aligned(16, y.data, dy.data, dx.data) && cols % Pack<T>::kCount == 0, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const dim3 block = row_block(rows, cols / N);
      const int64_t bytes = 2 * cols * (int64_t)sizeof(T) * block.y;
      const bool keep = bytes <= shared_limit();
      const auto kernel = softmax_backward_kernel<T, N, kLog>;
      if (keep) allow_shared(kernel, bytes);
      kernel<<<grid_of(rows, block.y), block, keep ? bytes : 0, device.stream>>>(
          y.as<const T>(), dy.as<const T>(), dx.as<T>(), rows, cols, keep);
      launched(kLog ? "log_softmax_backward" : "softmax_backward");
    });
  });
}

void softmax(const softmax_args& a) { forward<false>(a.x, a.y, a.rows, a.cols); }
void log_softmax(const log_softmax_args& a) { forward<true>(a.x, a.y, a.rows, a.cols); }
void softmax_backward(const softmax_backward_args& a) { backward<false>(a.y, a.dy, a.dx, a.rows, a.cols); }
void log_softmax_backward(const log_softmax_backward_args& a) { backward<true>(a.y, a.dy, a.dx, a.rows, a.cols); }

}  // namespace

void register_softmax(Backend& b) {
  b.softmax = softmax;
  b.softmax_backward = softmax_backward;
  b.log_softmax = log_softmax;
  b.log_softmax_backward = log_softmax_backward;
}

}  // namespace cuda
}  // namespace tunebook
