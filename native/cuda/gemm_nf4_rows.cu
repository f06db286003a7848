// Up to 64 rows of activations against a 4-bit weight (decoding several sequences): bound by reading the codes, which go straight from memory into
// tensor-core operands; a restored weight would be written and read again, eight times as many bytes.
//
// A block takes 128 rows of W, a warp 16 of them, and walks along a share of the columns, 256 at a time. The activations of these columns are staged in
// shared memory for all warps, ahead of their use; the codes come into registers, ahead as well. Of 64 columns (one scale a row) lane 4g + t has columns
// 16t .. 16t+15 of rows g and g + 8: a byte of codes is a pair of neighbouring elements, which a table in shared memory (once a lane, in its own bank)
// turns into a pair of 16-bit values, and which k of the product a column is does not matter as long as the activations are arranged alike. The sums of 64
// columns meet their scale in float32.
//
// Where a weight has few rows the columns are shared among blocks; the last one of a tile to finish adds their sums in the order of the shares.
#include "mma.cuh"
#include "nf4.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kTileRows = 16 * kWarps;
constexpr int kChunk = 256, kBlocks = kChunk / 64;  // columns at a time, and the scales of a row for them
constexpr int kPitch = kChunk + 8;                  // items of a staged row: 16 bytes more, so that two rows lie in different banks
constexpr int kMostTiles = 4096, kMostShares = 16;

// Shares of a tile that are done; zero between ops.
__device__ int32_t finished[kMostTiles];

struct Task {
  Nf4 w;
  int64_t rows, cols;
  const void* a;
  int64_t lda;
  int32_t m, shares;
  Ref y, bias;
  int64_t ldy;
  float alpha, beta;
  float* part;  // shares x m x rows
};

__device__ inline float load_one(const Ref& x, int64_t i) {
  return x.dtype == DType::Float32 ? static_cast<const float*>(x.data)[i]
         : x.dtype == DType::BFloat16 ? to_float(static_cast<const __nv_bfloat16*>(x.data)[i]) : to_float(static_cast<const __half*>(x.data)[i]);
}
__device__ inline void store_one(const Ref& x, int64_t i, float v) {
  if (x.dtype == DType::Float32) static_cast<float*>(x.data)[i] = v;
  else if (x.dtype == DType::BFloat16) static_cast<__nv_bfloat16*>(x.data)[i] = from_float<__nv_bfloat16>(v);
  else static_cast<__half*>(x.data)[i] = from_float<__half>(v);
}

__device__ inline void finish(const Task& task, int i, int64_t row, float sum) {
  const int64_t at = i * task.ldy + row;
  float v = task.alpha * sum;
  if (task.beta != 0.0f) v += task.beta * load_one(task.y, at);
  if (task.bias.data != nullptr) v += load_one(task.bias, row);
  store_one(task.y, at, v);
}

// What a lane reads of a chunk: codes of rows g and g + 8, and their scales' bytes (doubly quantised) or values. kWhole: rows are whole chunks, so that the
// scales of a row's chunk are four neighbouring bytes of one group.
template <bool kWhole> struct Codes {
  uint2 q[kBlocks][2];
  uint32_t scale[kBlocks][2];
  float scale2[kWhole ? 1 : kBlocks][2];
};

template <bool kWhole>
__device__ inline void load(Codes<kWhole>& c, const Task& task, int64_t row0, int64_t chunk, int g, int t) {
  const Nf4& w = task.w;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int64_t row = min(row0 + g + 8 * half, task.rows - 1);  // rows past the end are read twice, never written
    const int64_t first = row * task.cols + chunk * kChunk;
    const int64_t block = first >> 6;
    const int blocks = kWhole ? kBlocks : (int)min((int64_t)kBlocks, (task.cols - chunk * kChunk) / 64);
#pragma unroll
    for (int b = 0; b < kBlocks; b++) {
      c.q[b][half] = b < blocks ? __ldcs(reinterpret_cast<const uint2*>(w.q + (first + 64 * b + 16 * t) / 2)) : make_uint2(0, 0);
      if (kWhole) continue;
      c.scale[b][half] = 0;
      c.scale2[b % (kWhole ? 1 : kBlocks)][half] = 0.0f;
      if (b >= blocks) continue;  // the activations there are zero
      c.scale[b][half] = w.absmax8 != nullptr ? w.absmax8[block + b] : __float_as_uint(w.absmax[block + b]);
      if (w.absmax8 != nullptr) c.scale2[b % (kWhole ? 1 : kBlocks)][half] = w.absmax2[(block + b) >> 8];
    }
    if (!kWhole) continue;
    if (w.absmax8 != nullptr) {
      const uint32_t four = *reinterpret_cast<const uint32_t*>(w.absmax8 + block);
#pragma unroll
      for (int b = 0; b < kBlocks; b++) c.scale[b][half] = four >> (8 * b) & 255u;
      c.scale2[0][half] = w.absmax2[block >> 8];
    } else {
#pragma unroll
      for (int b = 0; b < kBlocks; b++) c.scale[b][half] = __float_as_uint(w.absmax[block + b]);
    }
  }
}

