// Attention forward without tensor cores: float32 tensors, and 16-bit ones whose rows are not aligned.
#include "attention_plain.cuh"

namespace tunebook {
namespace cuda {
namespace plain {
namespace {

constexpr int R = 4, kTile = 16 * R;

template <int D> constexpr int kBytes = (2 * kTile * Rows<D>::kPitch + kTile * (kTile + 4)) * 4;

template <class T, int D> __global__ void __launch_bounds__(kThreads) attend(ForwardArgs<T> p) {
  const AttentionSizes& a = p.a;
  const int index = blockIdx.x / a.heads, head = blockIdx.x % a.heads, kv = head / a.group;
  if (index >= *p.plan.count) return;
  const Tile tile = p.plan.tiles[index];
  const Span& span = tile.span;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16, last = tile.first + tile.count - 1;
  const int begin = span.low(a, tile.first), end = span.high(a, last) + 1;
  float* const q = reinterpret_cast<float*>(shared_memory());
  float* const kv_rows = q + kTile * Rows<D>::kPitch;  // k, then v
  float* const weights = kv_rows + kTile * Rows<D>::kPitch;
  const int64_t first_row = span.q_begin + tile.first;
  load_rows<T, D>(q, p.q + first_row * a.q_stride + head * a.head_dim, a.q_stride, kTile, tile.count, a.head_dim);
  const float factor = a.scale * kLog2e;
  float out[R][D / 16] = {}, top[R], sum[R];
#pragma unroll
  for (int r = 0; r < R; ++r) top[r] = -INFINITY, sum[r] = 0.0f;

  for (int k0 = begin; k0 < end; k0 += kTile) {
    const int64_t row = span.k_begin + k0;
    __syncthreads();  // v of the tile before has been read
    load_rows<T, D>(kv_rows, p.k + row * a.k_stride + kv * a.head_dim, a.k_stride, kTile, end - k0, a.head_dim);
    __syncthreads();
    float s[R][R] = {};
    dots<D, R>(s, q, kv_rows, y, x);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int i = min(tile.first + y + 16 * r, last);
      float most = top[r];
#pragma unroll
      for (int c = 0; c < R; ++c) {
        s[r][c] = span.sees(a, i, k0 + x + 16 * c) ? s[r][c] * factor : -INFINITY;
        most = fmaxf(most, s[r][c]);
      }
      most = row_reduce(most, Max());
      const float shift = most == -INFINITY ? 0.0f : most, rescale = exp2f(top[r] - shift);
      top[r] = most;
      const uint32_t number = a.drops ? number_of_row(a, first_row + y + 16 * r, head) : 0;
      float share = 0.0f;
#pragma unroll
      for (int c = 0; c < R; ++c) {
        const float w = exp2f(s[r][c] - shift);
        share += w;
        const bool dropped = a.drops && is_dropped(a, number, number_of_key(a, k0 + x + 16 * c));
        weights[(y + 16 * r) * (kTile + 4) + x + 16 * c] = dropped ? 0.0f : w;
      }
      sum[r] = sum[r] * rescale + row_reduce(share, Sum());
#pragma unroll
      for (int c = 0; c < D / 16; ++c) out[r][c] *= rescale;
    }
    __syncthreads();  // k has been read, the weights are written
    load_rows<T, D>(kv_rows, p.v + row * a.v_stride + kv * a.head_dim, a.v_stride, kTile, end - k0, a.head_dim);
    __syncthreads();
    combine<D, R>(out, weights, kv_rows, y, x);
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    if (y + 16 * r >= tile.count) continue;
    const int64_t row = first_row + y + 16 * r;
    store_row<T, D>(p.o + row * a.o_stride + head * a.head_dim, out[r], sum[r] == 0.0f ? 0.0f : a.kept / sum[r], x, a.head_dim);
    if (x == 0) p.lse[row * a.heads + head] = top[r] * kLn2 + logf(sum[r]);
  }
}

}  // namespace
}  // namespace plain

template <class T> void attention_plain(const attention_args& op, const AttentionSizes& a) {
  ForwardArgs<T> p = forward_args<T>(op, a);
  p.plan = plan_attention(a, plain::kTile, 0).queries;
  plain::with_width(a.head_dim, [&](auto width) {
    launch("attention", plain::attend<T, width.value>, p.plan.most * a.heads, plain::kThreads, plain::kBytes<width.value>, p);
  });
  zero_unowned_outputs(p);
}

template void attention_plain<float>(const attention_args& op, const AttentionSizes& a);
template void attention_plain<__nv_bfloat16>(const attention_args& op, const AttentionSizes& a);
template void attention_plain<__half>(const attention_args& op, const AttentionSizes& a);

}  // namespace cuda
}  // namespace tunebook
