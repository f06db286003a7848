// Functions of one and two arguments, their derivatives, selection, y += alpha x. Tensors of one dtype are read by 16 bytes; where dtypes
// differ, a kernel that asks each tensor for its own does one element a thread.
#include "elementwise.cuh"

#include "axes.h"
#include "check.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ int64_t thread_index() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }

// ---- one argument -----------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads) unary_kernel(int kind, const T* x, T* y, int64_t n, float alpha, float beta, bool whole) {
  constexpr int N = Pack<T>::kCount;
  const int64_t i = thread_index() * N;
  if (i >= n) return;
  whole = whole && i + N <= n;
  float v[N];
  if (whole) load_floats<N>(x + i, v);
  else load_some<N>(x + i, v, n - i);
  unary_values<sizeof(T) == 2>(kind, v, alpha, beta);
  if (whole) store_floats<N>(y + i, v);
  else store_some<N>(y + i, v, n - i);
}

__global__ void unary_any_kernel(int kind, const void* x, DType x_type, void* y, DType y_type, int64_t n, float alpha, float beta) {
  const int64_t i = thread_index();
  if (i >= n) return;
  float v[1] = {load_any(x, x_type, i)};
  unary_values<false>(kind, v, alpha, beta);
  store_any(y, y_type, i, v[0]);
}

void check_kind(const char* op, int64_t kind, int kinds) {
  if (kind < 0 || kind >= kinds) fail("kind %lld of %s is unknown", (long long)kind, op);
}

void unary(const unary_args& a) {
  check_size("n", a.n);
  check_floats("x", a.x, a.n);
  check_floats("y", a.y, a.n);
  check_kind("unary", a.kind, kUnaryKinds);
  if (a.n == 0) return;
  if (a.x.dtype != a.y.dtype) {
    unary_any_kernel<<<grid_of(a.n, kThreads), kThreads, 0, device.stream>>>(
        (int)a.kind, a.x.data, a.x.dtype, a.y.data, a.y.dtype, a.n, a.alpha, a.beta);
    return launched("unary");
  }
  with_float_type(a.x.dtype, "x", [&](auto type) {
    using T = decltype(type);
    const unsigned grid = grid_of(a.n, kThreads * Pack<T>::kCount);
    unary_kernel<T><<<grid, kThreads, 0, device.stream>>>(
        (int)a.kind, a.x.as<const T>(), a.y.as<T>(), a.n, a.alpha, a.beta, aligned(16, a.x.data, a.y.data));
    launched("unary");
  });
}

// With kAgain y = f(x) is written too, which may stand where dy stood.
template <class T, bool kAgain>
__global__ void __launch_bounds__(kThreads)
    unary_backward_kernel(int kind, const T* x, const T* dy, T* dx, T* y, int64_t n, float alpha, float beta, bool whole) {
  constexpr int N = Pack<T>::kCount;
  constexpr bool kShort = sizeof(T) == 2;
  const int64_t i = thread_index() * N;
  if (i >= n) return;
  whole = whole && i + N <= n;
  float v[N], d[N], values[N];
  if (whole) load_floats<N>(x + i, v), load_floats<N>(dy + i, d);
  else load_some<N>(x + i, v, n - i), load_some<N>(dy + i, d, n - i);
  if constexpr (kAgain) unary_slopes<kShort>(kind, v, values);
  else unary_derivatives<kShort>(kind, v, alpha, beta);
  each_pair(d, v, [](float a, float b) { return a * b; });
  if (whole) store_floats<N>(dx + i, d);
  else store_some<N>(dx + i, d, n - i);
  if constexpr (kAgain) {
    if (whole) store_floats<N>(y + i, values);
    else store_some<N>(y + i, values, n - i);
  }
}

struct AnyTensor {
  void* data;
  DType type;
  explicit AnyTensor(const Ref& t) : data(t.data), type(t.dtype) {}
};