template <bool kWhole>
__device__ inline float scale_of(const Codes<kWhole>& c, const Nf4& w, int b, int half, const float* map, float base) {
  if (w.absmax8 == nullptr) return __uint_as_float(c.scale[b][half]);
  return __fadd_rn(__fmul_rn(map[c.scale[b][half]], c.scale2[kWhole ? 0 : b][half]), base);
}

// kEights: groups of eight rows of activations.
template <class T, int kEights, bool kWhole>
__global__ void __launch_bounds__(kThreads, kEights <= 4 ? 2 : 1) rows_times_weight(const Task task, const __grid_constant__ Nf4Tables tables) {
  char* const shared = shared_memory();
  uint32_t* const pairs = reinterpret_cast<uint32_t*>(shared);  // 256 x 32
  float* const map = reinterpret_cast<float*>(pairs + 256 * 32);
  T* const staged = reinterpret_cast<T*>(map + 256);  // 2 x 8 kEights x kPitch
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int64_t tile = blockIdx.x / task.shares, row0 = tile * kTileRows + 16 * warp;
  const int share = (int)(blockIdx.x % task.shares);
  const int64_t chunks = (task.cols + kChunk - 1) / kChunk, begin = chunks * share / task.shares, end = chunks * (share + 1) / task.shares;

  const T* const a = static_cast<const T*>(task.a);
  const auto stage = [&](int64_t chunk) {
    T* const to = staged + ((chunk - begin) & 1) * (8 * kEights * kPitch);
    for (int i = threadIdx.x; i < 8 * kEights * (kChunk / 8); i += kThreads) {
      const int row = i / (kChunk / 8), column = i % (kChunk / 8) * 8;
      const bool there = row < task.m && (kWhole || chunk * kChunk + column < task.cols);
      copy_async_16(shared_address(to + row * kPitch + column), there ? a + row * task.lda + chunk * kChunk + column : a, there ? 16 : 0);
    }
  };
  Codes<kWhole> next;
  if (begin < end) {
    stage(begin);
    load(next, task, row0, begin, g, t);
  }
  copy_commit();
  for (int i = 0; i < 256 / kWarps; i++) {
    const int byte = warp * (256 / kWarps) + i;
    pairs[byte * 32 + lane] = pack_pair<T>(tables.codes[byte >> 4], tables.codes[byte & 15]);
  }
  map[threadIdx.x] = tables.map[threadIdx.x];
  const float base = task.w.base();
  const char* const table = reinterpret_cast<const char*>(pairs);
  const uint32_t bank = 4 * lane;
  const auto look_up = [&](uint32_t shifted) { return *reinterpret_cast<const uint32_t*>(table + ((shifted & 0x7f80u) | bank)); };

  float sum[kEights][4] = {};
  for (int64_t chunk = begin; chunk < end; chunk++) {
    copy_wait<0>();
    __syncthreads();  // this chunk's activations are there, and nobody reads those of the one before any more
    const Codes<kWhole> now = next;
    if (chunk + 1 < end) {
      stage(chunk + 1);
      load(next, task, row0, chunk + 1, g, t);
    }
    copy_commit();
    const T* const x = staged + ((chunk - begin) & 1) * (8 * kEights * kPitch) + g * kPitch + 16 * t;
#pragma unroll
    for (int b = 0; b < kBlocks; b++) {
      float c[kEights][4] = {};
#pragma unroll
      for (int word = 0; word < 2; word++) {  // four bytes of codes of each row: two products
        const uint32_t p = word == 0 ? now.q[b][0].x : now.q[b][0].y, q = word == 0 ? now.q[b][1].x : now.q[b][1].y;
        const uint32_t first[4] = {look_up(p << 7), look_up(q << 7), look_up(p >> 1), look_up(q >> 1)};
        const uint32_t second[4] = {look_up(p >> 9), look_up(q >> 9), look_up(p >> 17), look_up(q >> 17)};
#pragma unroll
        for (int n = 0; n < kEights; n++) {
          const uint4 y = *reinterpret_cast<const uint4*>(x + 8 * n * kPitch + 64 * b + 8 * word);
          multiply_add<T>(c[n], first, y.x, y.y);
          multiply_add<T>(c[n], second, y.z, y.w);
        }
      }
      const float s0 = scale_of(now, task.w, b, 0, map, base), s1 = scale_of(now, task.w, b, 1, map, base);
#pragma unroll
      for (int n = 0; n < kEights; n++) {
        sum[n][0] += s0 * c[n][0];
        sum[n][1] += s0 * c[n][1];
        sum[n][2] += s1 * c[n][2];
        sum[n][3] += s1 * c[n][3];
      }
    }
  }
#pragma unroll
  for (int n = 0; n < kEights; n++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int i = 8 * n + 2 * t + e % 2;
      const int64_t row = row0 + g + 8 * (e / 2);
      if (i >= task.m || row >= task.rows) continue;
      if (task.shares == 1) finish(task, i, row, sum[n][e]);
      else task.part[((int64_t)share * task.m + i) * task.rows + row] = sum[n][e];
    }
  }
  if (task.shares == 1) return;

  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&finished[tile], 1) == task.shares - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int n = threadIdx.x; n < task.m * kTileRows; n += kThreads) {
    const int i = n / kTileRows;
    const int64_t row = tile * kTileRows + n % kTileRows;
    if (row >= task.rows) continue;
    float total = 0.0f;
    for (int s = 0; s < task.shares; s++) total += task.part[((int64_t)s * task.m + i) * task.rows + row];
    finish(task, i, row, total);
  }
  if (threadIdx.x == 0) finished[tile] = 0;
}

