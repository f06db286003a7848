// Counter-based random numbers: element i is word i % 4 of counter offset + i / 4, the same as on the CPU.
#include "check.cuh"
#include "philox.cuh"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256;

template <class X, class Y>
__global__ void dropout_kernel(const X* x, Y* y, int64_t n, uint32_t seed, uint32_t offset, float p, float scale, bool whole) {
  constexpr int N = width_of<X, Y>();
  const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  whole = whole && i + N <= n;
  float v[N];
  uint32_t words[N];
  if (whole) load_floats<N>(x + i, v);
  else load_some<N>(x + i, v, n - i);
  words_of<N>(seed, offset, i, words);
#pragma unroll
  for (int j = 0; j < N; ++j) v[j] = dropped(v[j], words[j], p, scale);
  if (whole) store_floats<N>(y + i, v);
  else store_some<N>(y + i, v, n - i);
}

void dropout(const dropout_args& a) {
  check_size("n", a.n);
  check_floats("x", a.x, a.n);
  check_floats("y", a.y, a.n);
  if (!(a.p >= 0.0f && a.p <= 1.0f)) fail("p is %g, expected 0..1", (double)a.p);
  if (a.n == 0) return;
  const float scale = a.p < 1.0f ? 1.0f / (1.0f - a.p) : 0.0f;
  const uint32_t seed = (uint32_t)a.seed, offset = (uint32_t)a.offset;
  with_float_type(a.x.dtype, "x", [&](auto from) {
    with_float_type(a.y.dtype, "y", [&](auto to) {
      using X = decltype(from);
      using Y = decltype(to);
      const unsigned grid = grid_of(a.n, kThreads * width_of<X, Y>());
      const bool whole = aligned(16, a.x.data, a.y.data);
      dropout_kernel<X, Y><<<grid, kThreads, 0, device.stream>>>(a.x.as<const X>(), a.y.as<Y>(), a.n, seed, offset, a.p, scale, whole);
      launched("dropout");
    });
  });
}

struct UniformBetween {
  float low, range;
  template <int N> __device__ void operator()(const uint32_t (&words)[N], float (&v)[N]) const {
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = low + range * uniform(words[j]);
  }
};

// Box-Muller: elements 2k and 2k + 1 share a radius and an angle.
struct Normal {
  float mean, std;
  template <int N> __device__ void operator()(const uint32_t (&words)[N], float (&v)[N]) const {
#pragma unroll
    for (int j = 0; j < N; j += 2) {
      const float radius = sqrtf(-2.0f * logf(uniform(words[j]) + 5.9604644775390625e-8f));  // of (0, 1]
      float sine, cosine;
      sincospif(2.0f * uniform(words[j + 1]), &sine, &cosine);
      v[j] = mean + std * radius * cosine;
      v[j + 1] = mean + std * radius * sine;
    }
  }
};

template <class T, class F> __global__ void random_kernel(T* y, int64_t n, uint32_t seed, uint32_t offset, F f, bool whole) {
  constexpr int N = Pack<T>::kCount;
  const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  float v[N];
  uint32_t words[N];
  words_of<N>(seed, offset, i, words);
  f(words, v);
  if (whole && i + N <= n) store_floats<N>(y + i, v);
  else store_some<N>(y + i, v, n - i);
}

template <class F> void fill_random(const Ref& y, int64_t n, int64_t seed, int64_t offset, F f) {
  check_size("n", n);
  check_floats("y", y, n);
  if (n == 0) return;
  with_float_type(y.dtype, "y", [&](auto type) {
    using T = decltype(type);
    const unsigned grid = grid_of(n, kThreads * Pack<T>::kCount);
    random_kernel<T, F><<<grid, kThreads, 0, device.stream>>>(y.as<T>(), n, (uint32_t)seed, (uint32_t)offset, f, aligned(16, y.data));
    launched("random numbers");
  });
}

void random_uniform(const random_uniform_args& a) { fill_random(a.y, a.n, a.seed, a.offset, UniformBetween{a.low, a.high - a.low}); }
void random_normal(const random_normal_args& a) { fill_random(a.y, a.n, a.seed, a.offset, Normal{a.mean, a.std}); }

}  // namespace

void register_random(Backend& b) {
  b.dropout = dropout;
  b.random_uniform = random_uniform;
  b.random_normal = random_normal;
}

}  // namespace cuda
}  // namespace tunebook
