// Large products of 16-bit matrices by warpgroup products (compute capability 9.0a): y = sum of a_i op(b_i) + bias. So the gradient of an input
// that several layers read is written once, and the low-rank update of a LoRA layer is one more step of the same sums: its factors are read, nothing of it is written.
//
// Two blocks that lie below each other form a cluster: each copies its own rows of a and half of the columns of b, for both. In a block one thread asks for the copies and
// two warpgroups multiply, 64 rows by 256 columns each (128 where wide tiles would leave much of the device idle); blocks stay and take tile after tile, so that copies for
// the next one run while a tile is written. Every sum runs along k in one order: two runs give the same bits, and tiles of either width the same.
#pragma once
#include <cuda.h>

#include "wgmma.cuh"

namespace tunebook {
namespace cuda {
namespace product {

constexpr int kRows = 128, kWide = 256, kNarrow = 128, kTerms = 64;
constexpr int kGroup = 128, kWorkers = 2 * kGroup, kBlock = kGroup + kWorkers, kWorkerWarps = kWorkers / 32;
constexpr int kCopyRegisters = 24, kWorkRegisters = 240;
using A = Panels<kTerms, kRows>;
// Where a warp puts what it writes: 16 rows of 128 items, as two panels.
constexpr int kStagingPanel = 16 * 128, kStaging = 2 * kStagingPanel;
constexpr int kWriteLater = 2;  // the step of the next tile at which the second half of a tile is written
// Tiles of 2 x kRows by kColumns.
template <int kColumns> struct Tiles {
  using BAlong = Panels<kTerms, kColumns>;  // b stored n x k: sums run along its rows
  using BDown = Panels<kColumns, kTerms>;   // b stored k x n: sums run down its columns
  static_assert(BAlong::kBytes == BDown::kBytes, "a stage holds either");
  static constexpr int kStageBytes = A::kBytes + BAlong::kBytes, kStages = kColumns == kWide ? 4 : 6;
  static constexpr int kBytes = kStages * kStageBytes + kWorkerWarps * kStaging + 2 * kStages * 8;
};
constexpr int kPairsDown = 8;  // tiles go down this many clusters before the next column of tiles: what runs at once then reads few rows and columns

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define TB_PAIRS __cluster_dims__(2, 1, 1)
#else
#define TB_PAIRS
#endif

struct Args {
  CUtensorMap a[kMostParts], b[kMostParts], y;
  const void* bias;
  int n;
  int ends[kMostParts];     // steps of 64 terms up to the end of each part
  int steps, last_sixteens;  // whole steps, those of the last part included; sixteens of terms that it has besides
  int pairs, columns;       // of tiles
};

__device__ inline uint32_t rank_in_cluster() {
  uint32_t r = 0;
  TB_HOPPER_ASM("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}
__device__ inline void cluster_sync() {
  TB_HOPPER_ASM("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
// Arrives at the barrier at this address in block `rank` of the cluster. What is told is that something was read, so nothing has to be released to the other block: at the
// scope of the cluster that would be a fence for the whole GPU.
__device__ inline void arrive_at(uint32_t barrier, uint32_t rank) {
  TB_HOPPER_ASM("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\nmbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(rank)
                : "memory");
}
__device__ inline void expect_bytes(uint32_t barrier, int bytes) {
  TB_HOPPER_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// A box of a matrix from (column, row) on, to this block, or to the same place in both blocks of the cluster; what lies outside the matrix is zero.
__device__ inline void copy_box(uint32_t to, const CUtensorMap* map, int column, int row, uint32_t barrier) {
  TB_HOPPER_ASM("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(map), "r"(column), "r"(row),
                "r"(barrier)
                : "memory");
}
__device__ inline void copy_box_to_both(uint32_t to, const CUtensorMap* map, int column, int row, uint32_t barrier) {
  TB_HOPPER_ASM(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to), "l"(map), "r"(column),
      "r"(row), "r"(barrier), "h"((uint16_t)3)
      : "memory");
}
// What is written leaves the second-level cache first: the operands, which other blocks read again, stay.
__device__ inline void write_box(const CUtensorMap* map, int column, int row, uint32_t from) {
  TB_HOPPER_ASM(
      "{\n.reg .b64 policy;\ncreatepolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group.L2::cache_hint [%0, {%1, %2}], [%3], policy;\n}" ::"l"(map),
      "r"(column), "r"(row), "r"(from)
      : "memory");
}
__device__ inline void store_matrices(uint32_t address, const uint32_t (&r)[4]) {
  TB_HOPPER_ASM("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
}

#define TB_ALL(d) TB_BOTH(d), TB_HALF(d, 16), TB_HALF(d, 24)
#define TB_LIST_128 \
  TB_LIST_64 ", " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define TB_TILE(N, LIST, OUT, A, B, ADD, TYPE, DOWN) \
  TB_HOPPER_ASM("{\n.reg .pred add;\nsetp.ne.b32 add, " ADD ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" LIST "}, " A ", " B ", add, 1, 1, 0, " DOWN ";\n}" \
                : OUT(d) : "l"(a), "l"(b), "r"(add))
// d (64 x N) (+)= a b over 16 terms; kDown: b's sums run down its columns.
#define TB_MULTIPLY_TILE(N, LIST, OUT, A, B, ADD) \
  template <class T, bool kDown> __device__ inline void multiply_tile(float (&d)[N / 8][4], uint64_t a, uint64_t b, int add) { \
    if constexpr (kIsBf16<T> && kDown) TB_TILE(N, LIST, OUT, A, B, ADD, "bf16", "1"); \
    else if constexpr (kIsBf16<T>) TB_TILE(N, LIST, OUT, A, B, ADD, "bf16", "0"); \
    else if constexpr (kDown) TB_TILE(N, LIST, OUT, A, B, ADD, "f16", "1"); \
    else TB_TILE(N, LIST, OUT, A, B, ADD, "f16", "0"); \
  }
TB_MULTIPLY_TILE(256, TB_LIST_128, TB_ALL, "%128", "%129", "%130")
TB_MULTIPLY_TILE(128, TB_LIST_64, TB_BOTH, "%64", "%65", "%66")

// The tile that a cluster takes: its first rows (of the pair) and columns.
template <int kColumns> __device__ inline void tile_of(const Args& p, int index, int* row, int* column) {
  const int each = kPairsDown * p.columns, first = index / each * kPairsDown, high = min(kPairsDown, p.pairs - first), within = index - first * p.columns;
  *row = (first + within % high) * 2 * kRows;
  *column = within / high * kColumns;
}

template <class T, int kColumns, bool kDown, bool kBias> __global__ void TB_PAIRS __launch_bounds__(kBlock, 1) multiply_tiles(const __grid_constant__ Args p) {
  using Shape = Tiles<kColumns>;
  using BAlong = typename Shape::BAlong;
  using BDown = typename Shape::BDown;
  constexpr int kStages = Shape::kStages, kStageBytes = Shape::kStageBytes, kHalves = kColumns / 128;
  const uint32_t base = shared_address(shared_memory()), staging = base + kStages * kStageBytes, full = staging + kWorkerWarps * kStaging, empty = full + kStages * 8;
  const uint32_t rank = rank_in_cluster();
  const int tiles = p.pairs * p.columns, clusters = gridDim.x / 2, all_steps = p.steps + (p.last_sixteens > 0);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(full + i * 8, 1);
      barrier_init(empty + i * 8, 2 * kWorkerWarps);
    }
    TB_HOPPER_ASM("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_sync();

  if (threadIdx.x < kGroup) {
    give_registers<kCopyRegisters>();
    if (threadIdx.x == 0) {
      int use = 0;
      for (int tile = blockIdx.x / 2; tile < tiles; tile += clusters) {
        int row, column;
        tile_of<kColumns>(p, tile, &row, &column);
        row += rank * kRows;
        for (int step = 0, part = 0, k = 0; step < all_steps; ++step, ++use, k += kTerms) {
          if (step == p.ends[part]) ++part, k = 0;
          const int stage = use % kStages;
          if (use >= kStages) barrier_wait(empty + stage * 8, (use / kStages - 1) & 1);
          const uint32_t ready = full + stage * 8, a_at = base + stage * kStageBytes, b_at = a_at + A::kBytes;
          const CUtensorMap *const a = &p.a[part], *const b = &p.b[part];
          expect_bytes(ready, kStageBytes);
          copy_box(a_at, a, k, row, ready);
          if constexpr (kDown) {
            for (int i = 0; i < kHalves; ++i) {
              const int panel = kHalves * rank + i;
              copy_box_to_both(b_at + panel * BDown::kPanel, b, column + panel * 64, k, ready);
            }
          } else {
            copy_box_to_both(b_at + rank * (BAlong::kBytes / 2), b, k, column + rank * (kColumns / 2), ready);
          }
        }
      }
    }
  } else {
    take_registers<kWorkRegisters>();
    const int worker = threadIdx.x - kGroup, lane = worker % 32, warp = worker / 32, group_row = __shfl_sync(0xffffffffu, worker / kGroup, 0) * 64;
    const uint32_t mine = staging + warp * kStaging;
    const auto emptied = [&](int use) {
      __syncwarp();
      if (lane < 2) arrive_at(empty + use % kStages * 8, lane);
    };
    // A wide tile is rounded and written in two halves of 128 columns: the first at once, the second, kept in `later`, while the next tile is being summed. A narrow one
    // is a second half.
    uint32_t later[8][4];
    int later_row = 0, later_column = -1;
    const auto write = [&](const uint32_t (&items)[8][4], int at_row, int at_column) {
      if (lane == 0) TB_HOPPER_ASM("cp.async.bulk.wait_group.read 0;" ::: "memory");  // what stood in the staging memory is on its way
      __syncwarp();
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        const int r = lane % 16, chunk = 2 * c + lane / 16;
        store_matrices(mine + (chunk >> 3) * kStagingPanel + r * 128 + (((chunk & 7) ^ (r & 7)) << 4), items[c]);
      }
      fence_shared();
      __syncwarp();
      if (lane == 0) {
        write_box(&p.y, at_column, at_row, mine);
        write_box(&p.y, at_column + 64, at_row, mine + kStagingPanel);
        TB_HOPPER_ASM("cp.async.bulk.commit_group;" ::: "memory");
      }
    };
    int use = 0;
    for (int tile = blockIdx.x / 2; tile < tiles; tile += clusters) {
      float d[kColumns / 8][4];
      for (int step = 0; step < p.steps; ++step, ++use) {
        const uint32_t a_at = base + use % kStages * kStageBytes, b_at = a_at + A::kBytes;
        barrier_wait(full + use % kStages * 8, use / kStages & 1);
        products_begin();
#pragma unroll
        for (int k = 0; k < kTerms / 16; ++k)
          multiply_tile<T, kDown>(d, A::along_rows(a_at, group_row, k), kDown ? BDown::down_columns(b_at, k) : BAlong::along_rows(b_at, 0, k), step | k);
        products_end();
        if (step > 0) {
          products_wait<1>();
          emptied(use - 1);
        }
        if (step == kWriteLater && later_column >= 0) {
          write(later, later_row, later_column);
          later_column = -1;
        }
      }
      if (p.last_sixteens > 0) {
        const uint32_t a_at = base + use % kStages * kStageBytes, b_at = a_at + A::kBytes;
        barrier_wait(full + use % kStages * 8, use / kStages & 1);
        products_begin();
        for (int k = 0; k < p.last_sixteens; ++k)
          multiply_tile<T, kDown>(d, A::along_rows(a_at, group_row, k), kDown ? BDown::down_columns(b_at, k) : BAlong::along_rows(b_at, 0, k), 1);
        products_end();
        products_wait<1>();
        emptied(use - 1);
        ++use;
      }
      products_wait<0>();
      hold(d);
      emptied(use - 1);
      if (later_column >= 0) write(later, later_row, later_column);

      int row, column;
      tile_of<kColumns>(p, tile, &row, &column);
      later_row = row + rank * kRows + warp * 16;
      later_column = column + kColumns - 128;
      uint32_t first[8][4];
#pragma unroll
      for (int half = 0; half < kHalves; ++half)
#pragma unroll
        for (int c = 0; c < 8; ++c)
#pragma unroll
          for (int q = 0; q < 4; ++q) {  // rows g, and g + 8 where q is odd
            const int j = half * 16 + 2 * c + q / 2, e = q % 2 * 2, at = column + j * 8 + lane % 4 * 2;
            float v0 = d[j][e], v1 = d[j][e + 1];
            if (kBias && at < p.n) v0 += to_float(static_cast<const T*>(p.bias)[at]), v1 += to_float(static_cast<const T*>(p.bias)[at + 1]);
            (half + 1 < kHalves ? first : later)[c][q] = pack_pair<T>(v0, v1);
          }
      if constexpr (kHalves > 1) write(first, later_row, column);
    }
    if (later_column >= 0) write(later, later_row, later_column);
    TB_HOPPER_ASM("cp.async.bulk.wait_group 0;" ::: "memory");
  }
  cluster_sync();  // the other block may still write here, or arrive
}

}  // namespace product
}  // namespace cuda
}  // namespace tunebook
