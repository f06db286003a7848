// Sums and maxima of one contiguous row. Sums go through blocks, so that their error grows with the logarithm of the length rather than the length.
#pragma once
#include "vmath.h"

namespace tunebook {
namespace TB_ISA {

// Sum over [0, n) of f(i, lanes): f returns a vector whose lanes past `lanes` are zero.
template <class F>
TB_INLINE float sum_of(int64_t n, F f) {
  constexpr int64_t kBlock = 64 * W;
  vf total = {};
  int64_t i = 0;
  while (i + W <= n) {
    vf s0 = {}, s1 = {}, s2 = {}, s3 = {};
    const int64_t end = n - i < kBlock ? n : i + kBlock;
    for (; i + 4 * W <= end; i += 4 * W) {
      s0 += f(i, (int64_t)W);
      s1 += f(i + W, (int64_t)W);
      s2 += f(i + 2 * W, (int64_t)W);
      s3 += f(i + 3 * W, (int64_t)W);
    }
    for (; i + W <= end; i += W) s0 += f(i, (int64_t)W);
    total += (s0 + s1) + (s2 + s3);
  }
  if (i < n) total += f(i, n - i);
  return hsum(total);
}

TB_INLINE vf zero_past(vf v, int64_t m) { return m == W ? v : lanes() < splat_i((int32_t)m) ? v : splat(0.0f); }

TB_INLINE float row_sum(const float* x, int64_t n) {
  return sum_of(n, [=](int64_t i, int64_t m) { return load_to(x + i, m); });
}
TB_INLINE float row_dot(const float* x, const float* y, int64_t n) {
  return sum_of(n, [=](int64_t i, int64_t m) { return load_to(x + i, m) * load_to(y + i, m); });
}
// Largest element; NaN is passed over here (a sum of exponentials brings it back).
TB_INLINE float row_max(const float* x, int64_t n) {
  vf m0 = splat(-kInf), m1 = m0;
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    m0 = vmax(load(x + i), m0);
    m1 = vmax(load(x + i + W), m1);
  }
  float m = hmax(vmax(m0, m1));
  for (; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}
// Sum of e^(x - shift)
TB_INLINE float row_sum_exp(const float* x, int64_t n, float shift) {
  return sum_of(n, [=](int64_t i, int64_t m) { return zero_past(exp_v(load_to(x + i, m) - shift), m); });
}

}  // namespace TB_ISA
}  // namespace tunebook
