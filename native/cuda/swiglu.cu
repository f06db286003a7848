// y = silu(gate) * up, the activation of the gated MLP.
#include <initializer_list>

#include "elementwise.cuh"
#include "rows.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// A thread takes one pack (or element) of a row; `units` of them make a row.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(
    const T* gate, const T* up, T* y, Divider units, int64_t total, int64_t gate_stride, int64_t up_stride, int64_t y_stride) {
  int64_t c = (int64_t)blockIdx.x * kThreads + threadIdx.x;
  if (c >= total) return;
  const int64_t r = units.take(c);
  float g[N], u[N];
  load_floats<N>(gate + r * gate_stride + c * N, g);
  load_floats<N>(up + r * up_stride + c * N, u);
#pragma unroll
  for (int j = 0; j < N; ++j) g[j] = g[j] * sigmoid<sizeof(T) == 2>(g[j]) * u[j];
  store_floats<N>(y + r * y_stride + c * N, g);
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) swiglu_backward_kernel(const T* gate, const T* up, const T* dy, T* dgate, T* dup, T* y, Divider units,
    int64_t total, int64_t gate_stride, int64_t up_stride, int64_t dy_stride, int64_t dgate_stride, int64_t dup_stride) {
  int64_t c = (int64_t)blockIdx.x * kThreads + threadIdx.x;
  if (c >= total) return;
  const int64_t r = units.take(c);
  float g[N], u[N], d[N], made[N];
  load_floats<N>(gate + r * gate_stride + c * N, g);
  load_floats<N>(up + r * up_stride + c * N, u);
  load_floats<N>(dy + r * dy_stride + c * N, d);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float s = sigmoid<sizeof(T) == 2>(g[j]), silu = g[j] * s;
    made[j] = silu * u[j];
    g[j] = d[j] * u[j] * (s + silu * (1.0f - s));
    u[j] = d[j] * silu;
  }
  if (y != nullptr) store_floats<N>(y + r * dy_stride + c * N, made);
  store_floats<N>(dgate + r * dgate_stride + c * N, g);
  store_floats<N>(dup + r * dup_stride + c * N, u);
}

void check_part(const char* name, const char* stride_name, const Ref& t, const Ref& gate, int64_t rows, int64_t cols, int64_t stride) {
  check_stride(stride_name, stride, cols, rows);
  check_like(name, t, span(rows, cols, stride), "gate", gate);
}

// Whether rows begin at whole packs.
template <class T> bool even(int64_t rows, std::initializer_list<int64_t> strides) {
  if (rows > 1)
    for (int64_t s : strides)
      if (s % Pack<T>::kCount != 0) return false;
  return true;
}

void swiglu(const swiglu_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols);
  check_part("gate", "gate_stride", a.gate, a.gate, a.rows, a.cols, a.gate_stride);
  check_part("up", "up_stride", a.up, a.gate, a.rows, a.cols, a.up_stride);
  check_part("y", "y_stride", a.y, a.gate, a.rows, a.cols, a.y_stride);
  if (a.rows == 0 || a.cols == 0) return;
  with_float_type(a.gate.dtype, "gate", [&](auto type) {
    using T = decltype(type);
    const bool whole = a.cols % Pack<T>::kCount == 0 && even<T>(a.rows, {a.gate_stride, a.up_stride, a.y_stride}) &&
                       aligned(16, a.gate.data, a.up.data, a.y.data);
    with_width<T>(whole, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const int64_t units = a.cols / N, total = units * a.rows;
      swiglu_kernel<T, N><<<grid_of(total, kThreads), kThreads, 0, device.stream>>>(a.gate.as<const T>(), a.up.as<const T>(), a.y.as<T>(),
          Divider(units), total, a.gate_stride, a.up_stride, a.y_stride);
      launched("swiglu");
    });
  });
}

void swiglu_backward(const swiglu_backward_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols);
  check_part("gate", "gate_stride", a.gate, a.gate, a.rows, a.cols, a.gate_stride);
  check_part("up", "up_stride", a.up, a.gate, a.rows, a.cols, a.up_stride);
  check_part("dy", "dy_stride", a.dy, a.gate, a.rows, a.cols, a.dy_stride);
  check_part("dgate", "dgate_stride", a.dgate, a.gate, a.rows, a.cols, a.dgate_stride);
  check_part("dup", "dup_stride", a.dup, a.gate, a.rows, a.cols, a.dup_stride);
  if (a.y) check_part("y", "dy_stride", a.y, a.gate, a.rows, a.cols, a.dy_stride);
  if (a.rows == 0 || a.cols == 0) return;
  with_float_type(a.gate.dtype, "gate", [&](auto type) {
    using T = decltype(type);
    const bool whole = a.cols % Pack<T>::kCount == 0 &&
                       even<T>(a.rows, {a.gate_stride, a.up_stride, a.dy_stride, a.dgate_stride, a.dup_stride}) &&
                       aligned(16, a.gate.data, a.up.data, a.dy.data, a.dgate.data, a.dup.data) && aligned(16, a.y.data);
    with_width<T>(whole, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const int64_t units = a.cols / N, total = units * a.rows;
      swiglu_backward_kernel<T, N><<<grid_of(total, kThreads), kThreads, 0, device.stream>>>(a.gate.as<const T>(), a.up.as<const T>(),
          a.dy.as<const T>(), a.dgate.as<T>(), a.dup.as<T>(), a.y.as<T>(), Divider(units), total, a.gate_stride, a.up_stride, a.dy_stride,
          a.dgate_stride, a.dup_stride);
      launched("swiglu_backward");
    });
  });
}

}  // namespace

void register_swiglu(Backend& b) {
  b.swiglu = swiglu;
  b.swiglu_backward = swiglu_backward;
}

}  // namespace cuda
}  // namespace tunebook