__global__ void unary_backward_any_kernel(
    int kind, AnyTensor x, AnyTensor dy, AnyTensor dx, AnyTensor y, int64_t n, float alpha, float beta) {
  const int64_t i = thread_index();
  if (i >= n) return;
  float v[1] = {load_any(x.data, x.type, i)}, value[1];
  const float d = load_any(dy.data, dy.type, i);
  if (y.data != nullptr) unary_slopes<false>(kind, v, value);
  else unary_derivatives<false>(kind, v, alpha, beta);
  store_any(dx.data, dx.type, i, d * v[0]);
  if (y.data != nullptr) store_any(y.data, y.type, i, value[0]);
}

void unary_backward(const unary_backward_args& a) {
  check_size("n", a.n);
  check_floats("x", a.x, a.n);
  check_floats("dy", a.dy, a.n);
  check_floats("dx", a.dx, a.n);
  check_kind("unary_backward", a.kind, kUnaryKinds);
  const int kind = (int)a.kind;
  if (a.y) {
    check_floats("y", a.y, a.n);
    if (!has_slope(kind)) fail("y of unary_backward is made for gelu (kinds 10, 11 and 18), not for kind %d", kind);
  }
  if (a.n == 0) return;
  if (a.x.dtype != a.dx.dtype || a.dy.dtype != a.dx.dtype || (a.y && a.y.dtype != a.dx.dtype)) {
    unary_backward_any_kernel<<<grid_of(a.n, kThreads), kThreads, 0, device.stream>>>(
        kind, AnyTensor(a.x), AnyTensor(a.dy), AnyTensor(a.dx), AnyTensor(a.y), a.n, a.alpha, a.beta);
    return launched("unary_backward");
  }
  with_float_type(a.x.dtype, "x", [&](auto type) {
    using T = decltype(type);
    const unsigned grid = grid_of(a.n, kThreads * Pack<T>::kCount);
    const bool whole = aligned(16, a.x.data, a.dy.data, a.dx.data, a.y.data);
    const auto kernel = a.y ? unary_backward_kernel<T, true> : unary_backward_kernel<T, false>;
    kernel<<<grid, kThreads, 0, device.stream>>>(
        kind, a.x.as<const T>(), a.dy.as<const T>(), a.dx.as<T>(), a.y.as<T>(), a.n, a.alpha, a.beta, whole);
    launched("unary_backward");
  });
}

// ---- two arguments ----------------------------------------------------------------------------

// y as rows of its last axis, and where a and b stand for element (i0, i1, i2, c) of it.
struct Walk {
  Divider cols, d2, d1;
  int64_t a[4], b[4];
  bool flat;  // one row: nothing to divide
  __device__ __forceinline__ void at(int64_t i, int64_t& ia, int64_t& ib) const {
    if (flat) {
      ia = i * a[3], ib = i * b[3];
      return;
    }
    int64_t i2 = cols.take(i), i1 = d2.take(i2);
    const int64_t i0 = d1.take(i1);
    ia = i0 * a[0] + i1 * a[1] + i2 * a[2] + i * a[3];
    ib = i0 * b[0] + i1 * b[1] + i2 * b[2] + i * b[3];
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads) binary_kernel(int kind, const T* a, const T* b, T* y, int64_t n, Walk walk, bool whole) {
  constexpr int N = Pack<T>::kCount;
  const int64_t i = thread_index() * N;
  if (i >= n) return;
  whole = whole && i + N <= n;  // then the N elements stand in one row
  float u[N], v[N];
  if (whole) {
    int64_t ia, ib;
    walk.at(i, ia, ib);
    if (walk.a[3] == 1) load_floats<N>(a + ia, u);
    else each(u, [value = to_float<T>(a[ia])](float) { return value; });
    if (walk.b[3] == 1) load_floats<N>(b + ib, v);
    else each(v, [value = to_float<T>(b[ib])](float) { return value; });
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      u[j] = v[j] = 0.0f;
      if (i + j < n) {
        int64_t ia, ib;
        walk.at(i + j, ia, ib);
        u[j] = to_float<T>(a[ia]), v[j] = to_float<T>(b[ib]);
      }
    }
  }
  binary_values(kind, u, v);
  if (whole) store_floats<N>(y + i, u);
  else store_some<N>(y + i, u, n - i);
}

