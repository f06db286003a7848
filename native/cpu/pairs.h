// Products of a weight (out x in), quantised or in bfloat16, with a few rows as pairs of bfloat16 (vdpbf16ps), where `compute` allows them: codes are
// looked up or converted to bfloat16 as they stand, and a chunk's products are scaled afterwards, so that a scale costs one operation for many elements.
//
// A row of A is rounded once, its words in the order in which a form's codes come. Every sum runs over the chunks of a row in one order, whatever
// the number of rows and however they are cut: one row alone has the bits that it has among eight.
//
// A form F of a weight has
//   static constexpr int kVectors                      vectors of words in a chunk, which is 32 * kVectors elements
//   static constexpr bool kScaled                      whether a chunk's products are scaled
//   static constexpr bool kHalves                      whether half a chunk at the end of a row has vectors of its own, half as many: the halves of a chunk's
//                                                      four that it fills, two by two (half_words, half_scale)
//   static void along(const float* x, float* to)       a chunk of a row of A as such vectors
//   F near(int64_t begin, int64_t end) const           itself, for work on these rows
//   auto row(int64_t j) const                          one of them:
//     void words(int64_t c, int64_t left, vf* w) const   codes of chunk c, in which `left` elements are left (a whole chunk or less; beyond them any
//                                                        number may stand: A is zero there)
//     vf scales(int64_t c, int64_t left) const           (kScaled) what the lanes of a chunk's sums are multiplied by, finite where A is zero
//     template <int M> void start(int64_t i, vf* acc) const   what is added to the sums of rows i to i + M - 1 of A, which begin with zero
#pragma once
#include "gemm_few.h"

#if TB_BF16

#define TB_MEMBER inline __attribute__((always_inline))

