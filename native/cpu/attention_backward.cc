// isa: portable avx2 avx512
// Gradients of attention: probabilities are computed again from lse, block by block (Dao et al. 2022). A task owns the gradients that it
// adds to, and every sum has one order, so the result is the same each time.
#include "attention.h"
#include "rows.h"

namespace tunebook {
namespace TB_ISA {
namespace {

// With fewer (sequence, kv head) pairs than this, every query head becomes a task with its own dk and dv, which are added afterwards.
constexpr int64_t kEnoughTasks = 16;

struct Block {
  float *qt, *dot, *q, *d_o, *dqt, *scores, *dscores, *delta, *lse;
  int32_t *low, *high, *of_rows;
  Block(int64_t dim, int64_t padded) {
    qt = scratch_f32(1, (3 * dim + 2 * padded + 2 * kKeys + 5) * kQueries);  // q transposed, in units of log2
    dot = qt + dim * kQueries;                                               // do transposed
    dqt = dot + dim * kQueries;                                              // dq transposed, running
    q = dqt + dim * kQueries;                                                // rows, padded to whole vectors
    d_o = q + padded * kQueries;
    scores = d_o + padded * kQueries;
    dscores = scores + kKeys * kQueries;
    delta = dscores + kKeys * kQueries;  // rowsum(do * o)
    lse = delta + kQueries;
    low = reinterpret_cast<int32_t*>(lse + kQueries);
    high = low + kQueries;
    of_rows = high + kQueries;
  }
};

void copy_padded(const float* x, int64_t stride, int64_t rows, int64_t dim, float* y, int64_t padded) {
  for (int64_t r = 0; r < kQueries; ++r) {
    float* to = y + r * padded;
    const int64_t n = r < rows ? dim : 0;
    memcpy(to, x + r * stride, (size_t)n * 4);
    for (int64_t d = n; d < padded; ++d) to[d] = 0.0f;
  }
}

// scores become probabilities, dscores (do . v) become the gradient of the scaled scores times scale.
void differentiate(const Block& b, int64_t keys, int64_t lanes_used, float scale) {
  for (int64_t j = 0; j < lanes_used; j += W) {
    const vf lse = load(b.lse + j), delta = load(b.delta + j);
    for (int64_t k = 0; k < keys; ++k) {
      float *s = b.scores + k * kQueries + j, *ds = b.dscores + k * kQueries + j;
      const vf p = exp2_negative_v(load(s) - lse);
      store(s, p);
      store(ds, p * (load(ds) - delta) * scale);
    }
  }
}

// The same where probabilities were dropped: those that dv takes, and the gradients that come through them.
void differentiate_dropped(const Block& b, const Drop& drop, int64_t k0, int64_t keys, int64_t lanes_used, float scale) {
  uint32_t of_keys[kKeys];
  fill_numbers(drop, k0, keys, of_keys);
  for (int64_t j = 0; j < lanes_used; j += W) {
    const vf lse = load(b.lse + j), delta = load(b.delta + j);
    const vi rows = load_i(b.of_rows + j);
    for (int64_t k = 0; k < keys; ++k) {
      float *s = b.scores + k * kQueries + j, *ds = b.dscores + k * kQueries + j;
      const vf p = exp2_negative_v(load(s) - lse), gain = drop.gain(rows, of_keys[k]);
      store(s, p * gain);
      store(ds, p * (load(ds) * gain - delta) * scale);
    }
  }
}

// dk, dv: k_len x padded, added to; dq written.
void backward_block(const attention_backward_args& a, const Sequence& s, int64_t head, int64_t i0, float* dk, float* dv) {
  const int64_t dim = a.head_dim, padded = round_up(dim, W);
  const int64_t queries = s.q_len - i0 < kQueries ? s.q_len - i0 : kQueries, lanes_used = round_up(queries, W), kv = head / (a.heads / a.kv_heads);
  const Block b(dim, padded);
  const int64_t row = s.q_begin + i0;
  const float *q = a.q.f32() + row * a.q_stride + head * dim, *o = a.o.f32() + row * a.o_stride + head * dim;
  const float* d_o = a.do_.f32() + row * a.o_stride + head * dim;
  if (queries < lanes_used) memset(b.qt, 0, (size_t)(2 * dim * kQueries) * 4);
  transpose_scaled(q, a.q_stride, queries, dim, a.scale * kLog2e, b.qt, kQueries);
  transpose(d_o, a.o_stride, queries, dim, b.dot, kQueries);
  copy_padded(q, a.q_stride, queries, dim, b.q, padded);
  copy_padded(d_o, a.o_stride, queries, dim, b.d_o, padded);
  for (int64_t i = 0; i < kQueries; ++i) {
    const float lse = i < queries ? a.lse.f32()[(row + i) * a.heads + head] : -kInf;
    b.lse[i] = lse == -kInf ? kInf : lse * kLog2e;  // nothing seen: every probability is 2^-inf
    b.delta[i] = i < queries ? row_dot(o + i * a.o_stride, d_o + i * a.o_stride, dim) : 0.0f;
  }
  const Sight sight(a, s);
  fill_sight(sight, i0, queries, b.low, b.high);
  const Drop drop(a);
  if (a.dropout > 0.0f) fill_numbers(drop, row, queries, a.heads, head, b.of_rows);
  const int64_t end = b.high[queries - 1] + 1;
  memset(b.dqt, 0, (size_t)(dim * kQueries) * 4);
  for (int64_t k0 = b.low[0]; k0 < end; k0 += kKeys) {
    const int64_t keys = end - k0 < kKeys ? end - k0 : kKeys;
    const float *k = a.k.f32() + (s.k_begin + k0) * a.k_stride + kv * dim, *v = a.v.f32() + (s.k_begin + k0) * a.v_stride + kv * dim;
    small_gemm<Into::Store>(keys, lanes_used, dim, k, a.k_stride, 1, b.qt, kQueries, b.scores, kQueries);
    if (k0 + keys - 1 > b.high[0] || k0 < b.low[queries - 1]) hide(b.scores, k0, keys, lanes_used, b.low, b.high);
    small_gemm<Into::Store>(keys, lanes_used, dim, v, a.v_stride, 1, b.dot, kQueries, b.dscores, kQueries);
    if (a.dropout > 0.0f) differentiate_dropped(b, drop, k0, keys, lanes_used, a.scale);
    else differentiate(b, keys, lanes_used, a.scale);
    small_gemm<Into::Add>(keys, padded, queries, b.scores, kQueries, 1, b.d_o, padded, dv + k0 * padded, padded);
    small_gemm<Into::Add>(keys, padded, queries, b.dscores, kQueries, 1, b.q, padded, dk + k0 * padded, padded);
    small_gemm<Into::Add>(dim, lanes_used, keys, k, 1, a.k_stride, b.dscores, kQueries, b.dqt, kQueries);
  }
  transpose(b.dqt, kQueries, dim, queries, a.dq.f32() + row * a.q_stride + head * dim, a.q_stride);
}

void backward_head(const attention_backward_args& a, const Sequence& s, int64_t head, float* dk, float* dv) {
  for (int64_t i0 = 0; i0 < s.q_len; i0 += kQueries) backward_block(a, s, head, i0, dk, dv);
}

// to's rows of one kv head = the sum of `count` blocks of `rows` x padded that stand `apart`
void write_rows(const float* from, int64_t count, int64_t apart, int64_t rows, int64_t dim, int64_t padded, float* to, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r)
    for_vectors(dim, [=](int64_t d, int64_t m) {
      vf total = load_to(from + r * padded + d, m);
      for (int64_t c = 1; c < count; ++c) total += load_to(from + c * apart + r * padded + d, m);
      store_to(to + r * stride + d, total, m);
    });
}

void zero_rows(const uint8_t* owned, int64_t rows, float* x, int64_t stride, int64_t width) {
  for (int64_t r = 0; r < rows; ++r)
    if (!owned[r]) memset(x + r * stride, 0, (size_t)width * 4);
}

void attention_backward(const attention_backward_args& a) {
  check_attention(a);
  const int64_t dim = a.head_dim, padded = round_up(dim, W), group = a.heads / a.kv_heads, q_width = a.heads * dim, k_width = a.kv_heads * dim;
  check_tensor("do", a.do_, span(a.q_rows, q_width, a.o_stride));
  check_tensor("dq", a.dq, span(a.q_rows, q_width, a.q_stride));
  check_tensor("dk", a.dk, span(a.k_rows, k_width, a.k_stride));
  check_tensor("dv", a.dv, span(a.k_rows, k_width, a.v_stride));
  uint8_t *q_owned = static_cast<uint8_t*>(scratch(0, a.q_rows + a.k_rows + 1)), *k_owned = q_owned + a.q_rows;
  memset(q_owned, 0, (size_t)(a.q_rows + a.k_rows));
  for (int64_t i = 0; i < a.sequences; ++i) {
    const Sequence s = sequence_of(a, i);
    claim_rows("query", q_owned, a.q_rows, s.q_begin, s.q_len, i);
    claim_rows("key", k_owned, a.k_rows, s.k_begin, s.k_len, i);
  }
  zero_rows(q_owned, a.q_rows, a.dq.f32(), a.q_stride, q_width);
  zero_rows(k_owned, a.k_rows, a.dk.f32(), a.k_stride, k_width);
  zero_rows(k_owned, a.k_rows, a.dv.f32(), a.v_stride, k_width);
  const auto dk_of = [&](const Sequence& s, int64_t kv) { return a.dk.f32() + s.k_begin * a.k_stride + kv * dim; };
  const auto dv_of = [&](const Sequence& s, int64_t kv) { return a.dv.f32() + s.k_begin * a.v_stride + kv * dim; };

  if (group == 1 || a.sequences * a.kv_heads >= kEnoughTasks) {
    parallel_tasks(a.sequences * a.kv_heads, [&](int64_t t) {
      const Sequence s = sequence_of(a, t / a.kv_heads);
      const int64_t kv = t % a.kv_heads, size = s.k_len * padded;
      float *dk = scratch_f32(2, 2 * size), *dv = dk + size;
      memset(dk, 0, (size_t)(2 * size) * 4);
      for (int64_t h = kv * group; h < (kv + 1) * group; ++h) backward_head(a, s, h, dk, dv);
      write_rows(dk, 1, 0, s.k_len, dim, padded, dk_of(s, kv), a.k_stride);
      write_rows(dv, 1, 0, s.k_len, dim, padded, dv_of(s, kv), a.v_stride);
    });
    return;
  }
  // heads x (dk, dv) x k_rows x padded; a key row belongs to one sequence, so that sequences share the blocks.
  const int64_t apart = 2 * a.k_rows * padded;
  float* parts = scratch_f32(3, a.heads * apart);
  parallel_tasks(a.sequences * a.heads, [&](int64_t t) {
    const Sequence s = sequence_of(a, t / a.heads);
    float *dk = parts + t % a.heads * apart + s.k_begin * padded, *dv = dk + a.k_rows * padded;
    memset(dk, 0, (size_t)(s.k_len * padded) * 4);
    memset(dv, 0, (size_t)(s.k_len * padded) * 4);
    backward_head(a, s, t % a.heads, dk, dv);
  });
  parallel_tasks(a.sequences * a.kv_heads, [&](int64_t t) {
    const Sequence s = sequence_of(a, t / a.kv_heads);
    const int64_t kv = t % a.kv_heads;
    const float *dk = parts + kv * group * apart + s.k_begin * padded, *dv = dk + a.k_rows * padded;
    write_rows(dk, group, apart, s.k_len, dim, padded, dk_of(s, kv), a.k_stride);
    write_rows(dv, group, apart, s.k_len, dim, padded, dv_of(s, kv), a.v_stride);
  });
}

}  // namespace

void register_attention_backward(Backend& b) { b.attention_backward = attention_backward; }

}  // namespace TB_ISA
}  // namespace tunebook
