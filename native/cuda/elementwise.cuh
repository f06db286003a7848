// Functions of one and two arguments and their derivatives, by the kinds of ops.def.
#pragma once
#include "mma.cuh"
#include "vector.cuh"

namespace tunebook {
namespace cuda {

enum Unary : int { Affine, Abs, Exp, Log, Sqrt, Rsqrt, Reciprocal, Tanh, Sigmoid, Silu, GeluErf, GeluTanh, Relu, Pow,
                   Clamp, Sin, Cos, LogSigmoid, QuickGelu, kUnaryKinds };
enum Binary : int { Add, Sub, Mul, Div, Larger, Smaller, Power, Equal, Less, kBinaryKinds };

__device__ __forceinline__ float reciprocal_fast(float x) {  // 1 unit in the last place; 0 for infinity
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// `kShort`, here and below: for elements of 16 bits, without the digits that they have no room for.
template <bool kShort> __device__ __forceinline__ float sigmoid(float x) {
  if constexpr (kShort) return reciprocal_fast(1.0f + exp2_fast(x * -1.44269504088896341f));
  else return 1.0f / (1.0f + expf(-x));
}

__device__ __forceinline__ float power(float x, float e) {
  if (e == 2.0f) return x * x;
  if (e == 3.0f) return x * x * x;
  if (e == 1.0f) return x;
  if (e == 0.0f) return 1.0f;
  if (e == -1.0f) return 1.0f / x;
  return powf(x, e);
}

constexpr float kGeluScale = 1.59576912160573071f;  // 2 sqrt(2 / pi): tanh(u) = 2 sigmoid(2u) - 1
constexpr float kGeluCube = 0.044715f;
// The factor of x in gelu by tanh.
template <bool kShort> __device__ __forceinline__ float gelu_tanh_gate(float x) {
  return sigmoid<kShort>(kGeluScale * (x + kGeluCube * x * x * x));
}

// Of the normal distribution: F(x) = (1 + erf(x / sqrt 2)) / 2 and e^(-x^2 / 2). CUDA's normcdff takes three times as long, more than
// reading and writing the elements.
struct Normal {
  float cdf, bell;
};
template <bool kShort> __device__ __forceinline__ Normal normal(float x) {
  if constexpr (kShort) {
    // F is the sigmoid of x q(x^2), q fitted up to |x| = 5.6: F to 7e-4 of itself, and to 1e-4 absolutely; beyond, F and 1 - F are below
    // 1.1e-8 and fall on.
    const float square = x * x, s = fminf(square, 31.36f);
    float q = fmaf(s, -1.03270697e-08f, 7.85497352e-07f);  // times log2 e
    q = fmaf(s, q, -8.30446916e-06f);
    q = fmaf(s, q, -1.17740927e-03f);
    q = fmaf(s, q, 1.08300109e-01f);
    q = fmaf(s, q, 2.29883941e+00f);
    return {reciprocal_fast(1.0f + exp2_fast(-x * q)), exp2_fast(square * -0.72134752044448170f)};
  } else {
    const float a = fminf(14.0f, fabsf(x));
    const float u = __fdividef(4.24264068711928515f - a, 4.24264068711928515f + a);  // (3 - z) / (3 + z) with z = a / sqrt 2
    float p;  // e^(z^2) erfc(z), as in native/cpu/vmath.h; F to 1e-5 of its value in the tails too
    p = fmaf(u, 5.580747165e-05f, -2.862485417e-05f);
    p = fmaf(u, p, -5.946888705e-04f);
    p = fmaf(u, p, -7.158451481e-04f);
    p = fmaf(u, p, 4.268965684e-03f);
    p = fmaf(u, p, 2.439424396e-02f);
    p = fmaf(u, p, 7.166584581e-02f);
    p = fmaf(u, p, 1.501157880e-01f);
    p = fmaf(u, p, 2.456037998e-01f);
    p = fmaf(u, p, 3.262335658e-01f);
    p = fmaf(u, p, 1.790011525e-01f);
    const float bell = exp2_fast(a * a * -0.72134752044448170f);
    const float tail = __fmul_rn(0.5f * p, bell);  // rounded, wherever this is inlined: gelu made again has the same bits
    return {x != x ? x : x < 0.0f ? tail : 1.0f - tail, bell};
  }
}

// f(x) and f'(x) of the three kinds of gelu: `value` has the bits of unary_values.
struct Slope {
  float value, derivative;
};
template <bool kShort> __device__ __forceinline__ Slope gelu_slope(float x) {
  const Normal f = normal<kShort>(x);
  return {x * f.cdf, fmaf(x * 0.398942280401432678f, f.bell, f.cdf)};
}
template <bool kShort> __device__ __forceinline__ Slope gelu_tanh_slope(float x) {
  const float s = gelu_tanh_gate<kShort>(x);
  return {x * s, s + x * s * (1.0f - s) * kGeluScale * (1.0f + 3.0f * kGeluCube * x * x)};
}
template <bool kShort> __device__ __forceinline__ Slope quick_gelu_slope(float x) {
  const float s = sigmoid<kShort>(1.702f * x);
  return {x * s, s * (1.0f + 1.702f * x * (1.0f - s))};
}

// v[j] = f(v[j]); the kind is the same for a whole launch, so the branch costs once for N elements.
template <int N, class F> __device__ __forceinline__ void each(float (&v)[N], F f) {
#pragma unroll
  for (int j = 0; j < N; ++j) v[j] = f(v[j]);
}

template <bool kShort, int N> __device__ __forceinline__ void unary_values(int kind, float (&v)[N], float alpha, float beta) {
  switch (kind) {
    case Affine: return each(v, [=](float x) { return alpha * x + beta; });
    case Abs: return each(v, [](float x) { return fabsf(x); });
    case Exp: return each(v, [](float x) { return expf(x); });
    case Log: return each(v, [](float x) { return logf(x); });
    case Sqrt: return each(v, [](float x) { return sqrtf(x); });
    case Rsqrt: return each(v, [](float x) { return 1.0f / sqrtf(x); });
    case Reciprocal: return each(v, [](float x) { return 1.0f / x; });
    case Tanh: return each(v, [](float x) { return tanhf(x); });
    case Sigmoid: return each(v, [](float x) { return sigmoid<kShort>(x); });
    case Silu: return each(v, [](float x) { return x * sigmoid<kShort>(x); });
    case GeluErf: return each(v, [](float x) { return x * normal<kShort>(x).cdf; });
    case GeluTanh: return each(v, [](float x) { return x * gelu_tanh_gate<kShort>(x); });
    case Relu: return each(v, [](float x) { return x < 0.0f ? 0.0f : x; });  // NaN stays
    case Pow: return each(v, [=](float x) { return power(x, alpha); });
    case Clamp:
      return each(v, [=](float x) {
        const float low = x < alpha ? alpha : x;
        return low > beta ? beta : low;
      });
    case Sin: return each(v, [](float x) { return sinf(x); });
    case Cos: return each(v, [](float x) { return cosf(x); });
    case LogSigmoid: return each(v, [](float x) { return (x < 0.0f ? x : 0.0f) - log1pf(expf(-fabsf(x))); });
    case QuickGelu: return each(v, [](float x) { return x * sigmoid<kShort>(1.702f * x); });
  }
}

// v[j] = f'(v[j])
template <bool kShort, int N> __device__ __forceinline__ void unary_derivatives(int kind, float (&v)[N], float alpha, float beta) {
  switch (kind) {
    case Affine: return each(v, [=](float) { return alpha; });
    case Abs: return each(v, [](float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f; });
    case Exp: return each(v, [](float x) { return expf(x); });
    case Log: return each(v, [](float x) { return 1.0f / x; });
    case Sqrt: return each(v, [](float x) { return 0.5f / sqrtf(x); });
    case Rsqrt: return each(v, [](float x) { return -0.5f / (x * sqrtf(x)); });
    case Reciprocal: return each(v, [](float x) { return -1.0f / (x * x); });
    case Tanh:
      return each(v, [](float x) {  // 4 s(2x) s(-2x): no cancellation for large |x|
        const float s = sigmoid<kShort>(-2.0f * fabsf(x));
        return 4.0f * s * (1.0f - s);
      });
    case Sigmoid:
      return each(v, [](float x) {
        const float s = sigmoid<kShort>(-fabsf(x));
        return s * (1.0f - s);
      });
    case Silu:
      return each(v, [](float x) {
        const float s = sigmoid<kShort>(x);
        return s * (1.0f + x * (1.0f - s));
      });
    case GeluErf: return each(v, [](float x) { return gelu_slope<kShort>(x).derivative; });
    case GeluTanh: return each(v, [](float x) { return gelu_tanh_slope<kShort>(x).derivative; });
    case Relu: return each(v, [](float x) { return x > 0.0f ? 1.0f : 0.0f; });
    case Pow: return each(v, [=](float x) { return alpha == 0.0f ? 0.0f : alpha * power(x, alpha - 1.0f); });
    case Clamp: return each(v, [=](float x) { return x >= alpha && x <= beta ? 1.0f : 0.0f; });
    case Sin: return each(v, [](float x) { return cosf(x); });
    case Cos: return each(v, [](float x) { return -sinf(x); });
    case LogSigmoid: return each(v, [](float x) { return sigmoid<kShort>(-x); });
    case QuickGelu: return each(v, [](float x) { return quick_gelu_slope<kShort>(x).derivative; });
  }
}

// values[j] = f(v[j]), then v[j] = f'(v[j]), for the kinds that have both at once.
__host__ __device__ constexpr bool has_slope(int kind) { return kind == GeluErf || kind == GeluTanh || kind == QuickGelu; }
template <bool kShort, int N> __device__ __forceinline__ void unary_slopes(int kind, float (&v)[N], float (&values)[N]) {
  const auto both = [&](auto of) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const Slope s = of(v[j]);
      values[j] = s.value, v[j] = s.derivative;
    }
  };
  if (kind == GeluErf) both([](float x) { return gelu_slope<kShort>(x); });
  else if (kind == GeluTanh) both([](float x) { return gelu_tanh_slope<kShort>(x); });
  else both([](float x) { return quick_gelu_slope<kShort>(x); });
}

// u[j] = f(u[j], v[j])
template <int N, class F> __device__ __forceinline__ void each_pair(float (&u)[N], const float (&v)[N], F f) {
#pragma unroll
  for (int j = 0; j < N; ++j) u[j] = f(u[j], v[j]);
}

template <int N> __device__ __forceinline__ void binary_values(int kind, float (&u)[N], const float (&v)[N]) {
  switch (kind) {
    case Add: return each_pair(u, v, [](float a, float b) { return a + b; });
    case Sub: return each_pair(u, v, [](float a, float b) { return a - b; });
    case Mul: return each_pair(u, v, [](float a, float b) { return a * b; });
    case Div: return each_pair(u, v, [](float a, float b) { return a / b; });
    case Larger: return each_pair(u, v, [](float a, float b) { return a > b || a != a ? a : b; });  // NaN wins
    case Smaller: return each_pair(u, v, [](float a, float b) { return a < b || a != a ? a : b; });
    case Power: return each_pair(u, v, [](float a, float b) { return powf(a, b); });
    case Equal: return each_pair(u, v, [](float a, float b) { return a == b ? 1.0f : 0.0f; });
    case Less: return each_pair(u, v, [](float a, float b) { return a < b ? 1.0f : 0.0f; });
  }
}

}  // namespace cuda
}  // namespace tunebook
