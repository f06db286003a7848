// isa: portable avx2 avx512
// Counter-based random numbers: element i is word i % 4 of counter offset + i / 4, whatever the number of threads or the vector width.
#include "check.h"
#include "philox.h"
#include "vmath.h"

namespace tunebook {
namespace TB_ISA {
namespace {

constexpr int64_t kPiece = 16384;  // a multiple of the 4 W elements made at once

// f(i, lanes, words) for vectors of [0, n): words are the W random words of elements i ...
template <class F>
void each_random(int64_t n, int64_t seed, int64_t offset, F f) {
  parallel_pieces(n, kPiece, [&](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[4 * W];
    for (int64_t i = begin; i < end; i += 4 * W) {
      philox((uint32_t)seed, (uint64_t)(uint32_t)offset + (uint64_t)(i / 4), words);
      for (int64_t j = 0; j < 4 * W && i + j < end; j += W) f(i + j, end - i - j < W ? end - i - j : (int64_t)W, words + j);
    }
  });
}

void dropout(const dropout_args& a) {
  check_size("n", a.n);
  check_tensor("x", a.x, a.n);
  check_tensor("y", a.y, a.n);
  if (!(a.p >= 0.0f && a.p <= 1.0f)) fail("p is %g, expected 0..1", (double)a.p);
  const float p = a.p, scale = p < 1.0f ? 1.0f / (1.0f - p) : 0.0f;
  const float* x = a.x.f32();
  float* y = a.y.f32();
  each_random(a.n, a.seed, a.offset, [=](int64_t i, int64_t m, const uint32_t* words) {
    store_to(y + i, uniform_v(words) >= splat(p) ? load_to(x + i, m) * scale : splat(0.0f), m);
  });
}

void random_uniform(const random_uniform_args& a) {
  check_size("n", a.n);
  check_tensor("y", a.y, a.n);
  const float low = a.low, range = a.high - a.low;
  float* y = a.y.f32();
  each_random(a.n, a.seed, a.offset, [=](int64_t i, int64_t m, const uint32_t* words) { store_to(y + i, low + range * uniform_v(words), m); });
}

void random_normal(const random_normal_args& a) {
  check_size("n", a.n);
  check_tensor("y", a.y, a.n);
  const float mean = a.mean, std = a.std;
  float* y = a.y.f32();
  each_random(a.n, a.seed, a.offset, [=](int64_t i, int64_t m, const uint32_t* words) {
    // Elements 2k and 2k+1 share a radius and an angle; each lane reads both words of its pair.
    uint32_t first[W];
    float angle_part[W], out[W];
    for (int j = 0; j < W; ++j) {
      first[j] = words[j & ~1];
      angle_part[j] = (float)(words[j | 1] >> 8) * 5.9604644775390625e-8f;
    }
    const vf u = uniform_v(first) + 5.9604644775390625e-8f;  // (0, 1]
    const vf radius = vsqrt(-2.0f * log_v(u));
    for (int j = 0; j < W; ++j) {
      const float angle = angle_part[j] * 6.28318530717958648f;
      out[j] = (j & 1) ? __builtin_sinf(angle) : __builtin_cosf(angle);
    }
    store_to(y + i, mean + std * radius * load(out), m);
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
