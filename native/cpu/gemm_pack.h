// Packing: A into slivers of kMR rows, B into panels of kNR columns, in the order in which the microkernel reads them.
#pragma once
#include <utility>

#include "gemm_kernel.h"

namespace tunebook {
namespace TB_ISA {

template <int S, int... L>
TB_INLINE void exchange(vf& a, vf& b, std::integer_sequence<int, L...>) {
  const vf low = __builtin_shufflevector(a, b, (L & S ? W + L - S : L)...);
  const vf high = __builtin_shufflevector(a, b, (L & S ? W + L : L + S)...);
  a = low;
  b = high;
}
template <int S>
TB_INLINE void transpose_step(vf* r) {
TB_UNROLL(16)
  for (int i = 0; i < W; i++) {
    if (!(i & S)) exchange<S>(r[i], r[i + S], std::make_integer_sequence<int, W>());
  }
}
// Transposes W x W floats in registers: log2(W) rounds, each exchanging the off-diagonal blocks of one size.
TB_INLINE void transpose(vf* r) {
#if TB_AVX512
  transpose_step<8>(r);
#endif
#if TB_AVX2
  transpose_step<4>(r);
#endif
  transpose_step<2>(r);
  transpose_step<1>(r);
}

// out[p * stride + i] = x[i * row + p] for i < n (at most W), p < k; the lanes n .. width - 1 become zero. width is a sliver's or panel's part, at most W.
static void pack_across(float* out, int64_t stride, int64_t width, const float* x, int64_t row, int64_t n, int64_t k) {
  for (int64_t p = 0; p < k; p += W) {
    const int64_t left = k - p < W ? k - p : W;
    vf r[W];
    if (left == W && n == W) {
TB_UNROLL(16)
      for (int i = 0; i < W; i++) r[i] = load(x + i * row + p);
    } else {
TB_UNROLL(16)
      for (int i = 0; i < W; i++) r[i] = i < n ? load_to(x + i * row + p, left) : vf{};
    }
    transpose(r);
    float* to = out + p * stride;
    if (left == W && width == W) {
TB_UNROLL(16)
      for (int i = 0; i < W; i++) store(to + i * stride, r[i]);
    } else {
TB_UNROLL(16)
      for (int i = 0; i < W; i++) {
        if (i < left) store_to(to + i * stride, r[i], width);
      }
    }
  }
}

// out[p * stride + i] = x[p * row + i] for i < n, p < k; the lanes up to width become zero.
static void pack_along(float* out, int64_t stride, int64_t width, const float* x, int64_t row, int64_t n, int64_t k) {
  if (n == width) {
    for (int64_t p = 0; p < k; p++) {
      for (int64_t i = 0; i < width; i += W) store_to(out + p * stride + i, load_to(x + p * row + i, width - i < W ? width - i : W), width - i < W ? width - i : W);
    }
    return;
  }
  for (int64_t p = 0; p < k; p++) {
    for (int64_t i = 0; i < width; i++) out[p * stride + i] = i < n ? x[p * row + i] : 0.0f;
  }
}

static void pack_any(float* out, int64_t stride, int64_t width, const float* x, int64_t along, int64_t across, int64_t n, int64_t k) {
  for (int64_t p = 0; p < k; p++) {
    for (int64_t i = 0; i < width; i++) out[p * stride + i] = i < n ? x[p * along + i * across] : 0.0f;
  }
}

// `width` lanes of operand x, k long: lane i, step p at x[i * across + p * along].
TB_INLINE void pack(float* out, int64_t width, const float* x, int64_t across, int64_t along, int64_t n, int64_t k) {
  if (along == 1 && across != 1) {
    for (int64_t i = 0; i < width; i += W) {
      const int64_t part = width - i < W ? width - i : W;
      const int64_t valid = n - i < 0 ? 0 : n - i < part ? n - i : part;
      pack_across(out + i, width, part, x + i * across, across, valid, k);
    }
  } else if (across == 1) {
    pack_along(out, width, width, x, along, n, k);
  } else {
    pack_any(out, width, width, x, along, across, n, k);
  }
}

// The dense right operand: element (p, j) at data[p * row + j * col].
struct DenseB {
  const float* data;
  int64_t row, col;

  // Panels of columns [j, j + n), rows [p, p + k), each panel k * kNR floats.
  void pack_panels(float* out, int64_t p, int64_t k, int64_t j, int64_t n) const {
    for (int64_t c = 0; c < n; c += kNR, out += k * kNR) {
      pack(out, kNR, data + p * row + (j + c) * col, col, row, n - c < kNR ? n - c : kNR, k);
    }
  }
};

// The left operand: element (i, p) at data[i * row + p * col].
struct DenseA {
  const float* data;
  int64_t row, col;

  // Slivers of rows [i, i + m), columns [p, p + k), each sliver k * height floats.
  void pack_slivers(float* out, int64_t height, int64_t i, int64_t m, int64_t p, int64_t k) const {
    for (int64_t r = 0; r < m; r += height, out += k * height) {
      pack(out, height, data + (i + r) * row + p * col, row, col, m - r < height ? m - r : height, k);
    }
  }
};

}  // namespace TB_ISA
}  // namespace tunebook
