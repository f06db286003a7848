// Attention backward without tensor cores: the two passes of attention_backward.cuh in float32.
#include "attention_plain.cuh"

namespace tunebook {
namespace cuda {
namespace plain {
namespace {

template <int D> struct Shape {
  static constexpr int R = D <= 128 ? 4 : 2, kTile = 16 * R, kPitch = kTile + 4;
  static constexpr int kBytes = (4 * kTile * Rows<D>::kPitch + 2 * kTile * kPitch) * 4;
};

// weights and slopes (the gradient of the scaled scores) of kTile queries x keys: queries q and do against keys k and v. They are stored at
// [query][key], or at [key][query] when kByKey.
template <int D, bool kByKey>
__device__ void weigh(const AttentionSizes& a, const Span& span, const float* q, const float* d_o, const float* k, const float* v,
                      const float* lse2, const float* delta, int head, int i0, int queries, int k0, int keys, float* weights, float* slopes) {
  constexpr int R = Shape<D>::R, kPitch = Shape<D>::kPitch;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float s[R][R] = {}, ds[R][R] = {};
  dots<D, R>(s, q, k, y, x);
  dots<D, R>(ds, d_o, v, y, x);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int i = y + 16 * r;
    const float l = i < queries ? lse2[i] : INFINITY, d = i < queries ? delta[i] : 0.0f;
    const uint32_t number = a.drops ? number_of_row(a, span.q_begin + i0 + i, head) : 0;
#pragma unroll
    for (int c = 0; c < R; ++c) {
      const int j = x + 16 * c;
      const bool seen = i < queries && j < keys && span.sees(a, i0 + i, k0 + j);
      const float w = seen ? exp2f(s[r][c] * (a.scale * kLog2e) - l) : 0.0f;
      const int at = kByKey ? j * kPitch + i : i * kPitch + j;
      const float gain = a.drops && is_dropped(a, number, number_of_key(a, k0 + j)) ? 0.0f : 1.0f;
      weights[at] = w * gain;
      slopes[at] = seen ? w * (ds[r][c] * gain - d) : 0.0f;
    }
  }
}

template <class T, int D> __global__ void __launch_bounds__(kThreads) key_gradients(BackwardArgs<T> p) {
  constexpr int R = Shape<D>::R, kTile = Shape<D>::kTile, kRows = kTile * Rows<D>::kPitch;
  const AttentionSizes& a = p.a;
  const int index = blockIdx.x / a.kv_heads, kv = blockIdx.x % a.kv_heads;
  if (index >= *p.keys.count) return;
  const Tile tile = p.keys.tiles[index];
  const Span& span = tile.span;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float* const k = reinterpret_cast<float*>(shared_memory());
  float *const v = k + kRows, *const q = v + kRows, *const d_o = q + kRows, *const weights = d_o + kRows;
  float* const slopes = weights + kTile * Shape<D>::kPitch;
  const int64_t first_row = span.k_begin + tile.first;
  load_rows<T, D>(k, p.k + first_row * a.k_stride + kv * a.head_dim, a.k_stride, kTile, tile.count, a.head_dim);
  load_rows<T, D>(v, p.v + first_row * a.v_stride + kv * a.head_dim, a.v_stride, kTile, tile.count, a.head_dim);
  int begin, end;
  span.queries_of(a, tile.first, tile.first + tile.count - 1, &begin, &end);
  float dk[R][D / 16] = {}, dv[R][D / 16] = {};
  for (int head = kv * a.group; head < (kv + 1) * a.group; ++head)
    for (int i0 = begin; i0 < end; i0 += kTile) {
      const int64_t row = span.q_begin + i0, at = (int64_t)head * a.q_rows + row;
      const int queries = end - i0;
      __syncthreads();  // what was there has been read
      load_rows<T, D>(q, p.q + row * a.q_stride + head * a.head_dim, a.q_stride, kTile, queries, a.head_dim);
      load_rows<T, D>(d_o, p.d_o + row * a.o_stride + head * a.head_dim, a.o_stride, kTile, queries, a.head_dim);
      __syncthreads();
      weigh<D, true>(a, span, q, d_o, k, v, p.lse2 + at, p.delta + at, head, i0, queries, tile.first, tile.count, weights, slopes);
      __syncthreads();
      combine<D, R>(dv, weights, d_o, y, x);
      combine<D, R>(dk, slopes, q, y, x);
    }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    if (y + 16 * r >= tile.count) continue;
    const int64_t row = first_row + y + 16 * r;
    store_row<T, D>(p.dk + row * a.k_stride + kv * a.head_dim, dk[r], a.scale * a.kept, x, a.head_dim);
    store_row<T, D>(p.dv + row * a.v_stride + kv * a.head_dim, dv[r], a.kept, x, a.head_dim);
  }
}

template <class T, int D> __global__ void __launch_bounds__(kThreads) query_gradients(BackwardArgs<T> p) {
  constexpr int R = Shape<D>::R, kTile = Shape<D>::kTile, kRows = kTile * Rows<D>::kPitch;
  const AttentionSizes& a = p.a;
  const int index = blockIdx.x / a.heads, head = blockIdx.x % a.heads, kv = head / a.group;
  if (index >= *p.queries.count) return;
  const Tile tile = p.queries.tiles[index];
  const Span& span = tile.span;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  float* const q = reinterpret_cast<float*>(shared_memory());
  float *const d_o = q + kRows, *const k = d_o + kRows, *const v = k + kRows, *const weights = v + kRows;
  float* const slopes = weights + kTile * Shape<D>::kPitch;
  const int64_t first_row = span.q_begin + tile.first, at = (int64_t)head * a.q_rows + first_row;
  load_rows<T, D>(q, p.q + first_row * a.q_stride + head * a.head_dim, a.q_stride, kTile, tile.count, a.head_dim);
  load_rows<T, D>(d_o, p.d_o + first_row * a.o_stride + head * a.head_dim, a.o_stride, kTile, tile.count, a.head_dim);
  const int begin = span.low(a, tile.first), end = span.high(a, tile.first + tile.count - 1) + 1;
  float dq[R][D / 16] = {};
  for (int k0 = begin; k0 < end; k0 += kTile) {
    const int64_t row = span.k_begin + k0;
    __syncthreads();
    load_rows<T, D>(k, p.k + row * a.k_stride + kv * a.head_dim, a.k_stride, kTile, end - k0, a.head_dim);
    load_rows<T, D>(v, p.v + row * a.v_stride + kv * a.head_dim, a.v_stride, kTile, end - k0, a.head_dim);
    __syncthreads();
    weigh<D, false>(a, span, q, d_o, k, v, p.lse2 + at, p.delta + at, head, tile.first, tile.count, k0, end - k0, weights, slopes);
    __syncthreads();
    combine<D, R>(dq, slopes, k, y, x);
  }
#pragma unroll
  for (int r = 0; r < R; ++r)
    if (y + 16 * r < tile.count)
      store_row<T, D>(p.dq + (first_row + y + 16 * r) * a.q_stride + head * a.head_dim, dq[r], a.scale * a.kept, x, a.head_dim);
}

template <class T, int D> void run(BackwardArgs<T>& p) {
  const AttentionPlan plan = plan_attention(p.a, Shape<D>::kTile, Shape<D>::kTile);
  p.queries = plan.queries, p.keys = plan.keys;
  prepare_backward(p);
  launch("attention's dk, dv", key_gradients<T, D>, p.keys.most * p.a.kv_heads, kThreads, Shape<D>::kBytes, p);
  launch("attention's dq", query_gradients<T, D>, p.queries.most * p.a.heads, kThreads, Shape<D>::kBytes, p);
}

}  // namespace
}  // namespace plain

template <class T> void attention_backward_plain(const attention_backward_args& op, const AttentionSizes& a) {
  BackwardArgs<T> p = backward_args<T>(op, a);
  plain::with_width(a.head_dim, [&](auto width) { plain::run<T, width.value>(p); });
}

template void attention_backward_plain<float>(const attention_backward_args& op, const AttentionSizes& a);
template void attention_backward_plain<__nv_bfloat16>(const attention_backward_args& op, const AttentionSizes& a);
template void attention_backward_plain<__half>(const attention_backward_args& op, const AttentionSizes& a);

}  // namespace cuda
}  // namespace tunebook
