// y = alpha * a op(b) + beta * y for products of few terms (the update of a LoRA layer: k is its rank), bound by reading and writing y. A warp keeps its columns of b in
// registers and goes down the rows. cuBLASLt's kernels reach half of the memory's bandwidth where y is read; and an update that is far smaller than y, which has been
// rounded already, is lost to them when the sum is rounded to the nearest number. So here a sum is rounded up or down, the nearer number being likelier: in the mean it stays.
#include "gemm.h"
#include "hash.cuh"
#include "mma.cuh"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kMostTerms = 64;

struct Update {
  const void *a, *b;
  void* y;
  int64_t m, n, k, lda, ldb, ldy;
  float alpha, beta;
  bool b_transposed, b_float32;
};

template <class T> __device__ inline float item_of(const Update& p, int64_t k, int64_t column) {
  if (k >= p.k || column >= p.n) return 0.0f;
  const int64_t i = p.b_transposed ? column * p.ldb + k : k * p.ldb + column;
  return p.b_float32 ? static_cast<const float*>(p.b)[i] : to_float(static_cast<const T*>(p.b)[i]);
}

// v rounded up or down: up with the probability of what is cut off, `bits` being 16 random ones. What T holds exactly stays.
template <class T> __device__ inline T rounded_in_the_mean(float v, uint32_t bits) {
  constexpr uint32_t kCut = std::is_same_v<T, __half> ? 0x1fffu : 0xffffu;  // of a float32's 23 bits
  const uint32_t word = __float_as_uint(v);
  if ((word & 0x7f800000u) == 0x7f800000u) return from_float<T>(v);  // infinities and NaN
  return from_float<T>(__uint_as_float((word + (bits & kCut)) & ~kCut));
}

// How a block goes over y: groups of 32 columns a warp, tiles of 16 rows at once, warps, rows in all. Measured on an H200 (TB/s of y at 8,192 x 14,336, k 16): where y is
// read, whole lines of 128 bytes a row count (1 group 2.4, 2 groups 3.4, 2 tiles at once 0.8); where it is only written, blocks of few rows (256 rows 3.5, 64 rows 4.0).
template <bool kReads> struct Shape {
  static constexpr int kGroups = kReads ? 2 : 1, kTiles = kReads ? 1 : 2, kWarps = kReads ? 4 : 8, kRows = kReads ? 128 : 64, kColumns = 32 * kGroups * kWarps;
};

// Column c of a product's 8 is what the warp calls column 2 j + c % 2 of the 8 that thread c / 2 owns (j: which of 4 products), so that a thread's items of a row lie
// together: 16 bytes.
template <class T, int kSteps, bool kReads> __global__ void __launch_bounds__(Shape<kReads>::kWarps * 32) rank_update_kernel(Update p) {
  using Over = Shape<kReads>;
  constexpr int kGroups = Over::kGroups, kTiles = Over::kTiles;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int64_t first = ((int64_t)blockIdx.x * Over::kWarps + warp) * 32 * kGroups;
  if (first >= p.n) return;
  uint32_t b[kSteps][kGroups][4][2];
#pragma unroll
  for (int s = 0; s < kSteps; ++s)
#pragma unroll
    for (int q = 0; q < kGroups; ++q)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int64_t k = 16 * s + 8 * h + 2 * t, c = first + 32 * q + 8 * (g / 2) + 2 * j + g % 2;
          b[s][q][j][h] = pack_pair<T>(item_of<T>(p, k, c), item_of<T>(p, k + 1, c));
        }
  bool owns[kGroups];
#pragma unroll
  for (int q = 0; q < kGroups; ++q) owns[q] = first + 32 * q + 8 * t < p.n;
  const int64_t begin = (int64_t)blockIdx.y * Over::kRows;
  const int count = (int)(p.m - begin < Over::kRows ? p.m - begin : Over::kRows);
  const T* a = static_cast<const T*>(p.a) + (begin + g) * p.lda + 2 * t;
  T* y = static_cast<T*>(p.y) + (begin + g) * p.ldy + first + 8 * t;
  for (int r = g; r < count + g; r += 16 * kTiles) {
    Pack<T> old[kTiles][2][kGroups];
    uint32_t rows[kTiles][kSteps][4];
#pragma unroll
    for (int x = 0; x < kTiles; ++x) {
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int q = 0; q < kGroups; ++q)
          if (kReads && owns[q] && r + 16 * x + 8 * h < count) old[x][h][q] = load_pack(y + (16 * x + 8 * h) * p.ldy + 32 * q);
#pragma unroll
      for (int s = 0; s < kSteps; ++s)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = 16 * x + 8 * (i & 1), k = 16 * s + 8 * (i >> 1);
          rows[x][s][i] = r + row < count && k + 2 * t < p.k ? *reinterpret_cast<const uint32_t*>(a + row * p.lda + k) : 0u;
        }
    }