__global__ void binary_any_kernel(
    int kind, const void* a, DType a_type, const void* b, DType b_type, void* y, DType y_type, int64_t n, Walk walk) {
  const int64_t i = thread_index();
  if (i >= n) return;
  int64_t ia, ib;
  walk.at(i, ia, ib);
  float u[1] = {load_any(a, a_type, ia)}, v[1] = {load_any(b, b_type, ib)};
  binary_values(kind, u, v);
  store_any(y, y_type, i, u[0]);
}

// The largest index that dims and strides reach, plus one.
int64_t extent(const int64_t* d, const int64_t* s, const char* name) {
  __int128 last = 0;
  for (int j = 0; j < 4; ++j) {
    if (d[j] == 0) return 0;
    if (s[j] < 0) fail("%s has a negative stride", name);
    last += (__int128)(d[j] - 1) * s[j];
  }
  return last >= INT64_MAX ? INT64_MAX : (int64_t)last + 1;
}

void binary(const binary_args& g) {
  int64_t d[4] = {g.d0, g.d1, g.d2, g.d3}, as[4] = {g.as0, g.as1, g.as2, g.as3}, bs[4] = {g.bs0, g.bs1, g.bs2, g.bs3};
  for (int64_t size : d) check_size("a dimension", size);
  const int64_t n = product(d[0], d[1], d[2], d[3]);
  check_floats("a", g.a, extent(d, as, "a"));
  check_floats("b", g.b, extent(d, bs, "b"));
  check_floats("y", g.y, n);
  check_kind("binary", g.kind, kBinaryKinds);
  if (n == 0) return;
  join_axes(d, as, bs);
  Walk walk{Divider(d[3]), Divider(d[2]), Divider(d[1]), {}, {}, d[0] * d[1] * d[2] == 1};
  for (int j = 0; j < 4; ++j) walk.a[j] = as[j], walk.b[j] = bs[j];
  const int kind = (int)g.kind;
  if (g.a.dtype != g.y.dtype || g.b.dtype != g.y.dtype) {
    binary_any_kernel<<<grid_of(n, kThreads), kThreads, 0, device.stream>>>(
        kind, g.a.data, g.a.dtype, g.b.data, g.b.dtype, g.y.data, g.y.dtype, n, walk);
    return launched("binary");
  }
  with_float_type(g.y.dtype, "y", [&](auto type) {
    using T = decltype(type);
    constexpr int N = Pack<T>::kCount;
    // By packs: rows of whole packs, each tensor either walked one by one with aligned rows or repeating one value.
    const auto even = [&](const Ref& t, const int64_t* s) {
      return s[3] == 0 || (s[3] == 1 && aligned(16, t.data) && s[0] % N == 0 && s[1] % N == 0 && s[2] % N == 0);
    };
    const bool whole = aligned(16, g.y.data) && (walk.flat || d[3] % N == 0) && even(g.a, as) && even(g.b, bs);
    binary_kernel<T>
        <<<grid_of(n, kThreads * N), kThreads, 0, device.stream>>>(kind, g.a.as<const T>(), g.b.as<const T>(), g.y.as<T>(), n, walk, whole);
    launched("binary");
  });
}

// ---- selection and accumulation ---------------------------------------------------------------

