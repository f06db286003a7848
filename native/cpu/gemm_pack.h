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

// Words of x[i * row + p] for lane i < n (at most W), p < k, to out[word * stride + i]; the lanes n .. width - 1 become zero. width is a sliver's or
// panel's part, at most W.
template <class P, class T>
static void pack_across(float* out, int64_t stride, int64_t width, const T* x, int64_t row, int64_t n, int64_t k) {
  constexpr int64_t kStep = P::kPair * W;
  for (int64_t p = 0; p < k; p += kStep, out += W * stride) {
    const int64_t left = k - p < kStep ? k - p : kStep;
    vf r[W];
    if (left == kStep && n == W) {
TB_UNROLL(16)
      for (int i = 0; i < W; i++) r[i] = P::along(x + i * row + p, kStep);
    } else {
TB_UNROLL(16)
      for (int i = 0; i < W; i++) r[i] = i < n ? P::along(x + i * row + p, left) : vf{};
    }
    transpose(r);
    if (left == kStep && width == W) {
TB_UNROLL(16)
      for (int i = 0; i < W; i++) store(out + i * stride, r[i]);
    } else {
      const int64_t words = (left + P::kPair - 1) / P::kPair;
TB_UNROLL(16)
      for (int i = 0; i < W; i++) {
        if (i < words) store_to(out + i * stride, r[i], width);
      }
    }
  }
}

// Words of x[p * row + i] for lane i < n, p < k; the lanes up to width become zero.
template <class P, class T>
static void pack_along(float* out, int64_t stride, int64_t width, const T* x, int64_t row, int64_t n, int64_t k) {
  for (int64_t p = 0; p < k; p += P::kPair, out += stride, x += P::kPair * row) {
    const T* next = P::kPair > 1 && p + 1 < k ? x + row : nullptr;
    for (int64_t i = 0; i < width; i += W) {
      const int64_t part = width - i < W ? width - i : W, valid = n - i < part ? n - i : part;
      store_to(out + i, valid <= 0 ? vf{} : P::across(x + i, next == nullptr ? nullptr : next + i, valid), part);
    }
  }
}

// `width` lanes of operand x, k long: lane i, step p at x[i * across + p * along].
template <class P, class T>
TB_INLINE void pack(float* out, int64_t width, const T* x, int64_t across, int64_t along, int64_t n, int64_t k) {
  if (across == 1) {
    pack_along<P>(out, width, width, x, along, n, k);
  } else if (along == 1) {
    for (int64_t i = 0; i < width; i += W) {
      const int64_t part = width - i < W ? width - i : W;
      const int64_t valid = n - i < 0 ? 0 : n - i < part ? n - i : part;
      pack_across<P>(out + i, width, part, x + i * across, across, valid, k);
    }
  } else {
    for (int64_t p = 0; p < k; p += P::kPair, out += width) {
      for (int64_t i = 0; i < width; i += W) {
        const int64_t part = width - i < W ? width - i : W;
        T lanes0[W] = {}, lanes1[W] = {};
        for (int64_t l = 0; l < part && i + l < n; l++) {
          lanes0[l] = x[p * along + (i + l) * across];
          if (P::kPair > 1 && p + 1 < k) lanes1[l] = x[(p + 1) * along + (i + l) * across];
        }
        store_to(out + i, P::across(lanes0, lanes1, W), part);
      }
    }
  }
}

// Words of k steps.
template <class P>
TB_INLINE int64_t words_of(int64_t k) {
  return (k + P::kPair - 1) / P::kPair;
}

// The dense right operand of element type T: element (p, j) at data[p * row + j * col].
template <class T>
struct DenseB {
  const T* data;
  int64_t row, col;

  // Panels of columns [j, j + n), rows [p, p + k), each panel kNR words a step.
  template <class P>
  void pack_panels(float* out, int64_t p, int64_t k, int64_t j, int64_t n) const {
    for (int64_t c = 0; c < n; c += kNR, out += words_of<P>(k) * kNR) {
      pack<P>(out, kNR, data + p * row + (j + c) * col, col, row, n - c < kNR ? n - c : kNR, k);
    }
  }
};

// The left operand: element (i, p) at data[i * row + p * col].
struct DenseA {
  const float* data;
  int64_t row, col;

  // Slivers of rows [i, i + m), columns [p, p + k), each sliver `height` words a step.
  template <class P>
  void pack_slivers(float* out, int64_t height, int64_t i, int64_t m, int64_t p, int64_t k) const {
    for (int64_t r = 0; r < m; r += height, out += words_of<P>(k) * height) {
      pack<P>(out, height, data + (i + r) * row + p * col, row, col, m - r < height ? m - r : height, k);
    }
  }
};

}  // namespace TB_ISA
}  // namespace tunebook
