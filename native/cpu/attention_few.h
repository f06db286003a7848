// Attention of few queries a sequence, as in decoding: keys are split into pieces, whose results are combined. `Args` is the op's arguments: attention's,
// or those of attention over a cache of another dtype, whose keys and values are restored piece by piece.
#pragma once
#include "attention.h"
#include "half.h"
#include "rows.h"

namespace tunebook {
namespace TB_ISA {

constexpr int64_t kDecodeKeys = 512;  // keys of one task

struct Task {
  int32_t sequence, head;  // decoding: the kv head
  int64_t begin;           // first query of the block; decoding: first key
  float* partial;          // decoding over several tasks: their results, else nullptr
};

inline int64_t pieces_of(const Sequence& s) { return (s.k_len + kDecodeKeys - 1) / kDecodeKeys; }

// One head's keys or values as float32, `stride` apart.
struct Lines {
  const float* data;
  int64_t stride;
};

inline int64_t restored_floats(const attention_args&) { return 0; }
inline Lines key_lines(const attention_args& a, int64_t first, int64_t, int64_t kv, float*) {
  return {a.k.f32() + first * a.k_stride + kv * a.head_dim, a.k_stride};
}
inline Lines value_lines(const attention_args& a, int64_t first, int64_t, int64_t kv, float*) {
  return {a.v.f32() + first * a.v_stride + kv * a.head_dim, a.v_stride};
}
inline int64_t q_stride_of(const attention_args& a) { return a.q_stride; }
inline int64_t o_stride_of(const attention_args& a) { return a.o_stride; }
inline float* lse_of(const attention_args& a) { return a.lse.f32(); }

inline int64_t restored_floats(const attention_cached_args& a) { return 2 * kDecodeKeys * a.head_dim; }
inline void restore_lines(const Ref& from, const Ref& absmax, const attention_cached_args& a, int64_t first, int64_t count, int64_t kv, float* to) {
  const int64_t dim = a.head_dim;
  if (from.dtype == DType::UInt8) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t head = (first + i) * a.kv_heads + kv;
      const int8_t* q = from.as<int8_t>() + head * dim;
      const float scale = absmax.f32()[head] * (1.0f / 127.0f);
      for (int64_t d = 0; d < dim; ++d) to[i * dim + d] = (float)q[d] * scale;
    }
    return;
  }
  with_float_dtype(from.dtype, [&](auto type) {
    const auto* base = static_cast<decltype(type)>(from.data);
    for (int64_t i = 0; i < count; ++i) {
      const auto* x = base + ((first + i) * a.kv_heads + kv) * dim;
      for_vectors(dim, [=](int64_t d, int64_t m) { store_to(to + i * dim + d, load_as(x + d, m), m); });
    }
  });
}
inline Lines key_lines(const attention_cached_args& a, int64_t first, int64_t count, int64_t kv, float* room) {
  restore_lines(a.keys, a.key_absmax, a, first, count, kv, room);
  return {room, a.head_dim};
}
inline Lines value_lines(const attention_cached_args& a, int64_t first, int64_t count, int64_t kv, float* room) {
  restore_lines(a.values, a.value_absmax, a, first, count, kv, room + kDecodeKeys * a.head_dim);
  return {room + kDecodeKeys * a.head_dim, a.head_dim};
}
inline int64_t q_stride_of(const attention_cached_args& a) { return a.heads * a.head_dim; }
inline int64_t o_stride_of(const attention_cached_args& a) { return a.heads * a.head_dim; }
inline float* lse_of(const attention_cached_args&) { return nullptr; }

// scores[i] = q . k_i for four keys at a time
TB_INLINE void dot_keys(const float* q, const float* k, int64_t stride, int64_t keys, int64_t dim, float* scores) {
  int64_t i = 0;
  for (; i + 4 <= keys; i += 4) {
    const float* row = k + i * stride;
    vf a0 = {}, a1 = {}, a2 = {}, a3 = {};
    for_vectors(dim, [&](int64_t d, int64_t m) {
      const vf x = load_to(q + d, m);
      a0 += x * load_to(row + d, m);
      a1 += x * load_to(row + stride + d, m);
      a2 += x * load_to(row + 2 * stride + d, m);
      a3 += x * load_to(row + 3 * stride + d, m);
    });
    scores[i] = hsum(a0);
    scores[i + 1] = hsum(a1);
    scores[i + 2] = hsum(a2);
    scores[i + 3] = hsum(a3);
  }
  for (; i < keys; ++i) scores[i] = row_dot(q, k + i * stride, dim);
}

