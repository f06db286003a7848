// What the backward pass of a LoRA layer takes from the gradient dy of its output (rows x cols): dh = alpha dy b and db = alpha dyᵀ h, b and h having few columns. Both
// are bound by reading dy, so one kernel reads it once for both: a block goes down 128 rows at a time over 512 columns, and a second kernel adds the blocks' sums in a
// fixed order. Measured on an H200 at 8,192 x 14,336 and rank 16: 0.092 ms, two products by cuBLASLt 0.121; of ranks above 16 the two products are faster.
#include "gemm.h"
#include "mma.cuh"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kRank = 16;  // columns of b and h, padded with zeros
constexpr int kThreads = 256, kTile = 128, kTilesAcross = 4, kColumns = kTile * kTilesAcross, kStages = 5;
constexpr int kTileBytes = kTile * kTile * 2, kHRow = (kRank + 8) * 2, kHBytes = kTile * kHRow, kBBytes = kRank * kColumns * 2;
constexpr int kB = kStages * kTileBytes, kH = kB + kBBytes, kSharedBytes = kH + kStages * kHBytes;

struct Work {
  const void* dy;
  const void* b;  // cols x rank, rows after one another; float32 or of dy's type
  const void* h;  // rows x rank
  float* part_dh;  // (blocks of columns) x rows x kRank
  float* part_db;  // (blocks of rows) x cols x kRank
  int64_t rows, cols, ld_h, rows_a_block;
  int rank;
  bool b_float32;
};

template <class T> __device__ inline T b_item(const Work& w, int64_t c, int j) {
  if (j >= w.rank || c >= w.cols) return from_float<T>(0.0f);
  return w.b_float32 ? from_float<T>(static_cast<const float*>(w.b)[c * w.rank + j]) : static_cast<const T*>(w.b)[c * w.rank + j];
}

__device__ inline void store_sums(float* to, const float (&c)[2][4], int half) {
#pragma unroll
  for (int n = 0; n < 2; ++n) *reinterpret_cast<float2*>(to + 8 * n) = make_float2(c[n][2 * half], c[n][2 * half + 1]);
}