#pragma unroll
    for (int x = 0; x < kTiles; ++x)
#pragma unroll
      for (int q = 0; q < kGroups; ++q) {
        float c[4][4] = {};
#pragma unroll
        for (int s = 0; s < kSteps; ++s)
#pragma unroll
          for (int j = 0; j < 4; ++j) multiply_add<T>(c[j], rows[x][s], b[s][q][j][0], b[s][q][j][1]);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if (!owns[q] || r + 16 * x + 8 * h >= count) continue;
          Pack<T> made;
#pragma unroll
          for (int i = 0; i < 8; i += 2) {
            float v[2] = {p.alpha * c[i / 2][2 * h], p.alpha * c[i / 2][2 * h + 1]};
            if constexpr (kReads) {
              v[0] += p.beta * to_float(old[x][h][q].v[i]);
              v[1] += p.beta * to_float(old[x][h][q].v[i + 1]);
              // The place and the sum itself are what is random: a run that is repeated has the same bits.
              const uint32_t place = (uint32_t)((begin + r + 16 * x + 8 * h) * p.n + first + 32 * q + 8 * t + i);
              const uint32_t bits = mix(place * 0x9e3779b1u ^ __float_as_uint(v[0]) ^ (__float_as_uint(v[1]) << 7));
              made.v[i] = rounded_in_the_mean<T>(v[0], bits & 0xffffu);
              made.v[i + 1] = rounded_in_the_mean<T>(v[1], bits >> 16);
            } else {
              made.v[i] = from_float<T>(v[0]);
              made.v[i + 1] = from_float<T>(v[1]);
            }
          }
          store_pack(y + (16 * x + 8 * h) * p.ldy + 32 * q, made);
        }
      }
    a += 16 * kTiles * p.lda;
    y += 16 * kTiles * p.ldy;
  }
}

template <class T, bool kReads> void launch_update(const Update& p) {
  using Over = Shape<kReads>;
  const dim3 grid((unsigned)blocks_for(p.n, Over::kColumns), (unsigned)blocks_for(p.m, Over::kRows));
  const int64_t steps = blocks_for(p.k, 16);
  if (steps == 1) rank_update_kernel<T, 1, kReads><<<grid, Over::kWarps * 32, 0, device.stream>>>(p);
  else if (steps == 2) rank_update_kernel<T, 2, kReads><<<grid, Over::kWarps * 32, 0, device.stream>>>(p);
  else if (steps == 3) rank_update_kernel<T, 3, kReads><<<grid, Over::kWarps * 32, 0, device.stream>>>(p);
  else rank_update_kernel<T, 4, kReads><<<grid, Over::kWarps * 32, 0, device.stream>>>(p);
  launched("gemm");
}

template <class T> void launch_update(const Update& p) {
  if (p.beta != 0.0f) launch_update<T, true>(p);
  else launch_update<T, false>(p);
}

}  // namespace

bool rank_update(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, const Ref& y, int64_t ldy, float alpha, float beta) {
  const DType type = y.dtype;
  if (type == DType::Float32 || a.dtype != type || (b.dtype != type && b.dtype != DType::Float32)) return false;
  if (a.transposed || k <= 0 || k > kMostTerms || k % 2 != 0 || m < kFewRows || n % 8 != 0 || ldy % 8 != 0 || a.ld % 2 != 0) return false;
  if (!aligned(16, y.data) || !aligned(4, a.data) || blocks_for(m, Shape<false>::kRows) > 65535) return false;
  const Update p{a.data, b.data, y.data, m, n, k, a.ld, b.ld, ldy, alpha, beta, b.transposed, b.dtype == DType::Float32};
  if (type == DType::BFloat16) launch_update<__nv_bfloat16>(p);
  else launch_update<__half>(p);
  return true;
}

}  // namespace cuda
}  // namespace tunebook
