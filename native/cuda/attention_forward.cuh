// Attention forward on tensor cores (16-bit): FlashAttention-2's loop (Dao 2023). A block owns a tile of queries of one head; its warps own
// rows of it, keep q's scores and the output in registers and run over tiles of keys, of which the next is copied while one is used.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

namespace tunebook {
namespace cuda {
namespace tensor_cores {

// Copies kRows x D items into shared memory; rows from `valid` on and columns from head_dim on are zeros.
template <class T, int D, int kThreads, int kRows>
__device__ inline void copy_rows(uint32_t to, const T* from, int64_t stride, int valid, int head_dim) {
  using Rows = SharedRows<D>;
  if constexpr (kThreads % (8 * Rows::kChunks) == 0 && kRows % (kThreads / Rows::kChunks) == 0) {
    constexpr int kStep = kThreads / Rows::kChunks;  // a thread keeps to one chunk of every kStep-th row, to compute and keep little
    const int me = (int)anew(threadIdx.x), row = me / Rows::kChunks, chunk = me % Rows::kChunks;
    const int left = chunk * 8 < head_dim ? valid - row : 0;
    const uint32_t place = to + Rows::at(row, chunk);
    const T* source = from + row * stride + chunk * 8;
#pragma unroll
    for (int r = 0; r < kRows; r += kStep) {
      copy_async_16(place + r * Rows::kRow, source, r < left ? 16 : 0);
      source += kStep * stride;
    }
  } else {
#pragma unroll 2
    for (int i = threadIdx.x; i < kRows * Rows::kChunks; i += kThreads) {
      const int row = i / Rows::kChunks, chunk = i % Rows::kChunks;
      const bool there = row < valid && chunk * 8 < head_dim;
      copy_async_16(to + Rows::at(row, chunk), from + row * stride + chunk * 8, there ? 16 : 0);
    }
  }
}

// A warp's accumulators (kM x 16 rows x D) go to global memory through the shared memory of the same rows, 16 bytes at a time.
template <class T, int D, int kM>
__device__ inline void write_rows(char* shared, const float (&x)[kM][D / 8][4], T* to, int64_t stride, int valid, int head_dim) {
  using Rows = SharedRows<D>;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        *reinterpret_cast<uint32_t*>(shared + Rows::at(m * 16 + h * 8 + g, n) + t * 4) = pack_pair<T>(x[m][n][2 * h], x[m][n][2 * h + 1]);
  __syncwarp();
  for (int i = lane; i < kM * 16 * Rows::kChunks; i += 32) {
    const int row = i / Rows::kChunks, chunk = i % Rows::kChunks;
    if (row < valid && chunk * 8 < head_dim)
      *reinterpret_cast<uint4*>(to + row * stride + chunk * 8) = *reinterpret_cast<const uint4*>(shared + Rows::at(row, chunk));
  }
}

// c (kM x 16 rows, kN columns) += a b^T over D: both operands are rows in shared memory, `a` and `b` are lanes' addresses.
template <class T, int D, int kM, int kN>
__device__ inline void multiply_rows(float (&c)[kM][kN / 8][4], uint32_t a, uint32_t b) {
  using Rows = SharedRows<D>;
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    uint32_t left[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) load_matrices(left[m], Rows::block(a, m, 2 * k));
#pragma unroll
    for (int n = 0; n < kN / 16; ++n) {
      uint32_t right[4];
      load_matrices(right, Rows::block(b, n, 2 * k));
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        multiply_add<T>(c[m][2 * n], left[m], right[0], right[1]);
        multiply_add<T>(c[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// An accumulator's 16 columns from 16 k on as an operand A: two neighbours of an accumulator have its layout when taken together.
template <class T, int kN> __device__ inline void pack_operand(uint32_t (&p)[4], const float (&c)[kN][4], int k) {
  p[0] = pack_pair<T>(c[2 * k][0], c[2 * k][1]);
  p[1] = pack_pair<T>(c[2 * k][2], c[2 * k][3]);
  p[2] = pack_pair<T>(c[2 * k + 1][0], c[2 * k + 1][1]);
  p[3] = pack_pair<T>(c[2 * k + 1][2], c[2 * k + 1][3]);
}

// c (kM x 16 rows, D columns) += p b: p (kM x 16 rows, kK columns) stands in registers as a product left it, b is kK rows of D columns in
// shared memory.
template <class T, int D, int kM, int kK>
__device__ inline void multiply_registers(float (&c)[kM][D / 8][4], const float (&p)[kM][kK / 8][4], uint32_t b) {
  using Rows = SharedRows<D>;
#pragma unroll
  for (int k = 0; k < kK / 16; ++k) {
    uint32_t left[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) pack_operand<T>(left[m], p[m], k);
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
      uint32_t right[4];
      load_matrices_transposed(right, Rows::block(b, k, 2 * n));
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        multiply_add<T>(c[m][2 * n], left[m], right[0], right[1]);
        multiply_add<T>(c[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// Warps, 16-row pieces a warp, keys a tile, blocks that shall fit a multiprocessor: by the width D that head_dim is padded to.
template <int D> struct ForwardShape {
  static constexpr int kWarps = D <= 128 ? 4 : 8, kM = D <= 128 ? 2 : 1, kKeys = 64, kBlocks = D <= 128 ? 2 : 1;
  static constexpr int kQueries = kWarps * kM * 16, kThreads = kWarps * 32;
  static constexpr int kBytes = (kQueries + 4 * kKeys) * D * 2;
};

template <class T, int D, bool kDrop>
__global__ void __launch_bounds__(ForwardShape<D>::kThreads, ForwardShape<D>::kBlocks) attend(ForwardArgs<T> p) {
  using Shape = ForwardShape<D>;
  using Rows = SharedRows<D>;
  constexpr int kM = Shape::kM, kKeys = Shape::kKeys;
  const AttentionSizes& a = p.a;
  const int index = blockIdx.x / a.heads, head = blockIdx.x % a.heads, kv = head / a.group;
  if (index >= *p.plan.count) return;
  const Tile tile = p.plan.tiles[index];
  const Span& span = tile.span;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int begin = span.low(a, tile.first), end = span.high(a, tile.first + tile.count - 1) + 1;
  const int tiles = end > begin ? (end - begin + kKeys - 1) / kKeys : 0;

  char* const shared = shared_memory();
  const uint32_t q_at = shared_address(shared), k_at = q_at + Shape::kQueries * Rows::kRow, v_at = k_at + 2 * kKeys * Rows::kRow;
  const auto copy_keys = [&](int n) {
    const int from = begin + n * kKeys, valid = end - from;
    const int64_t row = span.k_begin + from;
    const uint32_t place = (uint32_t)((n & 1) * kKeys * Rows::kRow);
    copy_rows<T, D, Shape::kThreads, kKeys>(k_at + place, p.k + row * a.k_stride + kv * a.head_dim, a.k_stride, valid, a.head_dim);
    copy_rows<T, D, Shape::kThreads, kKeys>(v_at + place, p.v + row * a.v_stride + kv * a.head_dim, a.v_stride, valid, a.head_dim);
  };
  const int64_t first_row = span.q_begin + tile.first;
  if (tiles > 0) {
    const T* q = p.q + first_row * a.q_stride + head * a.head_dim;
    copy_rows<T, D, Shape::kThreads, Shape::kQueries>(q_at, q, a.q_stride, tile.count, a.head_dim);
    copy_keys(0);
  }
  copy_commit();

  const int warp_row = warp * kM * 16;
  const int i0 = tile.first + warp_row, i1 = min(i0 + kM * 16, tile.first + tile.count) - 1;  // i1 < i0: no query
  const uint32_t q_lane = q_at + (uint32_t)(warp_row * Rows::kRow) + Rows::lane_of_rows(lane);
  const float factor = a.scale * kLog2e;
  float out[kM][D / 8][4] = {};
  float top[kM][2], sum[kM][2];  // of rows g and g + 8: the largest score so far, this thread's share of the sum
#pragma unroll
  for (int m = 0; m < kM; ++m) top[m][0] = top[m][1] = -INFINITY, sum[m][0] = sum[m][1] = 0.0f;
  uint32_t numbers[kM][2];  // of dropout
  if constexpr (kDrop) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) numbers[m][h] = number_of_row(a, first_row + warp_row + m * 16 + h * 8 + g, head);
  }

  for (int n = 0; n < tiles; ++n) {
    copy_wait<0>();
    __syncthreads();  // tile n is there, and every warp has done with the other half of the memory
    if (n + 1 < tiles) copy_keys(n + 1);
    copy_commit();
    const int k0 = begin + n * kKeys;
    if (i1 < i0 || span.none_sees(a, i0, i1, k0, k0 + kKeys - 1)) continue;
    const uint32_t place = (uint32_t)((n & 1) * kKeys * Rows::kRow);
    float s[kM][kKeys / 8][4] = {};
    multiply_rows<T, D, kM, kKeys>(s, anew(q_lane), anew(k_at + place + Rows::lane_of_columns(lane)));
    if (!span.all_see(a, i0, i1, k0, k0 + kKeys - 1)) {
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int i = i0 + m * 16 + h * 8 + g, high = span.high(a, i) - k0 - 2 * t, low = span.low(a, i) - k0 - 2 * t;
#pragma unroll
          for (int c = 0; c < kKeys / 8; ++c)
#pragma unroll
            for (int e = 0; e < 2; ++e)
              if (c * 8 + e > high || c * 8 + e < low) s[m][c][2 * h + e] = -INFINITY;
        }
    }
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float most = top[m][h];
#pragma unroll
        for (int c = 0; c < kKeys / 8; ++c) most = fmaxf(most, fmaxf(s[m][c][2 * h], s[m][c][2 * h + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
        const float shift = most == -INFINITY ? 0.0f : most * factor;  // nothing seen yet: -inf - 0 stays -inf
        const float rescale = exp2_fast(top[m][h] * factor - shift);
        top[m][h] = most;
        float share = 0.0f;
#pragma unroll
        for (int c = 0; c < kKeys / 8; ++c)
#pragma unroll
          for (int e = 2 * h; e < 2 * h + 2; ++e) {
            s[m][c][e] = exp2_fast(s[m][c][e] * factor - shift);
            share += s[m][c][e];
          }
        sum[m][h] = sum[m][h] * rescale + share;
#pragma unroll
        for (int c = 0; c < D / 8; ++c) out[m][c][2 * h] *= rescale, out[m][c][2 * h + 1] *= rescale;
      }
    if constexpr (kDrop) drop_values(a, s, numbers, k0, t);
    multiply_registers<T, D, kM, kKeys>(out, s, anew(v_at + place + Rows::lane_of_rows(lane)));
  }

  const int valid = tile.count - warp_row;
  const int64_t row = first_row + warp_row;
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float total = sum[m][h];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const float inverse = total == 0.0f ? 0.0f : a.kept / total;
#pragma unroll
      for (int c = 0; c < D / 8; ++c) out[m][c][2 * h] *= inverse, out[m][c][2 * h + 1] *= inverse;
      const int r = m * 16 + h * 8 + g;
      if (t == 0 && r < valid) p.lse[(row + r) * a.heads + head] = top[m][h] * a.scale + logf(total);
    }
  copy_wait<0>();
  __syncthreads();  // the memory of q's rows is used again, and a block that saw no key has copied nothing into it
  write_rows<T, D, kM>(shared + warp_row * Rows::kRow, out, p.o + row * a.o_stride + head * a.head_dim, a.o_stride, valid, a.head_dim);
}

// Widths for which there are kernels with dropout; others take the next of them.
template <int D> constexpr bool kDrops = D == 64 || D == 128 || D == 256;

template <class T, int D> void run_forward(ForwardArgs<T>& p) {
  using Shape = ForwardShape<D>;
  p.plan = plan_attention(p.a, Shape::kQueries, 0).queries;
  const int64_t blocks = p.plan.most * p.a.heads;
  if constexpr (kDrops<D>) {
    if (p.a.drops) return launch("attention", attend<T, D, true>, blocks, Shape::kThreads, Shape::kBytes, p);
  }
  launch("attention", attend<T, D, false>, blocks, Shape::kThreads, Shape::kBytes, p);
}

// f of the smallest width that holds head_dim.
template <class F> void with_width(const AttentionSizes& a, F&& f) {
  const int head_dim = !a.drops ? a.head_dim : a.head_dim <= 64 ? 64 : a.head_dim <= 128 ? 128 : 256;
  if (head_dim <= 32) f(std::integral_constant<int, 32>());
  else if (head_dim <= 64) f(std::integral_constant<int, 64>());
  else if (head_dim <= 96) f(std::integral_constant<int, 96>());
  else if (head_dim <= 128) f(std::integral_constant<int, 128>());
  else if (head_dim <= 192) f(std::integral_constant<int, 192>());
  else f(std::integral_constant<int, 256>());
}

}  // namespace tensor_cores

}  // namespace cuda
}  // namespace tunebook
