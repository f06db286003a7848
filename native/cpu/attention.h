// What forward and backward attention share: the arguments' checks, the sequences, which keys a query sees.
#pragma once
#include "checks.h"
#include "parallel.h"
#include "tile.h"
#include "vmath.h"

namespace tunebook {
namespace TB_ISA {

// 64 queries are the lanes of a block: scores stand transposed, keys x queries, so that K and V are read where they are, the softmax
// needs no sum across lanes, and only q (and o) are transposed.
constexpr int64_t kQueries = 64;
constexpr int64_t kKeys = 64;

TB_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Sequence {
  int64_t q_begin, q_len, k_begin, k_len;
};

template <class Args>
inline int64_t causal_of(const Args& a) { return a.causal; }
inline int64_t causal_of(const attention_cached_args&) { return 1; }

// Keys that query i sees: [low, high].
struct Sight {
  int64_t causal, window, shift, k_len;
  template <class Args>
  Sight(const Args& a, const Sequence& s) : causal(causal_of(a)), window(a.window), shift(s.k_len - s.q_len), k_len(s.k_len) {}
  int64_t high(int64_t i) const { return causal ? shift + i : k_len - 1; }
  int64_t low(int64_t i) const {
    const int64_t least = window > 0 ? high(i) - window + 1 : 0;
    return least > 0 ? least : 0;
  }
};

// Counts, and where the sequences stand.
template <class Args>
inline void check_sequences(const Args& a) {
  check_size("sequences", a.sequences);
  check_size("q_rows", a.q_rows);
  check_size("k_rows", a.k_rows);
  check_size("heads", a.heads, 1);
  check_size("kv_heads", a.kv_heads, 1);
  check_size("head_dim", a.head_dim, 1);
  check_size("window", a.window);
  if (a.head_dim > 256) fail("head_dim is %lld, expected at most 256", (long long)a.head_dim);
  if (a.heads % a.kv_heads != 0) fail("heads %lld is no multiple of kv_heads %lld", (long long)a.heads, (long long)a.kv_heads);
  check_tensor("q_begin", a.q_begin, a.sequences, DType::Int32);
  check_tensor("q_len", a.q_len, a.sequences, DType::Int32);
  check_tensor("k_begin", a.k_begin, a.sequences, DType::Int32);
  check_tensor("k_len", a.k_len, a.sequences, DType::Int32);
}

template <class Args>
inline void check_attention(const Args& a) {
  check_sequences(a);
  if (!(a.dropout >= 0.0f && a.dropout < 1.0f)) fail("dropout is %g, expected at least 0 and less than 1", (double)a.dropout);
  const int64_t q_width = product(a.heads, a.head_dim), k_width = product(a.kv_heads, a.head_dim);
  check_stride("q_stride", a.q_stride, q_width, a.q_rows);
  check_stride("o_stride", a.o_stride, q_width, a.q_rows);
  check_stride("k_stride", a.k_stride, k_width, a.k_rows);
  check_stride("v_stride", a.v_stride, k_width, a.k_rows);
  check_tensor("q", a.q, span(a.q_rows, q_width, a.q_stride));
  check_tensor("k", a.k, span(a.k_rows, k_width, a.k_stride));
  check_tensor("v", a.v, span(a.k_rows, k_width, a.v_stride));
  check_tensor("o", a.o, span(a.q_rows, q_width, a.o_stride));
  check_tensor("lse", a.lse, product(a.q_rows, a.heads));
}

template <class Args>
inline Sequence sequence_of(const Args& a, int64_t s) {
  return {a.q_begin.i32()[s], a.q_len.i32()[s], a.k_begin.i32()[s], a.k_len.i32()[s]};
}

// Marks rows [begin, begin + len) of `rows`; no two sequences may own one row.
inline void claim_rows(const char* name, uint8_t* owned, int64_t rows, int64_t begin, int64_t len, int64_t s) {
  if (begin < 0 || len < 0 || begin + len > rows)
    fail("sequence %lld: %s rows %lld..%lld are outside the %lld rows", (long long)s,
         name, (long long)begin, (long long)(begin + len), (long long)rows);
  for (int64_t r = begin; r < begin + len; ++r) {
    if (owned[r]) fail("sequence %lld: %s row %lld belongs to another sequence too", (long long)s, name, (long long)r);
    owned[r] = 1;
  }
}

// Which probabilities are dropped, and what the others are multiplied by: a product of two numbers, so that both passes find the same in
// any order (ops.def).
struct Drop {
  uint32_t seed, threshold;
  float factor;
  template <class Args>
  explicit Drop(const Args& a)
      : seed((uint32_t)a.seed), threshold((uint32_t)((double)a.dropout * 4294967296.0)), factor(1.0f / (1.0f - a.dropout)) {}
  static uint32_t mix(uint32_t h) {
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
  }
  uint32_t of_row(int64_t row, int64_t heads, int64_t head) const { return mix(seed + (uint32_t)(row * heads + head)) | 1; }
  uint32_t of_key(int64_t key) const { return mix(seed ^ (uint32_t)(key + 1) * 0x9e3779b1u) | 1; }
  // For the queries of these lanes, whose numbers are `rows`.
  vf gain(vi rows, uint32_t of_key) const { return (vu)rows * of_key < threshold + vu{} ? splat(0.0f) : splat(factor); }
};

// The numbers of a block's queries, lane by lane, and of keys [k0, k0 + keys).
TB_INLINE void fill_numbers(const Drop& drop, int64_t row, int64_t queries, int64_t heads, int64_t head, int32_t* of_rows) {
  for (int64_t i = 0; i < kQueries; ++i) of_rows[i] = i < queries ? (int32_t)drop.of_row(row + i, heads, head) : 0;
}
TB_INLINE void fill_numbers(const Drop& drop, int64_t k0, int64_t keys, uint32_t* of_keys) {
  for (int64_t k = 0; k < keys; ++k) of_keys[k] = drop.of_key(k0 + k);
}

// Scores of keys k0 .. k0 + keys outside the sight of their query become -infinity.
TB_INLINE void hide(float* scores, int64_t k0, int64_t keys, int64_t lanes_used, const int32_t* low, const int32_t* high) {
  for (int64_t j = 0; j < lanes_used; j += W) {
    const vi first = load_i(low + j), last = load_i(high + j);
    for (int64_t k = 0; k < keys; ++k) {
      const vi at = splat_i((int32_t)(k0 + k));
      float* s = scores + k * kQueries + j;
      store(s, at < first ? splat(-kInf) : at > last ? splat(-kInf) : load(s));
    }
  }
}

// The sight of the block's queries, lane by lane; lanes without a query see as the last one does.
TB_INLINE void fill_sight(const Sight& sight, int64_t i0, int64_t queries, int32_t* low, int32_t* high) {
  for (int64_t i = 0; i < kQueries; ++i) {
    const int64_t at = i0 + (i < queries ? i : queries - 1);
    low[i] = (int32_t)sight.low(at);
    high[i] = (int32_t)sight.high(at);
  }
}

}  // namespace TB_ISA
}  // namespace tunebook
