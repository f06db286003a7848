// Products of a quantised weight (out x in) with a few rows more than gemv.h takes, as decoding of several sequences brings them: a row of the weight is
// restored once, to the words in which it is multiplied, and meets all rows of A while it stands in the first-level cache.
#pragma once
#include "gemv.h"
#include "restored.h"

namespace tunebook {
namespace TB_ISA {

constexpr int kFewM = TB_AVX512 ? 8 : 4;  // rows of A that are multiplied at once
constexpr int kFewR = W / kFewM;          // rows of the weight with them: W sums together, which one vector takes

// Above so many rows a packed panel is worth its making.
constexpr int64_t kFewMost = TB_AVX512 ? 32 : 16;

template <int S>
TB_INLINE void sum_step(vf* r) {
TB_UNROLL(8)
  for (int i = 0; i < S; i++) {
    exchange<S>(r[i], r[i + S], std::make_integer_sequence<int, W>());
    r[i] += r[i + S];
  }
}
// W vectors become one: its lane i is the sum of vector i.
TB_INLINE vf sums_of(vf* r) {
#if TB_AVX512
  sum_step<8>(r);
#endif
#if TB_AVX2
  sum_step<4>(r);
#endif
  sum_step<2>(r);
  sum_step<1>(r);
  return r[0];
}

// kFewM rows of A meet kFewR of the weight, all of them words `stride` apart: lane r * kFewM + i is the sum for rows i and r.
template <class P>
TB_INLINE vf few_sums(int64_t words, const float* a, const float* w, int64_t stride) {
  vf acc[W];
TB_UNROLL(16)
  for (int l = 0; l < W; l++) acc[l] = vf{};
  for (int64_t p = 0; p < words; p += W) {
    vf line[kFewR];
TB_UNROLL(4)
    for (int r = 0; r < kFewR; r++) line[r] = load(w + r * stride + p);
TB_UNROLL(8)
    for (int i = 0; i < kFewM; i++) {
      const vf x = load(a + i * stride + p);
TB_UNROLL(4)
      for (int r = 0; r < kFewR; r++) P::add(acc[r * kFewM + i], x, line[r]);
    }
  }
  return sums_of(acc);
}

// y = alpha * A W^T + beta * y + bias for W of n rows of k elements (restored.h), row_bytes as they are stored.
template <class P, class Weight>
static void gemm_few(int64_t m, int64_t n, int64_t k, const DenseA& a, const Weight& w, int64_t row_bytes, const Epilogue& e) {
  const int64_t words = words_of<P>(k), stride = ceil_div(words, W) * W, height = ceil_div(m, kFewM) * kFewM;
  float* rows = scratch_f32(4, height * stride);
  for (int64_t i = 0; i < height; i++) {
    float* to = rows + i * stride;
    if (i >= m) {
      memset(to, 0, (size_t)stride * 4);
      continue;
    }
    constexpr int64_t kStep = P::kPair * W;
    for (int64_t p = 0; p < k; p += kStep, to += W) store(to, P::along(a.data + i * a.row + p, k - p < kStep ? k - p : kStep));
  }
  weight_rows(n, row_bytes, [&](int64_t begin, int64_t end) {
    float* lines = scratch_f32(5, kFewR * stride);
    for (int64_t j = begin; j < end; j += kFewR) {
      for (int r = 0; r < kFewR; r++) {
        if (j + r < end) w.template words<P>(j + r, 0, k, lines + r * stride);
      }
      for (int64_t i = 0; i < height; i += kFewM) {
        alignas(64) float sums[W];
        store(sums, few_sums<P>(words, rows + i * stride, lines, stride));
        const Epilogue at{e.alpha, e.beta, e.y + i * e.ldy, e.ldy, e.bias};
        const int64_t valid = m - i < kFewM ? m - i : kFewM;
        for (int r = 0; r < kFewR && j + r < end; r++) {
          for (int64_t l = 0; l < valid; l++) finish(at, l, j + r, sums[r * kFewM + l]);
        }
      }
    }
  });
}

}  // namespace TB_ISA
}  // namespace tunebook
