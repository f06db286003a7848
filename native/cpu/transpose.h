// Transposing a block, 4 x 4 at a time in registers.
#pragma once
#include "simd.h"

namespace tunebook {
namespace TB_ISA {

// y[c * y_row + r] = x[r * x_row + c], times scale if asked; without it any 4-byte items are moved unchanged.
template <bool scaled>
static void transpose_block(const float* x, int64_t x_row, int64_t rows, int64_t cols, float scale, float* y, int64_t y_row) {
  const auto item = [scale](const float* from, float* to) {
    if (scaled) *to = *from * scale;
    else memcpy(to, from, 4);
  };
  int64_t r = 0;
#if defined(__SSE2__)
  const __m128 s = _mm_set1_ps(scale);
  for (; r + 4 <= rows; r += 4) {
    const float* from = x + r * x_row;
    float* to = y + r;
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
      __m128 v[4] = {_mm_loadu_ps(from + c), _mm_loadu_ps(from + x_row + c), _mm_loadu_ps(from + 2 * x_row + c), _mm_loadu_ps(from + 3 * x_row + c)};
      _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
      for (int k = 0; k < 4; ++k) _mm_storeu_ps(to + (c + k) * y_row, scaled ? _mm_mul_ps(v[k], s) : v[k]);
    }
    for (; c < cols; ++c)
      for (int k = 0; k < 4; ++k) item(from + k * x_row + c, to + c * y_row + k);
  }
#endif
  for (; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) item(x + r * x_row + c, y + c * y_row + r);
}

TB_INLINE void transpose(const float* x, int64_t x_row, int64_t rows, int64_t cols, float* y, int64_t y_row) {
  transpose_block<false>(x, x_row, rows, cols, 1.0f, y, y_row);
}
TB_INLINE void transpose_scaled(const float* x, int64_t x_row, int64_t rows, int64_t cols, float scale, float* y, int64_t y_row) {
  transpose_block<true>(x, x_row, rows, cols, scale, y, y_row);
}

}  // namespace TB_ISA
}  // namespace tunebook
