// Attention backward on tensor cores (16-bit). Probabilities are computed again from lse (Dao et al. 2022), in two passes, so that every
// gradient is summed in one order by one block: `key_gradients` (a block owns keys of one kv head and runs over the queries of all heads
// that share it) and `query_gradients` (a block owns queries and runs over keys). Scores stand in the registers that the next product
// reads: as keys x queries in the first pass, as queries x keys in the second.
#pragma once
#include "attention_forward.cuh"

namespace tunebook {
namespace cuda {
namespace tensor_cores {

enum Gradients : int { kBoth = 0, kOfKeys = 1, kOfValues = 2 };

// What a score's gradient is, from its probability w, do . v and delta. Dropped: w comes with a minus, and do . v does not count.
template <bool kDrop> __device__ inline float slope(float w, float from_values, float delta) {
  return kDrop ? fmaf(fmaxf(w, 0.0f), from_values, -fabsf(w) * delta) : w * (from_values - delta);
}

// A warp's accumulators (16 rows x D) as float32.
template <int D> __device__ inline void write_floats(const float (&x)[1][D / 8][4], float* to, int64_t stride, int valid, int head_dim) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int c = 0; c < D / 8; ++c)
#pragma unroll
    for (int h = 0; h < 2; ++h)
      if (g + 8 * h < valid && c * 8 < head_dim)
        *reinterpret_cast<float2*>(to + (g + 8 * h) * stride + c * 8 + 2 * t) = make_float2(x[0][c][2 * h], x[0][c][2 * h + 1]);
}

// Wide heads have no registers for both gradients: their dk and dv are made by kernels of their own.
template <int D> struct KeyShape {
  static constexpr bool kTogether = D <= 128;
  static constexpr int kWarps = 8, kThreads = kWarps * 32, kKeys = kWarps * 16, kQueries = D <= 128 ? 64 : 32;
  static constexpr int kBytes = (2 * kKeys + 4 * kQueries) * D * 2 + 4 * kQueries * 4;
};

template <class T, int D, Gradients kWhich, bool kDrop>
__global__ void __launch_bounds__(KeyShape<D>::kThreads, 1) key_gradients(BackwardArgs<T> p) {
  using Shape = KeyShape<D>;
  using Rows = SharedRows<D>;
  constexpr int kQueries = Shape::kQueries, kKeys = Shape::kKeys, kThreads = Shape::kThreads;
  constexpr bool kDk = kWhich != kOfValues, kDv = kWhich != kOfKeys;
  const AttentionSizes& a = p.a;
  const int index = blockIdx.x / (a.kv_heads * p.parts), kv = blockIdx.x / p.parts % a.kv_heads, part = blockIdx.x % p.parts;
  if (index >= *p.keys.count) return;
  const Tile tile = p.keys.tiles[index];
  const Span& span = tile.span;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int first_head = kv * a.group + part * a.group / p.parts, last_head = kv * a.group + (part + 1) * a.group / p.parts;
  int begin, end;  // queries that see keys of the tile
  span.queries_of(a, tile.first, tile.first + tile.count - 1, &begin, &end);
  const int tiles = end > begin ? (end - begin + kQueries - 1) / kQueries : 0, steps = tiles * (last_head - first_head);

  char* const shared = shared_memory();
  constexpr uint32_t kHalf = kQueries * Rows::kRow;
  const uint32_t k_at = shared_address(shared), v_at = k_at + kKeys * Rows::kRow;
  const uint32_t q_at = v_at + kKeys * Rows::kRow, do_at = q_at + 2 * kHalf;
  float* const lse2 = reinterpret_cast<float*>(shared + 2 * kKeys * Rows::kRow + 4 * kHalf);  // 2 x kQueries
  float* const delta = lse2 + 2 * kQueries;
  int next_head = first_head, next_from = begin;  // what is copied next: all tiles of a head, then the next head's
  const auto copy_queries = [&](int half) {
    const int valid = span.q_len - next_from;
    const int64_t row = span.q_begin + next_from;
    const T *q = p.q + row * a.q_stride + next_head * a.head_dim, *d_o = p.d_o + row * a.o_stride + next_head * a.head_dim;
    copy_rows<T, D, kThreads, kQueries>(q_at + half * kHalf, q, a.q_stride, valid, a.head_dim);
    copy_rows<T, D, kThreads, kQueries>(do_at + half * kHalf, d_o, a.o_stride, valid, a.head_dim);
    if (threadIdx.x < 2 * kQueries) {  // lse2, then delta
      const int r = threadIdx.x % kQueries;
      const float* from = (threadIdx.x < kQueries ? p.lse2 : p.delta) + (int64_t)next_head * a.q_rows + row + r;
      copy_async_4(shared_address(lse2 + (threadIdx.x < kQueries ? 0 : 2 * kQueries) + half * kQueries + r), from, r < valid ? 4 : 0);
    }
    next_from += kQueries;
    if (next_from >= end) next_from = begin, ++next_head;
  };
  const int64_t first_row = span.k_begin + tile.first;
  if (steps > 0) {
    copy_rows<T, D, kThreads, kKeys>(k_at, p.k + first_row * a.k_stride + kv * a.head_dim, a.k_stride, tile.count, a.head_dim);
    if (kDk) copy_rows<T, D, kThreads, kKeys>(v_at, p.v + first_row * a.v_stride + kv * a.head_dim, a.v_stride, tile.count, a.head_dim);
    copy_queries(0);
  }
  copy_commit();

  const int warp_row = warp * 16, k0 = tile.first + warp_row, k1 = min(k0 + 16, tile.first + tile.count) - 1;
  const uint32_t warp_lane = (uint32_t)(warp_row * Rows::kRow) + Rows::lane_of_rows(lane);
  const float factor = a.scale * kLog2e;
  float dk[1][D / 8][4] = {}, dv[1][D / 8][4] = {};  // one may be unused
  const uint32_t of_key[2] = {number_of_key(a, k0 + g), number_of_key(a, k0 + 8 + g)};  // of dropout

  for (int step = 0, i0 = begin - kQueries; step < steps; ++step) {
    copy_wait<0>();
    __syncthreads();  // this step's rows are there, and every warp has done with the other half of the memory
    const int half = step & 1;
    if (step + 1 < steps) copy_queries(half ^ 1);
    copy_commit();
    i0 = i0 + kQueries < end ? i0 + kQueries : begin;
    const int i1 = min(i0 + kQueries, span.q_len) - 1;
    if (k1 < k0 || span.none_sees(a, i0, i1, k0, k1)) continue;
    const uint32_t q_half = q_at + half * kHalf, do_half = do_at + half * kHalf;
    float s[1][kQueries / 8][4] = {};
    multiply_rows<T, D, 1, kQueries>(s, anew(k_at + warp_lane), anew(q_half + Rows::lane_of_columns(lane)));
    const bool all = span.all_see(a, i0, i1, k0, k1) && k1 == k0 + 15 && i1 == i0 + kQueries - 1;
#pragma unroll
    for (int c = 0; c < kQueries / 8; ++c) {
      const float2 l = *reinterpret_cast<const float2*>(lse2 + half * kQueries + c * 8 + 2 * t);
      s[0][c][0] = exp2_fast(s[0][c][0] * factor - l.x);
      s[0][c][1] = exp2_fast(s[0][c][1] * factor - l.y);
      s[0][c][2] = exp2_fast(s[0][c][2] * factor - l.x);
      s[0][c][3] = exp2_fast(s[0][c][3] * factor - l.y);
    }
    if (!all) {
#pragma unroll
      for (int e = 0; e < 2; ++e)
#pragma unroll
        for (int c = 0; c < kQueries / 8; ++c) {
          const int i = i0 + c * 8 + 2 * t + e;
#pragma unroll
          for (int h = 0; h < 2; ++h)
            if (i > i1 || k0 + h * 8 + g > k1 || !span.sees(a, i, k0 + h * 8 + g)) s[0][c][2 * h + e] = 0.0f;
        }
    }
    if constexpr (kDrop) {  // a dropped probability is known by its sign: dv takes none of it, ds what delta makes of it
      const int head = first_head + step / tiles;
#pragma unroll
      for (int c = 0; c < kQueries / 8; ++c)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const uint32_t number = number_of_row(a, span.q_begin + i0 + c * 8 + 2 * t + e, head);
#pragma unroll
          for (int h = 0; h < 2; ++h)
            if (is_dropped(a, number, of_key[h])) s[0][c][2 * h + e] = -s[0][c][2 * h + e];
        }
    }
    if constexpr (kDv && kDrop) {
      float left[1][kQueries / 8][4];
#pragma unroll
      for (int c = 0; c < kQueries / 8; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) left[0][c][e] = fmaxf(s[0][c][e], 0.0f);
      multiply_registers<T, D, 1, kQueries>(dv, left, anew(do_half + Rows::lane_of_rows(lane)));
    } else if constexpr (kDv) {
      multiply_registers<T, D, 1, kQueries>(dv, s, anew(do_half + Rows::lane_of_rows(lane)));
    }
    if constexpr (kDk) {
      float ds[1][kQueries / 8][4] = {};
      multiply_rows<T, D, 1, kQueries>(ds, anew(v_at + warp_lane), anew(do_half + Rows::lane_of_columns(lane)));
#pragma unroll
      for (int c = 0; c < kQueries / 8; ++c) {
        const float2 d = *reinterpret_cast<const float2*>(delta + half * kQueries + c * 8 + 2 * t);
#pragma unroll
        for (int e = 0; e < 4; ++e) ds[0][c][e] = slope<kDrop>(s[0][c][e], ds[0][c][e], e & 1 ? d.y : d.x);
      }
      multiply_registers<T, D, 1, kQueries>(dk, ds, anew(q_half + Rows::lane_of_rows(lane)));
    }
  }

