// isa: portable avx2 avx512
// Counter-based random numbers: element i is word i % 4 of counter offset + i / 4, whatever the number of threads or the vector width.
#include "checks.h"
#include "random.h"
#include "vmath.h"

namespace tunebook {
namespace TB_ISA {
namespace {

void dropout(const dropout_args& a) {
  check_size("n", a.n);
  check_tensor("x", a.x, a.n);
  check_tensor("y", a.y, a.n);
  if (!(a.p >= 0.0f && a.p <= 1.0f)) fail("p is %g, expected 0..1", (double)a.p);
  drop(a.x.f32(), a.y.f32(), a.n, a.seed, a.offset, a.p);
}

void random_uniform(const random_uniform_args& a) {
  check_size("n", a.n);
  check_tensor("y", a.y, a.n);
  const float low = a.low, range = a.high - a.low;
  float* y = a.y.f32();
  each_random(a.n, a.seed, a.offset, [=](int64_t i, int64_t m, const uint32_t* words) { store_to(y + i, low + range * uniform_v(words), m); });
}

// cos 2 pi u in even lanes, sin 2 pi u in odd ones; u on [0, 1).
TB_INLINE vf cos_or_sin(vf u) {
  const vf quarter = round_v(u * 4.0f), r = u * 4.0f - quarter, s = r * r;
  vf sine = splat(-4.681219812e-03f) + s * 1.581044489e-04f;
  sine = 7.969257981e-02f + s * sine;
  sine = -6.459640861e-01f + s * sine;
  sine = r * (1.570796371f + s * sine);
  vf cosine = splat(-2.085963823e-02f) + s * 9.027132182e-04f;
  cosine = 2.536691427e-01f + s * cosine;
  cosine = -1.233700514f + s * cosine;
  cosine = 1.0f + s * cosine;
  const vi k = __builtin_convertvector(quarter, vi) + (lanes() & 1) * 3;  // a sine is the cosine three quarters on
  const vf y = (k & 1) != 0 ? sine : cosine;
  return from_bits(bits(y) ^ (((k + 1) & 2) << 30));
}

void random_normal(const random_normal_args& a) {
  check_size("n", a.n);
  check_tensor("y", a.y, a.n);
  const float mean = a.mean, std = a.std;
  float* y = a.y.f32();
  each_random(a.n, a.seed, a.offset, [=](int64_t i, int64_t m, const uint32_t* words) {
    // Elements 2k and 2k+1 share a radius and an angle: both words of a pair are needed in both lanes.
    uint32_t first[W], second[W];
    for (int j = 0; j < W; j += 2) {
      first[j] = first[j + 1] = words[j];
      second[j] = second[j + 1] = words[j + 1];
    }
    const vf u = uniform_v(first) + 5.9604644775390625e-8f;  // (0, 1]
    const vf radius = vsqrt(-2.0f * log_v(u));
    store_to(y + i, mean + std * radius * cos_or_sin(uniform_v(second)), m);
  });
}

}  // namespace

void register_random(Backend& b) {
  b.dropout = dropout;
  b.random_uniform = random_uniform;
  b.random_normal = random_normal;
}

}  // namespace TB_ISA
}  // namespace tunebook
