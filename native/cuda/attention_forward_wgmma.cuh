// Attention forward by warpgroup products (compute capability 9.0a): FlashAttention-3's division of labour (Shah et al. 2024). One warpgroup copies keys and values, two
// multiply, each for 64 queries; a warpgroup makes the scores of the next tile of keys while the values of this one are summed.
#pragma once
#include "attention_forward.cuh"
#include "wgmma.cuh"

namespace tunebook {
namespace cuda {
namespace warpgroups {

using tensor_cores::pack_operand;
using tensor_cores::write_rows;

// Threads: a warpgroup that copies, then two that multiply. Registers a thread: 168 at the start, then by role.
constexpr int kGroup = 128, kWorkers = 2 * kGroup, kBlock = kGroup + kWorkers, kWorkerWarps = kWorkers / 32;
constexpr int kCopyRegisters = 24, kWorkRegisters = 240;
constexpr int kWorkersBarrier = 1;  // number of the workers' named barrier

// Stages of shared memory, filled and emptied in turn; n counts the uses. A stage is full when `copiers` threads have said so, empty when every warp that multiplies has.
template <int kStages> struct Pipeline {
  static constexpr int kBytes = 2 * kStages * 8;
  uint32_t at;  // of kStages barriers "full", then kStages "empty"
  __device__ void init(int copiers) const {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(at + i * 8, copiers);
      barrier_init(at + (kStages + i) * 8, kWorkerWarps);
    }
  }
  __device__ void wait_full(int n) const { barrier_wait(at + n % kStages * 8, n / kStages & 1); }
  __device__ void wait_empty(int n) const {
    if (n >= kStages) barrier_wait(at + (kStages + n % kStages) * 8, (n / kStages - 1) & 1);
  }
  // By a thread that copies: what it has asked for is there.
  __device__ void filled(int n) const {
    copy_commit();
    copy_wait<0>();
    fence_shared();
    barrier_arrive(at + n % kStages * 8);
  }
  // By all of a warp, which has read what it wanted.
  __device__ void emptied(int n) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(at + (kStages + n % kStages) * 8);
  }
};

template <int D> struct ForwardShape {
  static constexpr int kQueries = 2 * 64, kKeys = 128, kStages = 2;
  using Queries = Panels<D, kQueries>;
  using Keys = Panels<D, kKeys>;
  static constexpr int kNumbers = kStages + 1;  // tiles whose numbers for dropout are there: those of a tile are read after its keys
  static constexpr int kBytes = Queries::kBytes + 2 * kStages * Keys::kBytes + 2 * Pipeline<kStages>::kBytes + kNumbers * kKeys * 4;
};

template <class T, int D, bool kDrop> __global__ void __launch_bounds__(kBlock, 1) attend(ForwardArgs<T> p) {
  using Shape = ForwardShape<D>;
  using Queries = typename Shape::Queries;
  using Keys = typename Shape::Keys;
  constexpr int kKeys = Shape::kKeys, kStages = Shape::kStages;
  const AttentionSizes& a = p.a;
  const int index = blockIdx.x / a.heads, head = blockIdx.x % a.heads, kv = head / a.group;
  if (index >= *p.plan.count) return;
  const Tile tile = p.plan.tiles[index];
  const Span& span = tile.span;
  const int begin = span.low(a, tile.first), end = span.high(a, tile.first + tile.count - 1) + 1;
  const int tiles = end > begin ? (end - begin + kKeys - 1) / kKeys : 0;
  const int64_t first_row = span.q_begin + tile.first;

  char* const shared = shared_memory();
  const uint32_t q_at = shared_address(shared), k_at = q_at + Queries::kBytes, v_at = k_at + kStages * Keys::kBytes;
  const Pipeline<kStages> keys{v_at + kStages * Keys::kBytes}, values{keys.at + Pipeline<kStages>::kBytes};
  uint32_t* const numbers = reinterpret_cast<uint32_t*>(shared + (values.at + Pipeline<kStages>::kBytes - q_at));
  if (threadIdx.x == 0) keys.init(kGroup / 2), values.init(kGroup / 2);
  __syncthreads();

  if (threadIdx.x < kGroup) {  // half of them copy q and the keys, the others the values
    give_registers<kCopyRegisters>();
    constexpr int kCopiers = kGroup / 2;
    const int me = threadIdx.x % kCopiers;
    const bool of_values = threadIdx.x >= kCopiers;
    const Pipeline<kStages> line = of_values ? values : keys;
    const T* const from = of_values ? p.v : p.k;
    const int64_t stride = of_values ? a.v_stride : a.k_stride;
    const uint32_t to = of_values ? v_at : k_at;
    if (tiles > 0 && !of_values)
      copy_panels<T, D, Shape::kQueries, kCopiers>(q_at, p.q + first_row * a.q_stride + head * a.head_dim, a.q_stride, tile.count, a.head_dim, me);
    for (int n = 0; n < tiles; ++n) {
      line.wait_empty(n);
      const int first = begin + n * kKeys;
      copy_panels<T, D, kKeys, kCopiers>(to + n % kStages * Keys::kBytes, from + (span.k_begin + first) * stride + kv * a.head_dim, stride, end - first, a.head_dim, me);
      if (kDrop && !of_values)
        for (int k = me; k < kKeys; k += kCopiers) numbers[n % Shape::kNumbers * kKeys + k] = number_of_key(a, first + k);
      line.filled(n);
    }
    return;
  }

  take_registers<kWorkRegisters>();
  const int worker = threadIdx.x - kGroup, lane = worker % 32, warp = worker / 32, g = lane / 4, t = lane % 4;
  const int group_row = worker / kGroup * 64, warp_row = warp * 16;
  const int i0 = tile.first + group_row, i1 = min(i0 + 64, tile.first + tile.count) - 1;
  const float factor = a.scale * kLog2e;
  const uint32_t of_row[2] = {number_of_row(a, first_row + warp_row + g, head), number_of_row(a, first_row + warp_row + 8 + g, head)};
  float out[D / 8][4], s[kKeys / 8][4];
  uint32_t weights[kKeys / 16][4];
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f}, rescale[2];  // of rows g and g + 8: the largest score so far, this thread's share of the sum
#pragma unroll
  for (int c = 0; c < D / 8; ++c)
#pragma unroll
    for (int e = 0; e < 4; ++e) out[c][e] = 0.0f;