template <class T> __global__ void __launch_bounds__(kThreads, 1) sum_blocks(Work w) {
  using Tile = SharedRows<kTile>;
  using Wide = SharedRows<kColumns>;
  char* memory = shared_memory();
  const uint32_t base = shared_address(memory);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, g = lane / 4, c2 = 2 * (lane % 4);
  const int64_t column0 = (int64_t)blockIdx.x * kColumns, row0 = (int64_t)blockIdx.y * w.rows_a_block;
  const int64_t row_end = row0 + w.rows_a_block < w.rows ? row0 + w.rows_a_block : w.rows;
  const int across = w.cols - column0 >= kColumns ? kTilesAcross : (int)((w.cols - column0 + kTile - 1) / kTile);
  const int down = (int)((row_end - row0 + kTile - 1) / kTile), tiles = across * down;

  int next = 0, next_row = 0, next_column = 0;  // the tile to fetch; with the first of a row of tiles comes its part of h
  auto fetch = [&] {
    if (next < tiles) {
      const int64_t row = row0 + (int64_t)next_row * kTile;
      const int chunk = thread % 16, first = thread / 16;
      const int64_t column = column0 + next_column * kTile + chunk * 8;
      const T* from = static_cast<const T*>(w.dy) + (row + first) * w.cols + column;
      const uint32_t to = base + next % kStages * kTileBytes;
#pragma unroll
      for (int i = 0; i < kTile / 16; ++i) {
        const bool there = row + first + 16 * i < w.rows && column < w.cols;
        copy_async_16(to + Tile::at(first + 16 * i, chunk), there ? from + (int64_t)16 * i * w.cols : w.dy, there ? 16 : 0);
      }
      if (next_column == 0) {
        const int r = thread / 2, part = thread % 2;
        const bool there = row + r < w.rows && part * 8 < w.rank;
        copy_async_16(base + kH + next_row % kStages * kHBytes + r * kHRow + part * 16, there ? static_cast<const T*>(w.h) + (row + r) * w.ld_h + part * 8 : w.h,
                      there ? 16 : 0);
      }
      if (++next_column == across) {
        next_column = 0;
        ++next_row;
      }
    }
    ++next;
    copy_commit();
  };
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) fetch();
  for (int i = thread; i < kColumns * kRank; i += kThreads) {
    const int c = i / kRank, j = i % kRank;
    *reinterpret_cast<T*>(memory + kB + Wide::at(j, c / 8) + c % 8 * 2) = b_item<T>(w, column0 + c, j);
  }

  const uint32_t tile_rows = Tile::lane_of_rows(lane), tile_columns = Tile::lane_of_columns(lane), b_columns = Wide::lane_of_columns(lane);
  float db[kTilesAcross][2][4] = {};
  int at = 0;
  for (int r = 0; r < down; ++r) {
    float dh[2][4] = {};
    const uint32_t h = base + kH + r % kStages * kHBytes + (lane & 15) * kHRow + (lane >> 4) * 16;
#pragma unroll
    for (int a = 0; a < kTilesAcross; ++a) {
      if (a >= across) break;
      copy_wait<kStages - 2>();
      __syncthreads();
      fetch();
      const uint32_t tile = base + at % kStages * kTileBytes;
      ++at;
#pragma unroll
      for (int k = 0; k < kTile / 16; ++k) {
        uint32_t x[4], y[4];
        load_matrices(x, tile + Tile::block(tile_rows, warp, 2 * k));
        load_matrices(y, base + kB + Wide::block(b_columns, 0, a * (kTile / 8) + 2 * k));
        multiply_add<T>(dh[0], x, y[0], y[1]);
        multiply_add<T>(dh[1], x, y[2], y[3]);
        load_matrices_transposed(x, tile + Tile::block(tile_columns, k, 2 * warp));
        load_matrices_transposed(y, h + k * 16 * kHRow);
        multiply_add<T>(db[a][0], x, y[0], y[1]);
        multiply_add<T>(db[a][1], x, y[2], y[3]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = row0 + (int64_t)r * kTile + 16 * warp + g + 8 * half;
      if (row < w.rows) store_sums(w.part_dh + ((int64_t)blockIdx.x * w.rows + row) * kRank + c2, dh, half);
    }
  }
#pragma unroll
  for (int a = 0; a < kTilesAcross; ++a)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t column = column0 + a * kTile + 16 * warp + g + 8 * half;
      if (column < w.cols) store_sums(w.part_db + ((int64_t)blockIdx.y * w.cols + column) * kRank + c2, db[a], half);
    }
}

// y (lines x rank, row stride ld) = alpha * sum of `count` parts + beta * y, a thread for four items.
template <class T> struct Sums {
  const float* parts;
  T* y;
  int64_t lines, ld;
  int count, rank;
  float alpha, beta;
};
template <class T> __device__ inline void add_parts(const Sums<T>& p, int64_t i) {
  constexpr int kFours = kRank / 4;
  const int64_t line = i / kFours;
  const int j = 4 * (int)(i % kFours);
  if (line >= p.lines || j >= p.rank) return;
  float sum[4] = {};
  const float* from = p.parts + line * kRank + j;
#pragma unroll 4
  for (int c = 0; c < p.count; ++c) {
    float v[4];
    load_floats<4>(from + c * p.lines * kRank, v);
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[e] += v[e];
  }
  T* y = p.y + line * p.ld + j;
#pragma unroll
  for (int e = 0; e < 4; ++e)
    if (j + e < p.rank) y[e] = from_float<T>(p.alpha * sum[e] + (p.beta != 0.0f ? p.beta * to_float(y[e]) : 0.0f));
}
template <class T> __global__ void __launch_bounds__(256) add_blocks(Sums<T> dh, Sums<float> db, int64_t blocks_dh) {
  if (blockIdx.x < blocks_dh) add_parts(dh, blockIdx.x * (int64_t)256 + threadIdx.x);
  else add_parts(db, (blockIdx.x - blocks_dh) * (int64_t)256 + threadIdx.x);
}

// So many that the multiprocessors share the work evenly; the start of a block costs about as much as 32 rows.
int64_t rows_of_a_block(int64_t rows, int64_t cols) {
  const int64_t across = blocks_for(cols, kColumns), tiles = blocks_for(rows, kTile);
  int64_t best = 1, best_cost = INT64_MAX;
  for (int64_t each = blocks_for(tiles, 65535); each <= tiles; ++each) {
    const int64_t cost = blocks_for(across * blocks_for(tiles, each), device.multiprocessors) * (4 * each + 1);
    if (cost > best_cost) continue;
    best = each;
    best_cost = cost;
  }
  return best * kTile;
}