  const int valid = tile.count - warp_row;
  const int64_t row = first_row + warp_row;
  if constexpr (kDk) {
#pragma unroll
    for (int c = 0; c < D / 8; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) dk[0][c][e] *= a.scale * a.kept;
  }
  if constexpr (kDv && kDrop) {
#pragma unroll
    for (int c = 0; c < D / 8; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) dv[0][c][e] *= a.kept;
  }
  if (p.parts > 1) {
    const int64_t stride = (int64_t)a.kv_heads * a.head_dim, at = ((int64_t)part * a.k_rows + row) * stride + kv * a.head_dim;
    if constexpr (kDk) write_floats<D>(dk, p.dk_part + at, stride, valid, a.head_dim);
    if constexpr (kDv) write_floats<D>(dv, p.dv_part + at, stride, valid, a.head_dim);
    return;
  }
  copy_wait<0>();
  __syncthreads();  // the memory of k's and v's rows is used again
  char *const k_rows = shared + warp_row * Rows::kRow, *const v_rows = k_rows + kKeys * Rows::kRow;
  if constexpr (kDk) write_rows<T, D, 1>(k_rows, dk, p.dk + row * a.k_stride + kv * a.head_dim, a.k_stride, valid, a.head_dim);
  if constexpr (kDv) write_rows<T, D, 1>(v_rows, dv, p.dv + row * a.v_stride + kv * a.head_dim, a.v_stride, valid, a.head_dim);
}