// Few queries: rows are the queries of all heads that share a kv head. A partial result is, a row, maximum, sum and the unscaled output.
template <class Args>
void attend_few(const Args& a, const Sequence& s, const Task& task) {
  const int64_t dim = a.head_dim, group = a.heads / a.kv_heads, rows = s.q_len * group, kv = task.head;
  const int64_t begin = task.begin, keys = s.k_len - begin < kDecodeKeys ? s.k_len - begin : kDecodeKeys;
  const int64_t whole = dim / W * W;
  float* scores = scratch_f32(1, rows * (kDecodeKeys + dim) + dim + restored_floats(a));
  float *out = scores + rows * kDecodeKeys, *scaled = out + rows * dim;
  const Lines k = key_lines(a, s.k_begin + begin, keys, kv, scaled + dim), v = value_lines(a, s.k_begin + begin, keys, kv, scaled + dim);
  const Sight sight(a, s);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t i = r / group, head = kv * group + r % group;
    const float* q = a.q.f32() + (s.q_begin + i) * q_stride_of(a) + head * dim;
    for (int64_t d = 0; d < dim; ++d) scaled[d] = q[d] * (a.scale * kLog2e);
    float* row = scores + r * kDecodeKeys;
    int64_t low = sight.low(i) - begin, high = sight.high(i) - begin + 1;  // [low, high) of this piece
    low = low < 0 ? 0 : low > keys ? keys : low;
    high = high > keys ? keys : high < low ? low : high;
    for (int64_t c = 0; c < low; ++c) row[c] = 0.0f;
    for (int64_t c = high; c < keys; ++c) row[c] = 0.0f;
    dot_keys(scaled, k.data + low * k.stride, k.stride, high - low, dim, row + low);
    const float maximum = row_max(row + low, high - low);
    const float shift = maximum > -kInf ? maximum : 0.0f;
    const float sum = sum_of(high - low, [=](int64_t c, int64_t m) {
      const vf p = exp2_negative_v(load_to(row + low + c, m) - shift);
      store_to(row + low + c, p, m);
      return zero_past(p, m);
    });
    if (task.partial) {
      task.partial[r * (dim + 2)] = maximum;
      task.partial[r * (dim + 2) + 1] = sum;
    } else {
      const float factor = sum == 0.0f ? 0.0f : 1.0f / sum;
      for_vectors(keys, [=](int64_t c, int64_t m) { store_to(row + c, load_to(row + c, m) * factor, m); });
      if (float* lse = lse_of(a)) lse[(s.q_begin + i) * a.heads + head] = maximum * kLn2 + __builtin_logf(sum);
    }
  }
  small_gemm<Into::Store>(rows, whole, keys, scores, kDecodeKeys, 1, v.data, v.stride, out, dim);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t d = whole; d < dim; ++d) {
      float total = 0.0f;
      for (int64_t c = 0; c < keys; ++c) total += scores[r * kDecodeKeys + c] * v.data[c * v.stride + d];
      out[r * dim + d] = total;
    }
    float* to = task.partial ? task.partial + r * (dim + 2) + 2 : a.o.f32() + (s.q_begin + r / group) * o_stride_of(a) + (kv * group + r % group) * dim;
    memcpy(to, out + r * dim, (size_t)dim * 4);
  }
}

// One result from the pieces of one kv head of a sequence, in the order of the keys.
template <class Args>
void combine(const Args& a, const Sequence& s, int64_t kv, const float* partial, int64_t pieces) {
  const int64_t dim = a.head_dim, group = a.heads / a.kv_heads, rows = s.q_len * group, width = dim + 2;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t i = s.q_begin + r / group, head = kv * group + r % group;
    float* o = a.o.f32() + i * o_stride_of(a) + head * dim;
    float maximum = -kInf, sum = 0.0f;
    for (int64_t p = 0; p < pieces; ++p) {
      const float m = partial[(p * rows + r) * width];
      maximum = m > maximum ? m : maximum;
    }
    const float shift = maximum > -kInf ? maximum : 0.0f;
    memset(o, 0, (size_t)dim * 4);
    for (int64_t p = 0; p < pieces; ++p) {
      const float* from = partial + (p * rows + r) * width;
      const float factor = exp2_negative_v(splat(from[0] - shift))[0];
      sum += from[1] * factor;
      for_vectors(dim, [=](int64_t d, int64_t m) { store_to(o + d, load_to(o + d, m) + load_to(from + 2 + d, m) * factor, m); });
    }
    const float factor = sum == 0.0f ? 0.0f : 1.0f / sum;
    for_vectors(dim, [=](int64_t d, int64_t m) { store_to(o + d, load_to(o + d, m) * factor, m); });
    if (float* lse = lse_of(a)) lse[i * a.heads + head] = maximum * kLn2 + __builtin_logf(sum);
  }
}

}  // namespace TB_ISA
}  // namespace tunebook
