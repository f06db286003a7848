// isa: portable avx2 avx512
// Attention over packed sequences, forward: blocks of queries x keys with a running softmax (Milakov and Gimelshein 2018; Dao et al. 2022).
#include "attention_few.h"

namespace tunebook {
namespace TB_ISA {
namespace {

constexpr int64_t kFew = 4;  // up to so many queries take the decoding path

// The running maximum and sum of each lane, over one more block of scores; scores become probabilities.
void absorb(float* scores, int64_t keys, int64_t lanes_used, float* maximum, float* sum, float* rescale) {
  for (int64_t j = 0; j < lanes_used; j += W) {
    float* s = scores + j;
    const vf before = load(maximum + j);
    vf m0 = before, m1 = before;
    int64_t k = 0;
    for (; k + 2 <= keys; k += 2) {
      m0 = vmax(load(s + k * kQueries), m0);
      m1 = vmax(load(s + (k + 1) * kQueries), m1);
    }
    if (k < keys) m0 = vmax(load(s + k * kQueries), m0);
    const vf now = vmax(m0, m1);
    const vf shift = now > splat(-kInf) ? now : splat(0.0f);  // nothing seen yet: -inf - 0 stays -inf
    vf s0 = {}, s1 = {};
    for (k = 0; k + 2 <= keys; k += 2) {
      const vf p0 = exp2_negative_v(load(s + k * kQueries) - shift), p1 = exp2_negative_v(load(s + (k + 1) * kQueries) - shift);
      store(s + k * kQueries, p0);
      store(s + (k + 1) * kQueries, p1);
      s0 += p0;
      s1 += p1;
    }
    if (k < keys) {
      const vf p = exp2_negative_v(load(s + k * kQueries) - shift);
      store(s + k * kQueries, p);
      s0 += p;
    }
    const vf factor = exp2_negative_v(before - shift);
    store(rescale + j, factor);
    store(maximum + j, now);
    store(sum + j, load(sum + j) * factor + (s0 + s1));
  }
}

// Probabilities of keys k0 .. k0 + keys: some are dropped.
void drop_some(const Drop& drop, float* scores, int64_t k0, int64_t keys, int64_t lanes_used, const int32_t* of_rows) {
  uint32_t of_keys[kKeys];
  fill_numbers(drop, k0, keys, of_keys);
  for (int64_t j = 0; j < lanes_used; j += W) {
    const vi rows = load_i(of_rows + j);
    for (int64_t k = 0; k < keys; ++k) {
      float* s = scores + k * kQueries + j;
      store(s, load(s) * drop.gain(rows, of_keys[k]));
    }
  }
}

void attend_block(const attention_args& a, const Sequence& s, int64_t head, int64_t i0) {
  const int64_t dim = a.head_dim, queries = s.q_len - i0 < kQueries ? s.q_len - i0 : kQueries, lanes_used = round_up(queries, W);
  const int64_t kv = head / (a.heads / a.kv_heads);
  float* qt = scratch_f32(1, (2 * dim + kKeys + 6) * kQueries);  // q transposed, in units of log2
  float *ot = qt + dim * kQueries, *scores = ot + dim * kQueries, *maximum = scores + kKeys * kQueries, *sum = maximum + kQueries;
  float* rescale = sum + kQueries;
  int32_t *low = reinterpret_cast<int32_t*>(rescale + kQueries), *high = low + kQueries, *of_rows = high + kQueries;
  const int64_t row = s.q_begin + i0;
  const Drop drop(a);
  if (a.dropout > 0.0f) fill_numbers(drop, row, queries, a.heads, head, of_rows);
  if (queries < lanes_used) memset(qt, 0, (size_t)(dim * kQueries) * 4);
  transpose_scaled(a.q.f32() + row * a.q_stride + head * dim, a.q_stride, queries, dim, a.scale * kLog2e, qt, kQueries);
  for (int64_t i = 0; i < kQueries; ++i) maximum[i] = -kInf, sum[i] = 0.0f;
  const Sight sight(a, s);
  fill_sight(sight, i0, queries, low, high);
  const int64_t end = high[queries - 1] + 1;
  bool first = true;
  for (int64_t k0 = low[0]; k0 < end; k0 += kKeys) {
    const int64_t keys = end - k0 < kKeys ? end - k0 : kKeys;
    const float *k = a.k.f32() + (s.k_begin + k0) * a.k_stride + kv * dim, *v = a.v.f32() + (s.k_begin + k0) * a.v_stride + kv * dim;
    small_gemm<Into::Store>(keys, lanes_used, dim, k, a.k_stride, 1, qt, kQueries, scores, kQueries);
    if (k0 + keys - 1 > high[0] || k0 < low[queries - 1]) hide(scores, k0, keys, lanes_used, low, high);
    absorb(scores, keys, lanes_used, maximum, sum, rescale);
    if (a.dropout > 0.0f) drop_some(drop, scores, k0, keys, lanes_used, of_rows);
    if (first) small_gemm<Into::Store>(dim, lanes_used, keys, v, 1, a.v_stride, scores, kQueries, ot, kQueries);
    else small_gemm<Into::Rescale>(dim, lanes_used, keys, v, 1, a.v_stride, scores, kQueries, ot, kQueries, rescale);
    first = false;
  }
  if (first) memset(ot, 0, (size_t)(dim * kQueries) * 4);
  for (int64_t j = 0; j < lanes_used; j += W) {
    const vf total = load(sum + j), factor = total == splat(0.0f) ? splat(0.0f) : 1.0f / total;
    for (int64_t d = 0; d < dim; ++d) store(ot + d * kQueries + j, load(ot + d * kQueries + j) * factor);
    store(sum + j, load(maximum + j) * kLn2 + log_v(total));
  }
  transpose(ot, kQueries, dim, queries, a.o.f32() + row * a.o_stride + head * dim, a.o_stride);
  for (int64_t i = 0; i < queries; ++i) a.lse.f32()[(row + i) * a.heads + head] = sum[i];
}

// Whether a sequence takes the decoding path, and its pieces there: those of keys that its first query, or a later one, sees.
TB_INLINE bool has_few(const attention_args& a, const Sequence& s) { return s.q_len <= kFew && s.k_len > 0 && !(a.dropout > 0.0f); }
TB_INLINE int64_t first_key(const attention_args& a, const Sequence& s) {
  const int64_t low = Sight(a, s).low(0);
  return low < s.k_len ? low : s.k_len - 1;
}
TB_INLINE int64_t pieces_of(const attention_args& a, const Sequence& s) {
  return (s.k_len - first_key(a, s) + kDecodeKeys - 1) / kDecodeKeys;
}

void attention(const attention_args& a) {
  check_attention(a);
  const int64_t group = a.heads / a.kv_heads, width = a.head_dim + 2;
  uint8_t* owned = static_cast<uint8_t*>(scratch(0, a.q_rows + 1));
  memset(owned, 0, (size_t)a.q_rows);
  int64_t count = 0, partials = 0;
  for (int64_t i = 0; i < a.sequences; ++i) {
    const Sequence s = sequence_of(a, i);
    claim_rows("query", owned, a.q_rows, s.q_begin, s.q_len, i);
    if (s.k_begin < 0 || s.k_len < 0 || s.k_begin + s.k_len > a.k_rows)
      fail("sequence %lld: key rows %lld..%lld are outside the %lld rows", (long long)i,
           (long long)s.k_begin, (long long)(s.k_begin + s.k_len), (long long)a.k_rows);
    if (has_few(a, s)) {
      const int64_t pieces = pieces_of(a, s);
      count += a.kv_heads * pieces;
      if (pieces > 1) partials += a.kv_heads * pieces * s.q_len * group * width;
    } else {
      count += a.heads * ((s.q_len + kQueries - 1) / kQueries);
    }
  }
  for (int64_t r = 0; r < a.q_rows; ++r) {
    if (owned[r]) continue;
    memset(a.o.f32() + r * a.o_stride, 0, (size_t)(a.heads * a.head_dim) * 4);
    for (int64_t h = 0; h < a.heads; ++h) a.lse.f32()[r * a.heads + h] = -kInf;
  }
  Task* tasks = static_cast<Task*>(scratch(2, (count + 1) * (int64_t)sizeof(Task)));
  float* partial = scratch_f32(3, partials + 1);
  int64_t n = 0;
  for (int64_t i = 0; i < a.sequences; ++i) {
    const Sequence s = sequence_of(a, i);
    if (has_few(a, s)) {
      const int64_t pieces = pieces_of(a, s), first = first_key(a, s);
      for (int64_t kv = 0; kv < a.kv_heads; ++kv)
        for (int64_t p = 0; p < pieces; ++p) {
          tasks[n++] = {(int32_t)i, (int32_t)kv, first + p * kDecodeKeys, pieces > 1 ? partial : nullptr};
          if (pieces > 1) partial += s.q_len * group * width;
        }
    } else {  // the last blocks see the most keys: they go first, so that threads end together
      for (int64_t b = (s.q_len + kQueries - 1) / kQueries - 1; b >= 0; --b)
        for (int64_t h = 0; h < a.heads; ++h) tasks[n++] = {(int32_t)i, (int32_t)h, b * kQueries, nullptr};
    }
  }
  parallel_tasks(n, [&](int64_t t) {
    const Sequence s = sequence_of(a, tasks[t].sequence);
    if (has_few(a, s)) attend_few(a, s, tasks[t]);
    else attend_block(a, s, tasks[t].head, tasks[t].begin);
  });
  for (int64_t t = 0; t < n; ++t)
    if (tasks[t].partial) {
      const Sequence s = sequence_of(a, tasks[t].sequence);
      if (tasks[t].begin == first_key(a, s)) combine(a, s, tasks[t].head, tasks[t].partial, pieces_of(a, s));
    }
}

}  // namespace

void register_attention(Backend& b) { b.attention = attention; }

}  // namespace TB_ISA
}  // namespace tunebook
