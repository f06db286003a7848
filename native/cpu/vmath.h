// exp, log, tanh, the normal distribution function … of vectors. Polynomials fitted to minimise the largest relative error; results are
// within about 2 units in the last place of the exact value (tested against float64).
#pragma once
#include "simd.h"

namespace tunebook {
namespace TB_ISA {

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;
constexpr float kInf = __builtin_inff();

// p * 2^n for integral n, with gradual underflow and overflow to infinity; |n| <= 252.
TB_INLINE vf scale_by(vf p, vf n) {
#if TB_AVX512
  return (vf)_mm512_maskz_scalef_ps(kAll, (__m512)p, (__m512)n);
#else
  const vi e = __builtin_convertvector(n, vi);
  const vi half = e >> 1;
  return p * from_bits((half + 127) << 23) * from_bits((e - half + 127) << 23);
#endif
}

// Nearest integer, for |x| < 2^22.
TB_INLINE vf round_v(vf x) {
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23
  return (x + magic) - magic;
}

TB_INLINE vf exp2_poly(vf r) {
  vf p = splat(1.546710992e-04f) + r * 1.531494672e-05f;
  p = 1.333343098e-03f + r * p;
  p = 9.618036449e-03f + r * p;
  p = 5.550410971e-02f + r * p;
  p = 2.402265072e-01f + r * p;
  p = 6.931471825e-01f + r * p;
  return 1.0f + r * p;
}

// 2^x
TB_INLINE vf exp2_v(vf x) {
  x = vmin(splat(128.0f), vmax(splat(-151.0f), x));
  const vf n = round_v(x);
  return scale_by(exp2_poly(x - n), n);
}

// 2^x for x <= 0; below 2^-125 zero, so that no subnormal number slows down what follows
TB_INLINE vf exp2_negative_v(vf x) {
  const vf a = vmax(splat(-126.0f), x);
  const vf magic = splat(12582912.0f);
  const vf shifted = a + magic;  // its lower bits are the integer
  const vf p = exp2_poly(a - (shifted - magic));
  const vf y = from_bits(bits(p) + (bits(shifted) << 23));
  return x >= splat(-125.0f) ? y : (x == x ? splat(0.0f) : x);  // NaN with whatever payload stays NaN
}

// e^x
TB_INLINE vf exp_v(vf x) {
  x = vmin(splat(89.0f), vmax(splat(-105.0f), x));
  const vf n = round_v(x * kLog2e);
  vf r = x - n * 0.693359375f;  // the high part of ln 2 has few bits: the product is exact
  r = r + n * 2.12194440054690583e-4f;
  vf p = splat(8.368887939e-03f) + r * 1.395048574e-03f;
  p = 4.166620597e-02f + r * p;
  p = 1.666651815e-01f + r * p;
  p = 0.5f + r * p;
  return scale_by(1.0f + (r + r * r * p), n);
}

// ln x; -inf for 0, NaN below
TB_INLINE vf log_v(vf x) {
  const auto tiny = x < splat(1.17549435e-38f);
  const vf a = tiny ? x * 8388608.0f : x;
  const vi e = (bits(a) - 0x3f3504f3) >> 23;
  const vf t = from_bits(bits(a) - (e << 23)) - 1.0f;
  const vf n = to_float(e) - (tiny ? splat(23.0f) : splat(0.0f));
  vf p = splat(-1.167564094e-01f) + t * 6.746601313e-02f;
  p = 1.188817471e-01f + t * p;
  p = -1.240559146e-01f + t * p;
  p = 1.421955079e-01f + t * p;
  p = -1.666799635e-01f + t * p;
  p = 2.000211924e-01f + t * p;
  p = -2.500000894e-01f + t * p;
  p = 3.333331347e-01f + t * p;
  const vf t2 = t * t;
  vf y = t2 * t * p - n * 2.12194440054690583e-4f;
  y = (t + (y - 0.5f * t2)) + n * 0.693359375f;
  y = x < splat(kInf) ? y : x;  // inf and NaN stay
  y = x == splat(0.0f) ? splat(-kInf) : y;
  return x < splat(0.0f) ? splat(__builtin_nanf("")) : y;
}

// ln(1 + u) for u >= 0
TB_INLINE vf log1p_v(vf u) {
  const vf w = 1.0f + u;
  const vf lost = u - (w - 1.0f);
  return log_v(w) + lost / w;
}

TB_INLINE vf sigmoid_v(vf x) { return 1.0f / (1.0f + exp_v(-x)); }

TB_INLINE vf log_sigmoid_v(vf x) { return (x < splat(0.0f) ? x : splat(0.0f)) - log1p_v(exp_v(-vabs(x))); }

TB_INLINE vf tanh_v(vf x) {
  const vf a = vabs(x);
  const vf s = x * x;
  vf p = splat(-8.091964759e-03f) + s * 2.064662054e-03f;
  p = 2.166634426e-02f + s * p;
  p = -5.394056439e-02f + s * p;
  p = 1.333315820e-01f + s * p;
  p = -3.333332837e-01f + s * p;
  const vf near = x + x * s * p;
  const vf far = copysign_v(1.0f - 2.0f / (exp_v(a + a) + 1.0f), x);
  return a < splat(0.625f) ? near : (x == x ? far : x);
}

// Normal distribution function: (1 + erf(x / sqrt 2)) / 2, exact in relative terms in the lower tail too.
TB_INLINE vf normal_cdf_v(vf x) {
  const vf a = vmin(splat(14.0f), vabs(x));
  const vf u = (4.24264068711928515f - a) / (4.24264068711928515f + a);  // (3 - z) / (3 + z) with z = a / sqrt 2
  vf p = splat(-2.862485417e-05f) + u * 5.580747165e-05f;
  p = -5.946888705e-04f + u * p;
  p = -7.158451481e-04f + u * p;
  p = 4.268965684e-03f + u * p;
  p = 2.439424396e-02f + u * p;
  p = 7.166584581e-02f + u * p;
  p = 1.501157880e-01f + u * p;
  p = 2.456037998e-01f + u * p;
  p = 3.262335658e-01f + u * p;
  p = 1.790011525e-01f + u * p;  // e^(z^2) erfc(z)
  // a^2 / 2 to more than 24 bits: the square of a's upper half is exact, the rest is small.
  const vf high = from_bits(bits(a) & (int32_t)0xfffff000);
  const vf rest = (a - high) * (a + high) * 0.5f;
  const vf tail = 0.5f * p * exp_v(high * high * -0.5f) * (1.0f - rest * (1.0f - 0.5f * rest * (1.0f - 0.333333333f * rest)));
  const vf s = x * x;
  vf q = splat(1.146023351e-04f) - s * 8.257957234e-06f;
  q = -1.187055837e-03f + s * q;
  q = 9.973516688e-03f + s * q;
  q = -6.649037451e-02f + s * q;
  q = 3.989422917e-01f + s * q;
  const vf y = a < splat(0.7f) ? 0.5f + x * q : (x < splat(0.0f) ? tail : 1.0f - tail);
  return x == x ? y : x;
}

// Density of the normal distribution
TB_INLINE vf normal_pdf_v(vf x) { return 0.398942280401432678f * exp_v(x * x * -0.5f); }

}  // namespace TB_ISA
}  // namespace tunebook
