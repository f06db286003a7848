// isa: portable avx2 avx512
// Functions of one and two arguments, their derivatives, selection, y += alpha x.
#include "axes.h"
#include "checks.h"
#include "parallel.h"
#include "vmath.h"

namespace tunebook {
namespace TB_ISA {
namespace {

constexpr int64_t kPiece = 16384;

enum Unary { Affine, Abs, Exp, Log, Sqrt, Rsqrt, Reciprocal, Tanh, Sigmoid, Silu, GeluErf, GeluTanh, Relu, Pow,
             Clamp, Sin, Cos, LogSigmoid, QuickGelu };

// Functions that nothing hot calls go through libm, lane by lane.
template <class F>
TB_INLINE vf each(vf x, F f) {
  for (int i = 0; i < W; ++i) x[i] = f(x[i]);
  return x;
}
TB_INLINE vf pow_v(vf x, float e) {
  if (e == 2.0f) return x * x;
  if (e == 3.0f) return x * x * x;
  if (e == 1.0f) return x;
  if (e == 0.0f) return splat(1.0f);
  if (e == -1.0f) return 1.0f / x;
  return each(x, [e](float v) { return __builtin_powf(v, e); });
}
constexpr float kGeluScale = 1.59576912160573071f;   // 2 sqrt(2 / pi): tanh(u) = 2 sigmoid(2u) - 1
constexpr float kGeluCube = 0.044715f;
TB_INLINE vf gelu_tanh_gate(vf x) { return sigmoid_v(kGeluScale * (x + kGeluCube * x * x * x)); }

TB_INLINE vf zero() { return splat(0.0f); }

template <class F>
void map1(const float* x, float* y, int64_t n, F f) {
  parallel_pieces(n, kPiece, [&](int64_t begin, int64_t end) {
    for_vectors(end - begin, [&](int64_t i, int64_t m) { store_to(y + begin + i, f(load_to(x + begin + i, m)), m); });
  });
}

void unary(const unary_args& a) {
  check_size("n", a.n);
  check_tensor("x", a.x, a.n);
  check_tensor("y", a.y, a.n);
  const float *x = a.x.f32(), alpha = a.alpha, beta = a.beta;
  float* y = a.y.f32();
  const int64_t n = a.n;
  switch (a.kind) {
    case Affine: return map1(x, y, n, [=](vf v) { return alpha * v + beta; });
    case Abs: return map1(x, y, n, [](vf v) { return vabs(v); });
    case Exp: return map1(x, y, n, [](vf v) { return exp_v(v); });
    case Log: return map1(x, y, n, [](vf v) { return log_v(v); });
    case Sqrt: return map1(x, y, n, [](vf v) { return vsqrt(v); });
    case Rsqrt: return map1(x, y, n, [](vf v) { return 1.0f / vsqrt(v); });
    case Reciprocal: return map1(x, y, n, [](vf v) { return 1.0f / v; });
    case Tanh: return map1(x, y, n, [](vf v) { return tanh_v(v); });
    case Sigmoid: return map1(x, y, n, [](vf v) { return sigmoid_v(v); });
    case Silu: return map1(x, y, n, [](vf v) { return v * sigmoid_v(v); });
    case GeluErf: return map1(x, y, n, [](vf v) { return v * normal_cdf_v(v); });
    case GeluTanh: return map1(x, y, n, [](vf v) { return v * gelu_tanh_gate(v); });
    case Relu: return map1(x, y, n, [](vf v) { return vmax(zero(), v); });
    case Pow: return map1(x, y, n, [=](vf v) { return pow_v(v, alpha); });
    case Clamp: return map1(x, y, n, [=](vf v) { return vmin(splat(beta), vmax(splat(alpha), v)); });
    case Sin: return map1(x, y, n, [](vf v) { return each(v, [](float t) { return __builtin_sinf(t); }); });
    case Cos: return map1(x, y, n, [](vf v) { return each(v, [](float t) { return __builtin_cosf(t); }); });
    case LogSigmoid: return map1(x, y, n, [](vf v) { return log_sigmoid_v(v); });
    case QuickGelu: return map1(x, y, n, [](vf v) { return v * sigmoid_v(1.702f * v); });
  }
  fail("kind %lld of unary is unknown", (long long)a.kind);
}

// y = f(x) and dx = dy f'(x) at once: `slope` gives both of them.
struct Slope {
  vf value, derivative;
};
template <class F>
void map_slopes(const unary_backward_args& a, F slope) {
  const float *x = a.x.f32(), *dy = a.dy.f32();
  float *dx = a.dx.f32(), *y = a.y ? a.y.f32() : nullptr;
  parallel_pieces(a.n, kPiece, [&](int64_t begin, int64_t end) {
    for_vectors(end - begin, [&](int64_t i, int64_t m) {
      const Slope s = slope(load_to(x + begin + i, m));
      store_to(dx + begin + i, load_to(dy + begin + i, m) * s.derivative, m);
      if (y != nullptr) store_to(y + begin + i, s.value, m);
    });
  });
}

template <class F>
void map_backward(const unary_backward_args& a, F derivative) {
  const float *x = a.x.f32(), *dy = a.dy.f32();
  float* dx = a.dx.f32();
  parallel_pieces(a.n, kPiece, [&](int64_t begin, int64_t end) {
    for_vectors(end - begin, [&](int64_t i, int64_t m) {
      store_to(dx + begin + i, load_to(dy + begin + i, m) * derivative(load_to(x + begin + i, m)), m);
    });
  });
}

void unary_backward(const unary_backward_args& a) {
  check_size("n", a.n);
  check_tensor("x", a.x, a.n);
  check_tensor("dy", a.dy, a.n);
  check_tensor("dx", a.dx, a.n);
  if (a.y) {
    check_tensor("y", a.y, a.n);
    if (a.kind != GeluErf && a.kind != GeluTanh && a.kind != QuickGelu)
      fail("y of unary_backward is made for gelu (kinds 10, 11 and 18), not for kind %lld", (long long)a.kind);
  }
  const float alpha = a.alpha, beta = a.beta;
  switch (a.kind) {
    case Affine: return map_backward(a, [=](vf) { return splat(alpha); });
    case Abs: return map_backward(a, [](vf v) { return v > zero() ? splat(1.0f) : v < zero() ? splat(-1.0f) : zero(); });
    case Exp: return map_backward(a, [](vf v) { return exp_v(v); });
    case Log: return map_backward(a, [](vf v) { return 1.0f / v; });
    case Sqrt: return map_backward(a, [](vf v) { return 0.5f / vsqrt(v); });
    case Rsqrt: return map_backward(a, [](vf v) { return -0.5f / (v * vsqrt(v)); });
    case Reciprocal: return map_backward(a, [](vf v) { return -1.0f / (v * v); });
    case Tanh:
      return map_backward(a, [](vf v) {  // 4 s(2v) s(-2v): no cancellation for large |v|
        const vf s = sigmoid_v(-2.0f * vabs(v));
        return 4.0f * s * (1.0f - s);
      });
    case Sigmoid:
      return map_backward(a, [](vf v) {
        const vf s = sigmoid_v(-vabs(v));
        return s * (1.0f - s);
      });
    case Silu:
      return map_backward(a, [](vf v) {
        const vf s = sigmoid_v(v);
        return s * (1.0f + v * (1.0f - s));
      });
    case GeluErf:
      return map_slopes(a, [](vf v) {
        const vf f = normal_cdf_v(v);
        return Slope{v * f, f + v * normal_pdf_v(v)};
      });
    case GeluTanh:
      return map_slopes(a, [](vf v) {
        const vf s = gelu_tanh_gate(v);
        return Slope{v * s, s + v * s * (1.0f - s) * kGeluScale * (1.0f + 3.0f * kGeluCube * v * v)};
      });
    case Relu: return map_backward(a, [](vf v) { return v > zero() ? splat(1.0f) : zero(); });
    case Pow: return map_backward(a, [=](vf v) { return alpha == 0.0f ? zero() : alpha * pow_v(v, alpha - 1.0f); });
    case Clamp: return map_backward(a, [=](vf v) { return (v >= splat(alpha) ? splat(1.0f) : zero()) * (v <= splat(beta) ? splat(1.0f) : zero()); });
    case Sin: return map_backward(a, [](vf v) { return each(v, [](float t) { return __builtin_cosf(t); }); });
    case Cos: return map_backward(a, [](vf v) { return -each(v, [](float t) { return __builtin_sinf(t); }); });
    case LogSigmoid: return map_backward(a, [](vf v) { return sigmoid_v(-v); });
    case QuickGelu:
      return map_slopes(a, [](vf v) {
        const vf s = sigmoid_v(1.702f * v);
        return Slope{v * s, s * (1.0f + 1.702f * v * (1.0f - s))};
      });
  }
  fail("kind %lld of unary_backward is unknown", (long long)a.kind);
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

// One row of y; a stride of 0 repeats one value.
template <class F>
TB_INLINE void binary_row(const float* a, int64_t sa, const float* b, int64_t sb, float* y, int64_t n, F f) {
  if (sa == 1 && sb == 1) {
    for_vectors(n, [&](int64_t i, int64_t m) { store_to(y + i, f(load_to(a + i, m), load_to(b + i, m)), m); });
  } else if (sa == 1 && sb == 0) {
    const vf v = splat(*b);
    for_vectors(n, [&](int64_t i, int64_t m) { store_to(y + i, f(load_to(a + i, m), v), m); });
  } else if (sa == 0 && sb == 1) {
    const vf v = splat(*a);
    for_vectors(n, [&](int64_t i, int64_t m) { store_to(y + i, f(v, load_to(b + i, m)), m); });
  } else {
    for_vectors(n, [&](int64_t i, int64_t m) {
      vf u = {}, v = {};
      for (int64_t j = 0; j < m; ++j) u[j] = a[(i + j) * sa], v[j] = b[(i + j) * sb];
      store_to(y + i, f(u, v), m);
    });
  }
}

template <class F>
void binary_run(const binary_args& g, F f) {
  int64_t d[4] = {g.d0, g.d1, g.d2, g.d3};
  int64_t as[4] = {g.as0, g.as1, g.as2, g.as3}, bs[4] = {g.bs0, g.bs1, g.bs2, g.bs3};
  join_axes(d, as, bs);
  const float *a = g.a.f32(), *b = g.b.f32();
  float* y = g.y.f32();
  const int64_t cols = d[3], rows = d[0] * d[1] * d[2], blocks = (cols + kPiece - 1) / kPiece;
  parallel_pieces(rows * blocks, rows_of(kPiece, cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t c = t % blocks * kPiece, r = t / blocks, n = cols - c < kPiece ? cols - c : kPiece;
      const int64_t i2 = r % d[2], i1 = r / d[2] % d[1], i0 = r / d[2] / d[1];
      binary_row(a + i0 * as[0] + i1 * as[1] + i2 * as[2] + c * as[3], as[3], b + i0 * bs[0] + i1 * bs[1] + i2 * bs[2] + c * bs[3], bs[3],
                 y + r * cols + c, n, f);
    }
  });
}

void binary(const binary_args& g) {
  const int64_t d[4] = {g.d0, g.d1, g.d2, g.d3};
  const int64_t as[4] = {g.as0, g.as1, g.as2, g.as3}, bs[4] = {g.bs0, g.bs1, g.bs2, g.bs3};
  for (int64_t size : d) check_size("a dimension", size);
  const int64_t n = product(d[0], d[1], d[2], d[3]);
  check_tensor("y", g.y, n);
  check_tensor("a", g.a, extent(d, as, "a"));
  check_tensor("b", g.b, extent(d, bs, "b"));
  if (n == 0) return;
  switch (g.kind) {
    case 0: return binary_run(g, [](vf a, vf b) { return a + b; });
    case 1: return binary_run(g, [](vf a, vf b) { return a - b; });
    case 2: return binary_run(g, [](vf a, vf b) { return a * b; });
    case 3: return binary_run(g, [](vf a, vf b) { return a / b; });
    case 4: return binary_run(g, [](vf a, vf b) { return a == a ? vmax(a, b) : a; });
    case 5: return binary_run(g, [](vf a, vf b) { return a == a ? vmin(a, b) : a; });
    case 6:
      return binary_run(g, [](vf a, vf b) {
        for (int i = 0; i < W; ++i) a[i] = __builtin_powf(a[i], b[i]);
        return a;
      });
    case 7: return binary_run(g, [](vf a, vf b) { return a == b ? splat(1.0f) : zero(); });
    case 8: return binary_run(g, [](vf a, vf b) { return a < b ? splat(1.0f) : zero(); });
  }
  fail("kind %lld of binary is unknown", (long long)g.kind);
}

void where(const where_args& g) {
  check_size("n", g.n);
  check_tensor("condition", g.condition, g.n);
  check_tensor("a", g.a, g.n);
  check_tensor("b", g.b, g.n);
  check_tensor("y", g.y, g.n);
  const float *c = g.condition.f32(), *a = g.a.f32(), *b = g.b.f32();
  float* y = g.y.f32();
  parallel_pieces(g.n, kPiece, [&](int64_t begin, int64_t end) {
    for_vectors(end - begin, [&](int64_t j, int64_t m) {
      const int64_t i = begin + j;
      store_to(y + i, load_to(c + i, m) != zero() ? load_to(a + i, m) : load_to(b + i, m), m);
    });
  });
}

void axpy(const axpy_args& a) {
  check_size("n", a.n);
  check_tensor("x", a.x, a.n);
  check_tensor("y", a.y, a.n);
  const float *x = a.x.f32(), alpha = a.alpha;
  float* y = a.y.f32();
  parallel_pieces(a.n, kPiece, [&](int64_t begin, int64_t end) {
    for_vectors(end - begin, [&](int64_t j, int64_t m) {
      const int64_t i = begin + j;
      store_to(y + i, load_to(y + i, m) + alpha * load_to(x + i, m), m);
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

}  // namespace TB_ISA
}  // namespace tunebook