  const auto begin_scores = [&](int n) {
    keys.wait_full(n);
    const uint32_t tile_at = k_at + n % kStages * Keys::kBytes;
    products_begin();
#pragma unroll
    for (int k = 0; k < D / 16; ++k) multiply_shared<T>(s, Queries::along_rows(q_at, group_row, k), Keys::along_rows(tile_at, 0, k), k > 0);
    products_end();
  };
  const auto begin_sums = [&](int n) {
    values.wait_full(n);
    const uint32_t tile_at = v_at + n % kStages * Keys::kBytes;
    products_begin();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) multiply_held<T>(out, weights[k], Keys::down_columns(tile_at, k));
    products_end();
  };
  const auto weigh = [&](int n) {  // scores become weights; the sums so far are to be rescaled
    const int k0 = begin + n * kKeys;
    if (!span.all_see(a, i0, i1, k0, k0 + kKeys - 1)) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int i = tile.first + warp_row + h * 8 + g, high = span.high(a, i) - k0 - 2 * t, low = span.low(a, i) - k0 - 2 * t;
#pragma unroll
        for (int c = 0; c < kKeys / 8; ++c)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (c * 8 + e > high || c * 8 + e < low) s[c][2 * h + e] = -INFINITY;
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most = top[h];
#pragma unroll
      for (int c = 0; c < kKeys / 8; ++c) most = fmaxf(most, fmaxf(s[c][2 * h], s[c][2 * h + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float shift = most == -INFINITY ? 0.0f : most * factor;  // nothing seen yet: -inf - 0 stays -inf
      rescale[h] = exp2_fast(top[h] * factor - shift);
      top[h] = most;
      float share = 0.0f;
#pragma unroll
      for (int c = 0; c < kKeys / 8; ++c)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; ++e) {
          s[c][e] = exp2_fast(fmaf(s[c][e], factor, -shift));
          share += s[c][e];
        }
      sum[h] = sum[h] * rescale[h] + share;
    }
    if constexpr (kDrop) {
      const uint32_t* const of_keys = numbers + n % Shape::kNumbers * kKeys + 2 * t;
#pragma unroll
      for (int c = 0; c < kKeys / 8; ++c) {
        const uint2 of_key = *reinterpret_cast<const uint2*>(of_keys + c * 8);
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (is_dropped(a, of_row[e / 2], e & 1 ? of_key.y : of_key.x)) s[c][e] = 0.0f;
      }
    }
  };
  const auto pack_weights = [&]() {
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) pack_operand<T>(weights[k], s, k);
  };

  if (tiles > 0) {
    begin_scores(0);
    products_wait<0>();
    hold(s);
    keys.emptied(0);
    weigh(0);
    pack_weights();
  }
  for (int n = 1; n < tiles; ++n) {
    begin_scores(n);
    begin_sums(n - 1);
    products_wait<1>();
    hold(s);
    keys.emptied(n);
    weigh(n);
    products_wait<0>();
    hold(out);
    values.emptied(n - 1);
#pragma unroll
    for (int c = 0; c < D / 8; ++c)
#pragma unroll
      for (int e = 0; e < 4; ++e) out[c][e] *= rescale[e / 2];
    pack_weights();
  }
  if (tiles > 0) {
    begin_sums(tiles - 1);
    products_wait<0>();
    hold(out);
  }

  const int valid = tile.count - warp_row;
  const int64_t row = first_row + warp_row;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float total = sum[h];
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    const float inverse = total == 0.0f ? 0.0f : a.kept / total;
#pragma unroll
    for (int c = 0; c < D / 8; ++c) out[c][2 * h] *= inverse, out[c][2 * h + 1] *= inverse;
    const int r = h * 8 + g;
    if (t == 0 && r < valid) p.lse[(row + r) * a.heads + head] = top[h] * a.scale + logf(total);
  }
  barrier_of(kWorkersBarrier, kWorkers);  // the memory of q's rows is used again
  write_rows<T, D, 1>(shared + warp_row * D * 2, reinterpret_cast<const float(&)[1][D / 8][4]>(out), p.o + row * a.o_stride + head * a.head_dim, a.o_stride, valid,
                      a.head_dim);
}

// Widths that have these kernels.
inline bool has_width(const AttentionSizes& a) { return has_wgmma() && ((a.head_dim > 32 && a.head_dim <= 64) || (a.head_dim > 96 && a.head_dim <= 128)); }
template <class F> void with_width(const AttentionSizes& a, F&& f) {
  if (a.head_dim <= 64) f(std::integral_constant<int, 64>());
  else f(std::integral_constant<int, 128>());
}

template <class T, int D> void run_forward(ForwardArgs<T>& p) {
  using Shape = ForwardShape<D>;
  p.plan = plan_attention(p.a, Shape::kQueries, 0).queries;
  launch("attention", p.a.drops ? attend<T, D, true> : attend<T, D, false>, p.plan.most * p.a.heads, kBlock, Shape::kBytes, p);
}

}  // namespace warpgroups
}  // namespace cuda
}  // namespace tunebook
