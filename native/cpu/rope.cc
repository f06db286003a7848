// isa: portable avx2 avx512
// Rotary position embedding.
#include "checks.h"
#include "op_checks.h"
#include "parallel.h"
#include "simd.h"

namespace tunebook {
namespace TB_ISA {
namespace {

// Pairs (i, i + half). s carries the direction's sign.
TB_INLINE void rotate_halves(const float* x, float* y, const float* cos, const float* sin, int64_t half, float sign) {
  for_vectors(half, [=](int64_t i, int64_t m) {
    const vf a = load_to(x + i, m), b = load_to(x + half + i, m), c = load_to(cos + i, m), s = load_to(sin + i, m) * sign;
    store_to(y + i, a * c - b * s, m);
    store_to(y + half + i, b * c + a * s, m);
  });
}

// Pairs (2i, 2i + 1)
TB_INLINE void rotate_neighbours(const float* x, float* y, const float* cos, const float* sin, int64_t half, float sign) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1], c = cos[i], s = sin[i] * sign;
    y[2 * i] = a * c - b * s;
    y[2 * i + 1] = b * c + a * s;
  }
}

void rope(const rope_args& g) {
  const int64_t width = check_rope(g), half = g.rotary_dim / 2;
  check_tensor("x", g.x, span(g.rows, width, g.x_stride));
  check_tensor("y", g.y, span(g.rows, width, g.y_stride));
  const int32_t* positions = g.positions.i32();
  for (int64_t r = 0; r < g.rows; ++r)
    if (positions[r] < 0 || positions[r] >= g.table_rows)
      fail("position %d at row %lld is outside the table of %lld positions", positions[r], (long long)r, (long long)g.table_rows);
  const float sign = g.inverse ? -1.0f : 1.0f;
  parallel_pieces(g.rows, rows_of(8192, width), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float *cos = g.cos.f32() + positions[r] * half, *sin = g.sin.f32() + positions[r] * half;
      for (int64_t h = 0; h < g.heads; ++h) {
        const float* x = g.x.f32() + r * g.x_stride + h * g.head_dim;
        float* y = g.y.f32() + r * g.y_stride + h * g.head_dim;
        if (g.interleaved) rotate_neighbours(x, y, cos, sin, half, sign);
        else rotate_halves(x, y, cos, sin, half, sign);
        if (x != y && g.rotary_dim < g.head_dim) memcpy(y + g.rotary_dim, x + g.rotary_dim, (size_t)(g.head_dim - g.rotary_dim) * 4);
      }
    }
  });
}

}  // namespace

void register_rope(Backend& b) { b.rope = rope; }

}  // namespace TB_ISA
}  // namespace tunebook