template <class T> __global__ void where_kernel(const T* condition, const T* a, const T* b, T* y, int64_t n, bool whole) {
  constexpr int N = Pack<T>::kCount;
  const int64_t i = thread_index() * N;
  if (i >= n) return;
  whole = whole && i + N <= n;
  float c[N], u[N], v[N];
  if (whole) load_floats<N>(condition + i, c), load_floats<N>(a + i, u), load_floats<N>(b + i, v);
  else load_some<N>(condition + i, c, n - i), load_some<N>(a + i, u, n - i), load_some<N>(b + i, v, n - i);
#pragma unroll
  for (int j = 0; j < N; ++j) u[j] = c[j] != 0.0f ? u[j] : v[j];
  if (whole) store_floats<N>(y + i, u);
  else store_some<N>(y + i, u, n - i);
}

__global__ void where_any_kernel(
    const void* c, DType c_type, const void* a, DType a_type, const void* b, DType b_type, void* y, DType y_type, int64_t n) {
  const int64_t i = thread_index();
  if (i < n) store_any(y, y_type, i, load_any(c, c_type, i) != 0.0f ? load_any(a, a_type, i) : load_any(b, b_type, i));
}

void where(const where_args& g) {
  check_size("n", g.n);
  check_floats("condition", g.condition, g.n);
  check_floats("a", g.a, g.n);
  check_floats("b", g.b, g.n);
  check_floats("y", g.y, g.n);
  if (g.n == 0) return;
  const DType t = g.y.dtype;
  if (g.condition.dtype != t || g.a.dtype != t || g.b.dtype != t) {
    where_any_kernel<<<grid_of(g.n, kThreads), kThreads, 0, device.stream>>>(
        g.condition.data, g.condition.dtype, g.a.data, g.a.dtype, g.b.data, g.b.dtype, g.y.data, t, g.n);
    return launched("where");
  }
  with_float_type(t, "y", [&](auto type) {
    using T = decltype(type);
    const unsigned grid = grid_of(g.n, kThreads * Pack<T>::kCount);
    const bool whole = aligned(16, g.condition.data, g.a.data, g.b.data, g.y.data);
    where_kernel<T>
        <<<grid, kThreads, 0, device.stream>>>(g.condition.as<const T>(), g.a.as<const T>(), g.b.as<const T>(), g.y.as<T>(), g.n, whole);
    launched("where");
  });
}

template <class X, class Y> __global__ void axpy_kernel(const X* x, Y* y, int64_t n, float alpha, bool whole) {
  constexpr int N = width_of<X, Y>();
  const int64_t i = thread_index() * N;
  if (i >= n) return;
  whole = whole && i + N <= n;
  float u[N], v[N];
  if (whole) load_floats<N>(x + i, u), load_floats<N>(y + i, v);
  else load_some<N>(x + i, u, n - i), load_some<N>(y + i, v, n - i);
#pragma unroll
  for (int j = 0; j < N; ++j) v[j] += alpha * u[j];
  if (whole) store_floats<N>(y + i, v);
  else store_some<N>(y + i, v, n - i);
}

void axpy(const axpy_args& a) {
  check_size("n", a.n);
  check_floats("x", a.x, a.n);
  check_floats("y", a.y, a.n);
  if (a.n == 0) return;
  with_float_type(a.x.dtype, "x", [&](auto from) {
    with_float_type(a.y.dtype, "y", [&](auto to) {
      using X = decltype(from);
      using Y = decltype(to);
      const unsigned grid = grid_of(a.n, kThreads * width_of<X, Y>());
      axpy_kernel<X, Y>
          <<<grid, kThreads, 0, device.stream>>>(a.x.as<const X>(), a.y.as<Y>(), a.n, a.alpha, aligned(16, a.x.data, a.y.data));
      launched("axpy");
    });
  });
}

}  // namespace

void register_elementwise(Backend& b) {
  b.unary = unary;
  b.unary_backward = unary_backward;
  b.binary = binary;
  b.where = where;
  b.axpy = axpy;
}

}  // namespace cuda
}  // namespace tunebook