template <class T> void from_one_reading(const low_rank_gradients_args& g) {
  const int64_t each = rows_of_a_block(g.rows, g.cols), across = blocks_for(g.cols, kColumns), down = blocks_for(g.rows, each);
  Work w{g.dy.data, g.b.data, g.h.data, nullptr, nullptr, g.rows, g.cols, g.ld_h, each, (int)g.rank, g.b.dtype == DType::Float32};
  w.part_dh = scratch_of<float>(kPartials, across * g.rows * kRank);
  w.part_db = scratch_of<float>(kPartials2, down * g.cols * kRank);
  check(cudaFuncSetAttribute(sum_blocks<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes), "low_rank_gradients");
  sum_blocks<T><<<dim3((unsigned)across, (unsigned)down), kThreads, kSharedBytes, device.stream>>>(w);
  launched("low_rank_gradients");
  const Sums<T> dh{w.part_dh, g.dh.as<T>(), g.rows, g.ld_dh, (int)across, (int)g.rank, g.alpha, 0.0f};
  const Sums<float> db{w.part_db, g.db.f32(), g.cols, g.rank, (int)down, (int)g.rank, g.alpha, g.beta};
  const int64_t blocks_dh = blocks_for(g.rows * (kRank / 4), 256), blocks_db = blocks_for(g.cols * (kRank / 4), 256);
  add_blocks<T><<<(unsigned)(blocks_dh + blocks_db), 256, 0, device.stream>>>(dh, db, blocks_dh);
  launched("low_rank_gradients");
}

// 227 KiB of shared memory a block came with compute capability 9.0.
bool one_reading_serves(const low_rank_gradients_args& g) {
  const DType type = g.dy.dtype;
  return device.major >= 9 && (type == DType::BFloat16 || type == DType::Float16) && g.h.dtype == type && g.dh.dtype == type && g.rank <= kRank && g.rank % 8 == 0 &&
         g.rows >= 1024 && g.cols >= 512 && g.cols % 8 == 0 && g.ld_h % 8 == 0 && (g.b.dtype == DType::Float32 || g.b.dtype == type) && aligned(16, g.dy.data, g.h.data);
}

void low_rank_gradients(const low_rank_gradients_args& g) {
  check_matrix("dy", g.dy, g.rows, g.cols, g.cols);
  check_matrix("h", g.h, g.rows, g.rank, g.ld_h);
  check_matrix("b", g.b, g.cols, g.rank, g.rank);
  check_matrix("dh", g.dh, g.rows, g.rank, g.ld_dh);
  check_matrix("db", g.db, g.cols, g.rank, g.rank);
  if (g.db.dtype != DType::Float32) fail("db must be float32");
  if (g.rows <= 0 || g.cols <= 0 || g.rank <= 0) fail("rows, cols and rank are %lld, %lld and %lld, expected at least 1", (long long)g.rows, (long long)g.cols, (long long)g.rank);
  if (one_reading_serves(g)) {
    if (g.dy.dtype == DType::BFloat16) return from_one_reading<__nv_bfloat16>(g);
    return from_one_reading<__half>(g);
  }
  const DType type = product_type(g.dy.dtype, g.h.dtype, 0);
  Product p{g.rows, g.rank, g.cols};
  p.a = as_type({g.dy.data, g.dy.dtype, g.cols}, 1, g.rows, g.cols, type, kOperandA);
  p.b = as_type({g.b.data, g.b.dtype, g.rank}, 1, g.cols, g.rank, type, kOperandB);
  p.y = g.dh;
  p.ldy = g.ld_dh;
  p.alpha = g.alpha;
  multiply(p);
  Product q{g.cols, g.rank, g.rows};
  q.a = p.a;
  q.a.transposed = true;
  q.b = as_type({g.h.data, g.h.dtype, g.ld_h}, 1, g.rows, g.rank, type, kOperandB);
  q.y = g.db;
  q.ldy = g.rank;
  q.alpha = g.alpha;
  q.beta = g.beta;
  multiply(q);
}

}  // namespace

void register_low_rank_gradients(Backend& b) { b.low_rank_gradients = low_rank_gradients; }

}  // namespace cuda
}  // namespace tunebook