template <int D> struct QueryShape {
  static constexpr int kWarps = D <= 128 ? 4 : 8, kM = D <= 128 ? 2 : 1, kKeys = 32, kBlocks = D <= 128 ? 2 : 1;
  static constexpr int kThreads = kWarps * 32, kQueries = kWarps * kM * 16;
  static constexpr int kBytes = (2 * kQueries + 4 * kKeys) * D * 2;
};

template <class T, int D, bool kDrop>
__global__ void __launch_bounds__(QueryShape<D>::kThreads, QueryShape<D>::kBlocks) query_gradients(BackwardArgs<T> p) {
  using Shape = QueryShape<D>;
  using Rows = SharedRows<D>;
  constexpr int kM = Shape::kM, kKeys = Shape::kKeys, kQueries = Shape::kQueries, kThreads = Shape::kThreads;
  const AttentionSizes& a = p.a;
  const int index = blockIdx.x / a.heads, head = blockIdx.x % a.heads, kv = head / a.group;
  if (index >= *p.queries.count) return;
  const Tile tile = p.queries.tiles[index];
  const Span& span = tile.span;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int begin = span.low(a, tile.first), end = span.high(a, tile.first + tile.count - 1) + 1;
  const int tiles = end > begin ? (end - begin + kKeys - 1) / kKeys : 0;

  char* const shared = shared_memory();
  constexpr uint32_t kHalf = kKeys * Rows::kRow;
  const uint32_t q_at = shared_address(shared), do_at = q_at + kQueries * Rows::kRow;
  const uint32_t k_at = do_at + kQueries * Rows::kRow, v_at = k_at + 2 * kHalf;
  const auto copy_keys = [&](int n) {
    const int from = begin + n * kKeys, valid = end - from;
    const int64_t row = span.k_begin + from;
    copy_rows<T, D, kThreads, kKeys>(k_at + (n & 1) * kHalf, p.k + row * a.k_stride + kv * a.head_dim, a.k_stride, valid, a.head_dim);
    copy_rows<T, D, kThreads, kKeys>(v_at + (n & 1) * kHalf, p.v + row * a.v_stride + kv * a.head_dim, a.v_stride, valid, a.head_dim);
  };
  const int64_t first_row = span.q_begin + tile.first;
  if (tiles > 0) {
    copy_rows<T, D, kThreads, kQueries>(q_at, p.q + first_row * a.q_stride + head * a.head_dim, a.q_stride, tile.count, a.head_dim);
    copy_rows<T, D, kThreads, kQueries>(do_at, p.d_o + first_row * a.o_stride + head * a.head_dim, a.o_stride, tile.count, a.head_dim);
    copy_keys(0);
  }
  copy_commit();

  const int warp_row = warp * kM * 16, valid = tile.count - warp_row;
  const int i0 = tile.first + warp_row, i1 = min(i0 + kM * 16, tile.first + tile.count) - 1;
  const int64_t row = first_row + warp_row;
  const uint32_t warp_lane = (uint32_t)(warp_row * Rows::kRow) + Rows::lane_of_rows(lane);
  const float factor = a.scale * kLog2e;
  float dq[kM][D / 8][4] = {}, lse2[kM][2], delta[kM][2];
  uint32_t numbers[kM][2];  // of dropout
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = m * 16 + h * 8 + g;
      const int64_t at = (int64_t)head * a.q_rows + row + r;
      lse2[m][h] = r < valid ? p.lse2[at] : INFINITY;
      delta[m][h] = r < valid ? p.delta[at] : 0.0f;
      if constexpr (kDrop) numbers[m][h] = number_of_row(a, row + r, head);
    }

  for (int n = 0; n < tiles; ++n) {
    copy_wait<0>();
    __syncthreads();
    if (n + 1 < tiles) copy_keys(n + 1);
    copy_commit();
    const int k0 = begin + n * kKeys;
    if (i1 < i0 || span.none_sees(a, i0, i1, k0, k0 + kKeys - 1)) continue;
    const uint32_t k_half = k_at + (n & 1) * kHalf, v_half = v_at + (n & 1) * kHalf;
    float s[kM][kKeys / 8][4] = {}, ds[kM][kKeys / 8][4] = {};
    multiply_rows<T, D, kM, kKeys>(s, q_at + warp_lane, k_half + Rows::lane_of_columns(lane));
    multiply_rows<T, D, kM, kKeys>(ds, do_at + warp_lane, v_half + Rows::lane_of_columns(lane));
    if constexpr (kDrop) drop_values(a, ds, numbers, k0, t);
    const bool all = span.all_see(a, i0, i1, k0, k0 + kKeys - 1);
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int i = i0 + m * 16 + h * 8 + g, high = span.high(a, i) - k0 - 2 * t, low = span.low(a, i) - k0 - 2 * t;
#pragma unroll
        for (int c = 0; c < kKeys / 8; ++c)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const float weight = exp2_fast(s[m][c][2 * h + e] * factor - lse2[m][h]);
            const bool seen = all || (c * 8 + e <= high && c * 8 + e >= low);
            ds[m][c][2 * h + e] = seen ? weight * (ds[m][c][2 * h + e] - delta[m][h]) : 0.0f;
          }
      }
    multiply_registers<T, D, kM, kKeys>(dq, ds, k_half + Rows::lane_of_rows(lane));
  }
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int c = 0; c < D / 8; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) dq[m][c][e] *= a.scale * a.kept;
  copy_wait<0>();
  __syncthreads();
  write_rows<T, D, kM>(shared + warp_row * Rows::kRow, dq, p.dq + row * a.q_stride + head * a.head_dim, a.q_stride, valid, a.head_dim);
}