namespace tunebook {
namespace TB_ISA {

// W rows of sums together, as gemm_few.h takes them.
constexpr int kPairM = 8;

// Two vectors of 16-bit words, chosen among 64: the order in which codes of four bits come.
struct Order {
  alignas(64) uint16_t at[64];
};
// A chunk of 128 elements in four vectors. Each half of a vector comes from a half of the chunk, both in the same order: order.at[16 * v + j] is the
// element of word j of vector v.
TB_INLINE void along_order(const Order& order, const float* x, float* to) {
  __m512i in[4], half[4];
TB_UNROLL(4)
  for (int v = 0; v < 4; v++) in[v] = (__m512i)Rounded::along(x + 32 * v, 32);
TB_UNROLL(2)
  for (int h = 0; h < 2; h++) {
    const __m512i index = _mm512_load_si512(order.at + 32 * h);
    half[2 * h] = _mm512_maskz_permutex2var_epi16(~0u, in[0], index, in[1]);
    half[2 * h + 1] = _mm512_maskz_permutex2var_epi16(~0u, in[2], index, in[3]);
  }
TB_UNROLL(2)
  for (int h = 0; h < 2; h++) {
    store(to + 2 * h * W, (vf)_mm512_maskz_shuffle_i64x2(0xff, half[2 * h], half[2 * h + 1], 0x44));
    store(to + (2 * h + 1) * W, (vf)_mm512_maskz_shuffle_i64x2(0xff, half[2 * h], half[2 * h + 1], 0xee));
  }
}

// Four vectors of which the lower halves are filled as two.
TB_INLINE void join_halves(const float* from, float* to) {
TB_UNROLL(2)
  for (int v = 0; v < 2; v++) {
    const __m512i low = _mm512_loadu_si512(from + 2 * v * W), high = _mm512_loadu_si512(from + (2 * v + 1) * W);
    store(to + v * W, (vf)_mm512_maskz_shuffle_i64x2(0xff, low, high, 0x44));
  }
}

// 64 bytes of codes, or the first n: the others are zero.
TB_INLINE __m512i code_bytes(const uint8_t* q, int64_t n) {
  if (n >= 64) return _mm512_loadu_si512(q);
  return _mm512_maskz_loadu_epi8((1ull << n) - 1, q);
}

// The values of one nibble of each 16-bit lane: `table` holds sixteen twice, and of an index five bits are looked at.
TB_INLINE vf look_up(__m512i table, __m512i lanes) { return (vf)_mm512_maskz_permutexvar_epi16(~0u, lanes, table); }
template <int kBits>
TB_INLINE __m512i shifted(__m512i lanes) {
  return _mm512_maskz_srli_epi16(~0u, lanes, kBits);
}
TB_INLINE __m512i table_of(vf values) { return _mm512_maskz_broadcast_i64x4(0xff, (__m256i)_mm512_cvtneps_pbh((__m512)values)); }

// M rows of A, from row `first` on, against R rows of the weight: a vector of sums each. x: their words, those of a chunk together.
template <int M, int R, class F, class Row>
TB_INLINE void pair_sums(const Row* rows, int64_t k, const float* x, int64_t first, vf* sums) {
  constexpr int V = F::kVectors;
  constexpr int64_t kChunk = 32 * V;
  vf acc[R][M];
TB_UNROLL(4)
  for (int r = 0; r < R; r++) {
TB_UNROLL(8)
    for (int i = 0; i < M; i++) acc[r][i] = vf{};
    rows[r].template start<M>(first, acc[r]);
  }
  // The products of U vectors of words.
  const auto multiply = [&](const float* at, const auto& w, const vf* s) __attribute__((always_inline)) {
    constexpr int U = std::extent<std::remove_reference_t<decltype(w)>, 1>::value;
TB_UNROLL(8)
    for (int i = 0; i < M; i++) {
      __m512 p[R];
TB_UNROLL(4)
      for (int r = 0; r < R; r++) p[r] = F::kScaled ? _mm512_setzero_ps() : (__m512)acc[r][i];
TB_UNROLL(4)
      for (int v = 0; v < U; v++) {
        const __m512bh a = (__m512bh)_mm512_loadu_si512(at + (i * U + v) * W);
TB_UNROLL(4)
        for (int r = 0; r < R; r++) p[r] = _mm512_dpbf16_ps(p[r], (__m512bh)(__m512i)w[r][v], a);
      }
TB_UNROLL(4)
      for (int r = 0; r < R; r++) acc[r][i] = F::kScaled ? acc[r][i] + (vf)p[r] * s[r] : (vf)p[r];
    }
  };
  const auto add = [&](int64_t c, int64_t left) __attribute__((always_inline)) {
    vf w[R][V], s[R];
TB_UNROLL(4)
    for (int r = 0; r < R; r++) {
      rows[r].words(c, left, w[r]);
      if constexpr (F::kScaled) s[r] = rows[r].scales(c, left);
    }
    multiply(x + c * M * V * W, w, s);
  };
  const int64_t whole = k / kChunk;
  for (int64_t c = 0; c < whole; c++) add(c, kChunk);
  if constexpr (F::kHalves) {
    if (k % kChunk != 0) {
      vf w[R][V / 2], s[R];
TB_UNROLL(4)
      for (int r = 0; r < R; r++) {
        rows[r].half_words(whole, w[r]);
        s[r] = rows[r].half_scale(whole);
      }
      multiply(x + whole * M * V * W, w, s);
    }
  } else {
    if (k % kChunk != 0) add(whole, k % kChunk);
  }
TB_UNROLL(4)
  for (int r = 0; r < R; r++) {
TB_UNROLL(8)
    for (int i = 0; i < M; i++) sums[r * M + i] = acc[r][i];
  }
}

// The sums of M rows of A, lane r * M + i of vector p for column p * W / M + r: a vector a row.
template <int M, int... L>
TB_INLINE void by_rows(vf* sums, std::integer_sequence<int, L...> lanes) {
  constexpr int G = W / M;
TB_UNROLL(8)
  for (int p = 0; p < M; p++) sums[p] = __builtin_shufflevector(sums[p], sums[p], (L % G * M + L / G)...);
TB_UNROLL(8)
  for (int p = 0; p < M; p++) {
    if (M == 8 && !(p & 4)) exchange<8>(sums[p], sums[p + M / 2], lanes);
  }
TB_UNROLL(8)
  for (int p = 0; p < M; p++) {
    if (M == 8 && !(p & 2)) exchange<4>(sums[p], sums[p + M / 4], lanes);
    if (M == 4 && !(p & 2)) exchange<8>(sums[p], sums[p + M / 2], lanes);
  }
TB_UNROLL(8)
  for (int p = 0; p < M; p++) {
    if (M > 1 && !(p & 1)) exchange<G>(sums[p], sums[p + 1], lanes);
  }
}

// M rows of A, of which `valid` are wanted, against rows [begin, end) of the weight, R of them together. What it works on stands in its own frame,
// not behind references: a row is short, and what is done once a row counts.
template <int M, int R, class F>
static __attribute__((noinline)) void pair_rows(int64_t begin, int64_t end, int64_t k, const F form, const float* x, int64_t first,
                                                int64_t valid, const Epilogue e) {
  constexpr int G = W / M;
  for (int64_t j = begin; j < end; j += W) {
    const int64_t some = end - j < W ? end - j : W;
    vf columns[M] = {};
    for (int64_t p = 0; p * G < some; p++) {
      vf sums[W];
      const auto add = [&](int64_t g) __attribute__((always_inline)) {
        decltype(form.row(0)) rows[R] = {form.row(j + g)};
        for (int l = 1; l < R; l++) rows[l] = form.row(g + l < some ? j + g + l : j + g);
        pair_sums<M, R, F>(rows, k, x, first, sums + (g - p * G) * M);
      };
      if constexpr (G == R) {
        add(p * G);
      } else {
        for (int64_t l = 0; l < W; l++) sums[l] = vf{};
        for (int64_t g = p * G; g < p * G + G && g < some; g += R) add(g);
      }
      columns[p] = sums_of(sums);
    }
    by_rows<M>(columns, std::make_integer_sequence<int, W>());
    const float* bias = e.bias == nullptr ? nullptr : e.bias + j;
    for (int64_t l = 0; l < valid; l++) store_row<1>(columns + l, e, e.y + l * e.ldy + j, bias, some);
  }
}

// y = alpha * A W^T + beta * y + bias for n rows of k elements, row_bytes as they are stored.
template <class F>
static void few_pairs(int64_t m, int64_t n, int64_t k, const DenseA& a, const F& form, int64_t row_bytes, const Epilogue& e) {
  constexpr int64_t kChunk = 32 * F::kVectors, kWords = kChunk / 2;
  // Rows of A stand in groups of eight, the last one of what is left (1, 2, 4 or eight, with rows of zeros), a chunk of all rows of a group together.
  const int64_t stride = ceil_div(k, kChunk) * kWords, groups = ceil_div(m, kPairM);
  const auto height = [&](int64_t i) { return (int64_t)(m - i > 4 ? kPairM : m - i > 2 ? 4 : m - i); };
  float* x = scratch_f32(4, groups * kPairM * stride);
  for (int64_t i = 0; i < groups * kPairM; i++) {
    const int64_t first = i / kPairM * kPairM, rows = height(first);
    if (i - first >= rows) break;
    float* to = x + first * stride + (i - first) * kWords;
    const float* from = a.data + i * a.row;
    for (int64_t p = 0; p < k; p += kChunk, to += rows * kWords) {
      alignas(64) float part[kChunk];
      const int64_t some = i >= m ? 0 : k - p < kChunk ? k - p : kChunk;
      if (some < kChunk) {
        memset(part, 0, sizeof part);
        if (some > 0) memcpy(part, from + p, (size_t)some * 4);
      }
      if (F::kHalves && k - p < kChunk) {
        alignas(64) float words[kWords];
        F::along(part, words);
        join_halves(words, to - (i - first) * (kWords / 2));
      } else {
        F::along(some < kChunk ? part : from + p, to);
      }
    }
  }
  weight_rows(n, row_bytes, [=](int64_t begin, int64_t end) {
    const F near = form.near(begin, end);
    for (int64_t i = 0; i < m; i += kPairM) {
      const Epilogue at{e.alpha, e.beta, e.y + i * e.ldy, e.ldy, e.bias};
      const auto rows_of = [&](auto rows, auto together) {
        constexpr int M = decltype(rows)::value;
        pair_rows<M, decltype(together)::value>(begin, end, k, near, x + i * stride, i, m - i < M ? m - i : M, at);
      };
      const std::integral_constant<int, 1> one{};
      const std::integral_constant<int, 2> two{};
      switch (height(i)) {
        case kPairM: rows_of(std::integral_constant<int, kPairM>{}, two); break;
        case 4: rows_of(std::integral_constant<int, 4>{}, two); break;
        case 2: rows_of(two, two); break;
        default:
          if (k < 1024) {
            rows_of(one, two);
          } else {
            rows_of(one, one);  // a long row: another one beside it only delays it
          }
      }
    }
  });
}

// A weight in bfloat16: words as they stand.
struct WordPairs {
  static constexpr int kVectors = 4;
  static constexpr bool kScaled = false, kHalves = false;
  const bf16* data;
  int64_t ld;

  static void along(const float* x, float* to) {
TB_UNROLL(4)
    for (int v = 0; v < 4; v++) store(to + v * W, Rounded::along(x + 32 * v, 32));
  }
  WordPairs near(int64_t, int64_t) const { return *this; }

  struct Row {
    const bf16* at;

    TB_MEMBER void words(int64_t c, int64_t left, vf* to) const {
      const bf16* from = at + c * 128;
TB_UNROLL(4)
      for (int v = 0; v < 4; v++) {
        __builtin_prefetch(reinterpret_cast<const char*>(from + 32 * v) + kAhead);
        const int64_t some = left - 32 * v;
        to[v] = some <= 0 ? vf{} : Rounded::along(from + 32 * v, some < 32 ? some : 32);
      }
    }
    template <int M>
    TB_MEMBER void start(int64_t, vf*) const {}
  };

  TB_MEMBER Row row(int64_t j) const { return {data + j * ld}; }
};

}  // namespace TB_ISA
}  // namespace tunebook

#endif
