// Attention backward by warpgroup products (compute capability 9.0a), in the two passes of attention_backward.cuh: one warpgroup copies, two multiply, each for 64 keys
// in the first pass and 64 queries in the second.
#pragma once
#include "attention_backward.cuh"
#include "attention_forward_wgmma.cuh"

namespace tunebook {
namespace cuda {
namespace warpgroups {

using tensor_cores::slope;
using tensor_cores::write_floats;

// As pack_operand, with zeros for what is negative.
template <class T> __device__ inline uint32_t pack_positive_pair(float low, float high) {
  uint32_t pair = 0;
  if constexpr (kIsBf16<T>) asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  else asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
template <class T, int kN> __device__ inline void pack_positive(uint32_t (&p)[4], const float (&c)[kN][4], int k) {
#pragma unroll
  for (int i = 0; i < 4; ++i) p[i] = pack_positive_pair<T>(c[2 * k + i / 2][i % 2 * 2], c[2 * k + i / 2][i % 2 * 2 + 1]);
}

template <int D> struct KeyShape {
  static constexpr int kKeys = 2 * 64, kQueries = 64, kStages = 3;
  using Keys = Panels<D, kKeys>;
  using Queries = Panels<D, kQueries>;
  static constexpr int kBytes = 2 * Keys::kBytes + kStages * (2 * Queries::kBytes + 3 * kQueries * 4) + Pipeline<kStages>::kBytes;
};

template <class T, int D, bool kDrop> __global__ void __launch_bounds__(kBlock, 1) key_gradients(BackwardArgs<T> p) {
  using Shape = KeyShape<D>;
  using Keys = typename Shape::Keys;
  using Queries = typename Shape::Queries;
  constexpr int kQueries = Shape::kQueries, kKeys = Shape::kKeys, kStages = Shape::kStages;
  const AttentionSizes& a = p.a;
  const int index = blockIdx.x / (a.kv_heads * p.parts), kv = blockIdx.x / p.parts % a.kv_heads, part = blockIdx.x % p.parts;
  if (index >= *p.keys.count) return;
  const Tile tile = p.keys.tiles[index];
  const Span& span = tile.span;
  const int first_head = kv * a.group + part * a.group / p.parts, last_head = kv * a.group + (part + 1) * a.group / p.parts;
  int begin, end;  // queries that see keys of the tile
  span.queries_of(a, tile.first, tile.first + tile.count - 1, &begin, &end);
  const int tiles = end > begin ? (end - begin + kQueries - 1) / kQueries : 0, steps = tiles * (last_head - first_head);
  const int64_t first_row = span.k_begin + tile.first;

  char* const shared = shared_memory();
  const uint32_t k_at = shared_address(shared), v_at = k_at + Keys::kBytes, q_at = v_at + Keys::kBytes, do_at = q_at + kStages * Queries::kBytes;
  const uint32_t numbers_at = do_at + kStages * Queries::kBytes;  // a stage: lse2, delta, the numbers of dropout
  const float* const numbers = reinterpret_cast<const float*>(shared + (numbers_at - k_at));
  const Pipeline<kStages> line{numbers_at + kStages * 3 * kQueries * 4};
  if (threadIdx.x == 0) line.init(kGroup);
  __syncthreads();

  if (threadIdx.x < kGroup) {
    give_registers<kCopyRegisters>();
    const int me = threadIdx.x;
    if (steps > 0) {
      copy_panels<T, D, kKeys, kGroup>(k_at, p.k + first_row * a.k_stride + kv * a.head_dim, a.k_stride, tile.count, a.head_dim, me);
      copy_panels<T, D, kKeys, kGroup>(v_at, p.v + first_row * a.v_stride + kv * a.head_dim, a.v_stride, tile.count, a.head_dim, me);
    }
    int head = first_head, from = begin;  // what is copied next: all tiles of a head, then the next head's
    for (int step = 0; step < steps; ++step) {
      line.wait_empty(step);
      const int stage = step % kStages, valid = span.q_len - from;
      const int64_t row = span.q_begin + from;
      copy_panels<T, D, kQueries, kGroup>(q_at + stage * Queries::kBytes, p.q + row * a.q_stride + head * a.head_dim, a.q_stride, valid, a.head_dim, me);
      copy_panels<T, D, kQueries, kGroup>(do_at + stage * Queries::kBytes, p.d_o + row * a.o_stride + head * a.head_dim, a.o_stride, valid, a.head_dim, me);
      const int r = me % kQueries;
      const int64_t at = (int64_t)head * a.q_rows + row + r;
      const uint32_t to = numbers_at + (stage * 3 * kQueries + me) * 4;
      copy_async_4(to, (me < kQueries ? p.lse2 : p.delta) + at, r < valid ? 4 : 0);
      if (kDrop && me < kQueries) copy_async_4(to + 2 * kQueries * 4, p.numbers + at, r < valid ? 4 : 0);
      line.filled(step);
      from += kQueries;
      if (from >= end) from = begin, ++head;
    }
    return;
  }

  take_registers<kWorkRegisters>();
  const int worker = threadIdx.x - kGroup, lane = worker % 32, warp = worker / 32, g = lane / 4, t = lane % 4;
  const int group_row = worker / kGroup * 64, warp_row = warp * 16;
  const int k0 = tile.first + group_row, k1 = min(k0 + 64, tile.first + tile.count) - 1, key = tile.first + warp_row + g;  // of the warpgroup; of this thread, and 8 on
  const float factor = a.scale * kLog2e;
  const uint32_t of_key[2] = {number_of_key(a, key), number_of_key(a, key + 8)};  // of dropout
  float dk[D / 8][4], dv[D / 8][4];
#pragma unroll
  for (int c = 0; c < D / 8; ++c)
#pragma unroll
    for (int e = 0; e < 4; ++e) dk[c][e] = dv[c][e] = 0.0f;

  for (int step = 0, i0 = begin - kQueries; step < steps; ++step) {
    line.wait_full(step);
    i0 = i0 + kQueries < end ? i0 + kQueries : begin;
    const int stage = step % kStages, i1 = min(i0 + kQueries, span.q_len) - 1;
    if (k1 < k0 || span.none_sees(a, i0, i1, k0, k1)) {
      line.emptied(step);
      continue;
    }
    const uint32_t q_tile = q_at + stage * Queries::kBytes, do_tile = do_at + stage * Queries::kBytes;
    const float *const lse2 = numbers + stage * 3 * kQueries, *const delta = lse2 + kQueries;
    float s[kQueries / 8][4], ds[kQueries / 8][4];  // declared here: what they held before is not to be kept
    uint32_t weights[kQueries / 16][4], slopes[kQueries / 16][4];
    products_begin();
#pragma unroll
    for (int k = 0; k < D / 16; ++k) multiply_shared<T>(s, Keys::along_rows(k_at, group_row, k), Queries::along_rows(q_tile, 0, k), k > 0);
    products_end();
#pragma unroll
    for (int k = 0; k < D / 16; ++k) multiply_shared<T>(ds, Keys::along_rows(v_at, group_row, k), Queries::along_rows(do_tile, 0, k), k > 0);
    products_end();
    products_wait<1>();
    hold(s);
#pragma unroll
    for (int c = 0; c < kQueries / 8; ++c) {
      const float2 l = *reinterpret_cast<const float2*>(lse2 + c * 8 + 2 * t);
#pragma unroll
      for (int e = 0; e < 4; ++e) s[c][e] = exp2_fast(fmaf(s[c][e], factor, e & 1 ? -l.y : -l.x));
    }
    if (!(span.all_see(a, i0, i1, k0, k1) && k1 == k0 + 63 && i1 == i0 + kQueries - 1)) {
#pragma unroll
      for (int c = 0; c < kQueries / 8; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int i = i0 + c * 8 + 2 * t + (e & 1), j = key + (e >> 1) * 8;
          if (i > i1 || j > k1 || !span.sees(a, i, j)) s[c][e] = 0.0f;
        }
    }
    if constexpr (kDrop) {  // a dropped weight is known by its sign
      const uint32_t* const of_rows = reinterpret_cast<const uint32_t*>(delta + kQueries) + 2 * t;
#pragma unroll
      for (int c = 0; c < kQueries / 8; ++c) {
        const uint2 of_row = *reinterpret_cast<const uint2*>(of_rows + c * 8);
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (is_dropped(a, e & 1 ? of_row.y : of_row.x, of_key[e >> 1])) s[c][e] = -s[c][e];
      }
    }
#pragma unroll
    for (int k = 0; k < kQueries / 16; ++k) {
      if constexpr (kDrop) pack_positive<T>(weights[k], s, k);
      else pack_operand<T>(weights[k], s, k);
    }
    products_begin();
#pragma unroll
    for (int k = 0; k < kQueries / 16; ++k) multiply_held<T>(dv, weights[k], Queries::down_columns(do_tile, k));
    products_end();
    products_wait<1>();
    hold(ds);
#pragma unroll
    for (int c = 0; c < kQueries / 8; ++c) {
      const float2 d = *reinterpret_cast<const float2*>(delta + c * 8 + 2 * t);
#pragma unroll
      for (int e = 0; e < 4; ++e) ds[c][e] = slope<kDrop>(s[c][e], ds[c][e], e & 1 ? d.y : d.x);
    }
#pragma unroll
    for (int k = 0; k < kQueries / 16; ++k) pack_operand<T>(slopes[k], ds, k);
    products_begin();
#pragma unroll
    for (int k = 0; k < kQueries / 16; ++k) multiply_held<T>(dk, slopes[k], Queries::down_columns(q_tile, k));
    products_end();
    products_wait<0>();
    hold(dk);
    hold(dv);
    line.emptied(step);
  }

  const int valid = tile.count - warp_row;
  const int64_t row = first_row + warp_row;
#pragma unroll
  for (int c = 0; c < D / 8; ++c)
#pragma unroll
    for (int e = 0; e < 4; ++e) dk[c][e] *= a.scale * a.kept;
  if constexpr (kDrop) {
#pragma unroll
    for (int c = 0; c < D / 8; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) dv[c][e] *= a.kept;
  }
  const auto &of_keys = reinterpret_cast<const float(&)[1][D / 8][4]>(dk), &of_values = reinterpret_cast<const float(&)[1][D / 8][4]>(dv);
  if (p.parts > 1) {
    const int64_t stride = (int64_t)a.kv_heads * a.head_dim, at = ((int64_t)part * a.k_rows + row) * stride + kv * a.head_dim;
    write_floats<D>(of_keys, p.dk_part + at, stride, valid, a.head_dim);
    write_floats<D>(of_values, p.dv_part + at, stride, valid, a.head_dim);
    return;
  }
  barrier_of(kWorkersBarrier, kWorkers);  // the memory of k's and v's rows is used again
  char* const rows = shared + warp_row * D * 2;
  write_rows<T, D, 1>(rows, of_keys, p.dk + row * a.k_stride + kv * a.head_dim, a.k_stride, valid, a.head_dim);
  write_rows<T, D, 1>(rows + Keys::kBytes, of_values, p.dv + row * a.v_stride + kv * a.head_dim, a.v_stride, valid, a.head_dim);
}

template <int D> struct QueryShape {
  static constexpr int kQueries = 2 * 64, kKeys = 64, kStages = 3;
  using Queries = Panels<D, kQueries>;
  using Keys = Panels<D, kKeys>;
  static constexpr int kBytes = 2 * Queries::kBytes + kStages * (2 * Keys::kBytes + kKeys * 4) + Pipeline<kStages>::kBytes;
};

template <class T, int D, bool kDrop> __global__ void __launch_bounds__(kBlock, 1) query_gradients(BackwardArgs<T> p) {
  using Shape = QueryShape<D>;
  using Queries = typename Shape::Queries;
  using Keys = typename Shape::Keys;
  constexpr int kKeys = Shape::kKeys, kStages = Shape::kStages;
  const AttentionSizes& a = p.a;
  const int index = blockIdx.x / a.heads, head = blockIdx.x % a.heads, kv = head / a.group;
  if (index >= *p.queries.count) return;
  const Tile tile = p.queries.tiles[index];
  const Span& span = tile.span;
  const int begin = span.low(a, tile.first), end = span.high(a, tile.first + tile.count - 1) + 1;
  const int tiles = end > begin ? (end - begin + kKeys - 1) / kKeys : 0;
  const int64_t first_row = span.q_begin + tile.first;

  char* const shared = shared_memory();
  const uint32_t q_at = shared_address(shared), do_at = q_at + Queries::kBytes, k_at = do_at + Queries::kBytes, v_at = k_at + kStages * Keys::kBytes;
  uint32_t* const numbers = reinterpret_cast<uint32_t*>(shared + (v_at + kStages * Keys::kBytes - q_at));  // of a stage's keys, for dropout
  const Pipeline<kStages> line{v_at + kStages * (Keys::kBytes + kKeys * 4)};
  if (threadIdx.x == 0) line.init(kGroup);
  __syncthreads();

  if (threadIdx.x < kGroup) {
    give_registers<kCopyRegisters>();
    const int me = threadIdx.x;
    if (tiles > 0) {
      copy_panels<T, D, Shape::kQueries, kGroup>(q_at, p.q + first_row * a.q_stride + head * a.head_dim, a.q_stride, tile.count, a.head_dim, me);
      copy_panels<T, D, Shape::kQueries, kGroup>(do_at, p.d_o + first_row * a.o_stride + head * a.head_dim, a.o_stride, tile.count, a.head_dim, me);
    }
    for (int n = 0; n < tiles; ++n) {
      line.wait_empty(n);
      const int from = begin + n * kKeys, valid = end - from, stage = n % kStages;
      const int64_t row = span.k_begin + from;
      copy_panels<T, D, kKeys, kGroup>(k_at + stage * Keys::kBytes, p.k + row * a.k_stride + kv * a.head_dim, a.k_stride, valid, a.head_dim, me);
      copy_panels<T, D, kKeys, kGroup>(v_at + stage * Keys::kBytes, p.v + row * a.v_stride + kv * a.head_dim, a.v_stride, valid, a.head_dim, me);
      if (kDrop && me < kKeys) numbers[stage * kKeys + me] = number_of_key(a, from + me);
      line.filled(n);
    }
    return;
  }

  take_registers<kWorkRegisters>();
  const int worker = threadIdx.x - kGroup, lane = worker % 32, warp = worker / 32, g = lane / 4, t = lane % 4;
  const int group_row = worker / kGroup * 64, warp_row = warp * 16, valid = tile.count - warp_row;
  const int i0 = tile.first + group_row, i1 = min(i0 + 64, tile.first + tile.count) - 1;
  const int64_t row = first_row + warp_row;
  const float factor = a.scale * kLog2e;
  float dq[D / 8][4], lse2[2], delta[2];
  uint32_t of_row[2];  // for dropout
#pragma unroll
  for (int c = 0; c < D / 8; ++c)
#pragma unroll
    for (int e = 0; e < 4; ++e) dq[c][e] = 0.0f;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = h * 8 + g;
    const int64_t at = (int64_t)head * a.q_rows + row + r;
    lse2[h] = r < valid ? p.lse2[at] : INFINITY;
    delta[h] = r < valid ? p.delta[at] : 0.0f;
    if constexpr (kDrop) of_row[h] = number_of_row(a, row + r, head);
  }

  for (int n = 0; n < tiles; ++n) {
    line.wait_full(n);
    const int k0 = begin + n * kKeys, stage = n % kStages;
    if (i1 < i0 || span.none_sees(a, i0, i1, k0, k0 + kKeys - 1)) {
      line.emptied(n);
      continue;
    }
    const uint32_t k_tile = k_at + stage * Keys::kBytes, v_tile = v_at + stage * Keys::kBytes;
    float s[kKeys / 8][4], ds[kKeys / 8][4];  // declared here: what they held before is not to be kept
    uint32_t slopes[kKeys / 16][4];
    products_begin();
#pragma unroll
    for (int k = 0; k < D / 16; ++k) multiply_shared<T>(s, Queries::along_rows(q_at, group_row, k), Keys::along_rows(k_tile, 0, k), k > 0);
    products_end();
#pragma unroll
    for (int k = 0; k < D / 16; ++k) multiply_shared<T>(ds, Queries::along_rows(do_at, group_row, k), Keys::along_rows(v_tile, 0, k), k > 0);
    products_end();
    products_wait<1>();
    hold(s);
#pragma unroll
    for (int c = 0; c < kKeys / 8; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[c][e] = exp2_fast(fmaf(s[c][e], factor, -lse2[e / 2]));
    if (!span.all_see(a, i0, i1, k0, k0 + kKeys - 1)) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int i = tile.first + warp_row + h * 8 + g, high = span.high(a, i) - k0 - 2 * t, low = span.low(a, i) - k0 - 2 * t;
#pragma unroll
        for (int c = 0; c < kKeys / 8; ++c)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (c * 8 + e > high || c * 8 + e < low) s[c][2 * h + e] = 0.0f;
      }
    }
    products_wait<0>();
    hold(ds);
    if constexpr (kDrop) {
#pragma unroll
      for (int c = 0; c < kKeys / 8; ++c) {
        const uint2 of_key = *reinterpret_cast<const uint2*>(numbers + stage * kKeys + c * 8 + 2 * t);
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (is_dropped(a, of_row[e / 2], e & 1 ? of_key.y : of_key.x)) ds[c][e] = 0.0f;
      }
    }
#pragma unroll
    for (int c = 0; c < kKeys / 8; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) ds[c][e] = s[c][e] * (ds[c][e] - delta[e / 2]);
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) pack_operand<T>(slopes[k], ds, k);
    products_begin();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) multiply_held<T>(dq, slopes[k], Keys::down_columns(k_tile, k));
    products_end();
    products_wait<0>();
    hold(dq);
    line.emptied(n);
  }
#pragma unroll
  for (int c = 0; c < D / 8; ++c)
#pragma unroll
    for (int e = 0; e < 4; ++e) dq[c][e] *= a.scale * a.kept;
  barrier_of(kWorkersBarrier, kWorkers);  // the memory of q's rows is used again
  write_rows<T, D, 1>(shared + warp_row * D * 2, reinterpret_cast<const float(&)[1][D / 8][4]>(dq), p.dq + row * a.q_stride + head * a.head_dim, a.q_stride, valid,
                      a.head_dim);
}

template <class T, int D, bool kDrop> void launch_backward(const BackwardArgs<T>& p) {
  launch("attention's dk, dv", key_gradients<T, D, kDrop>, p.keys.most * p.a.kv_heads * p.parts, kBlock, KeyShape<D>::kBytes, p);
  if (p.parts > 1) add_parts(p);
  launch("attention's dq", query_gradients<T, D, kDrop>, p.queries.most * p.a.heads, kBlock, QueryShape<D>::kBytes, p);
}

template <class T, int D> void run_backward(BackwardArgs<T>& p) {
  tensor_cores::prepare<T>(p, QueryShape<D>::kQueries, KeyShape<D>::kKeys);
  if (p.a.drops) launch_backward<T, D, true>(p);
  else launch_backward<T, D, false>(p);
}

}  // namespace warpgroups
}  // namespace cuda
}  // namespace tunebook