template <class T, int kEights, bool kWhole> void run(const Task& task, int64_t tiles) {
  const int64_t shared = 256 * 32 * 4 + 256 * 4 + (int64_t)2 * 8 * kEights * kPitch * (int64_t)sizeof(T);
  auto* kernel = rows_times_weight<T, kEights, kWhole>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared), "gemm_nf4");
  kernel<<<(unsigned)(tiles * task.shares), kThreads, (size_t)shared, device.stream>>>(task, nf4_tables(task.w.kind));
  launched("gemm_nf4");
}

template <class T, bool kWhole> void dispatch(const Task& task, int64_t tiles) {
  switch ((task.m + 7) / 8) {
    case 1:
    case 2: return run<T, 2, kWhole>(task, tiles);
    case 3: return run<T, 3, kWhole>(task, tiles);
    case 4: return run<T, 4, kWhole>(task, tiles);
    case 5:
    case 6: return run<T, 6, kWhole>(task, tiles);
    default: return run<T, 8, kWhole>(task, tiles);
  }
}

bool aligned(const void* p, int64_t to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }

}  // namespace

bool gemm_nf4_rows(const Nf4& w, int64_t m, int64_t rows, int64_t cols, const Matrix& a, const Ref& y, int64_t ldy, float alpha, float beta, const Ref& bias) {
  if (m < 1 || m > 64 || a.dtype == DType::Float32 || cols % 64 != 0 || w.block != 64) return false;
  if (!aligned(w.q, 16) || !aligned(a.data, 16) || (m > 1 && a.ld % 8 != 0)) return false;
  const int64_t tiles = blocks_for(rows, kTileRows), chunks = blocks_for(cols, kChunk);
  Task task{w, rows, cols, a.data, a.ld, (int32_t)m, 1, y, bias, ldy, alpha, beta, nullptr};
  int64_t shares = (m <= 32 ? 2 : 1) * (int64_t)device.multiprocessors / tiles;
  if (shares > chunks) shares = chunks;
  if (shares > kMostShares) shares = kMostShares;
  if (shares > 1 && tiles <= kMostTiles) {
    task.shares = (int32_t)shares;
    task.part = scratch_of<float>(kPartials, shares * m * rows);
  }
  const bool whole = cols % kChunk == 0 && (w.absmax8 == nullptr || aligned(w.absmax8, 4));
  if (a.dtype == DType::BFloat16) whole ? dispatch<__nv_bfloat16, true>(task, tiles) : dispatch<__nv_bfloat16, false>(task, tiles);
  else whole ? dispatch<__half, true>(task, tiles) : dispatch<__half, false>(task, tiles);
  return true;
}

}  // namespace cuda
}  // namespace tunebook