// Few kv heads give few blocks: then the heads of a group are shared among `parts` blocks, whose sums are added afterwards. As few parts as
// end the pass soonest, each block taking its turn on a multiprocessor and the longest going first: causal tiles are of all lengths, so
// that a long one and a short one fill the time of two halves of the longest, others are alike. (More parts than that only write more sums:
// 0.06 ms of 1.1 for 32 heads on 8 at 8,192 tokens.)
inline int parts_of_group(const AttentionSizes& a, int64_t tiles) {
  const int64_t side_by_side = (a.causal && a.window == 0 ? 2 : 1) * (int64_t)device.multiprocessors;
  const int64_t bytes = 2 * 4 * (int64_t)a.k_rows * a.kv_heads * a.head_dim;  // of one part's sums
  int best = 1;
  int64_t soonest = INT64_MAX;
  for (int parts = 1; parts <= a.group && (parts == 1 || parts * bytes <= (int64_t{256} << 20)); ++parts) {
    const int64_t time = blocks_for(tiles * a.kv_heads * parts, side_by_side) * blocks_for(a.group, parts);
    if (time < soonest) soonest = time, best = parts;
  }
  return best;
}

template <class T, int D, bool kDrop> void launch_backward(const BackwardArgs<T>& p) {
  using Keys = KeyShape<D>;
  using Queries = QueryShape<D>;
  const int64_t blocks = p.keys.most * p.a.kv_heads * p.parts;
  if constexpr (Keys::kTogether) {
    launch("attention's dk, dv", key_gradients<T, D, kBoth, kDrop>, blocks, Keys::kThreads, Keys::kBytes, p);
  } else {
    launch("attention's dk", key_gradients<T, D, kOfKeys, kDrop>, blocks, Keys::kThreads, Keys::kBytes, p);
    launch("attention's dv", key_gradients<T, D, kOfValues, kDrop>, blocks, Keys::kThreads, Keys::kBytes, p);
  }
  if (p.parts > 1) add_parts(p);
  launch("attention's dq", query_gradients<T, D, kDrop>, p.queries.most * p.a.heads, Queries::kThreads, Queries::kBytes, p);
}

// Tiles of so many queries and keys, room for the parts of dk and dv, and what both passes read.
template <class T> void prepare(BackwardArgs<T>& p, int queries, int keys) {
  const AttentionSizes& a = p.a;
  const AttentionPlan plan = plan_attention(a, queries, keys);
  p.queries = plan.queries, p.keys = plan.keys;
  p.parts = parts_of_group(a, blocks_for(a.k_rows, keys));
  const int64_t part = (int64_t)a.k_rows * a.kv_heads * a.head_dim;
  if (p.parts > 1) {
    p.dk_part = scratch_of<float>(kPartials, 2 * part * p.parts);
    p.dv_part = p.dk_part + part * p.parts;
  }
  prepare_backward(p);
}

template <class T, int D> void run_backward(BackwardArgs<T>& p) {
  prepare<T>(p, QueryShape<D>::kQueries, KeyShape<D>::kKeys);
  if constexpr (kDrops<D>) {
    if (p.a.drops) return launch_backward<T, D, true>(p);
  }
  launch_backward<T, D, false>(p);
}

}  // namespace tensor_cores
}  // namespace cuda
}  // namespace tunebook
