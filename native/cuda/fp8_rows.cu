// Rows to E4M3 codes and back, and codes transposed: passes over memory.
#include "fp8.cuh"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr float kMost = 448.0f;
constexpr float kLeast = 7.888609052e-31f;  // 2^-100: a row without anything as large is zeros

struct Scales {
  float to, back;  // before rounding, after restoring
};
// From the bits of a row's largest magnitude: those of NaN lie above infinity's.
__device__ __forceinline__ Scales scales_of(uint32_t most) {
  const float nan = __uint_as_float(0x7fc00000u), largest = __uint_as_float(most);
  if (most >= 0x7f800000u) return {nan, nan};
  if (largest < kLeast) return {0.0f, 0.0f};
  return {__fdiv_rn(kMost, largest), __fdiv_rn(largest, kMost)};
}

__device__ __forceinline__ uint32_t magnitude(float v) { return __float_as_uint(v) & 0x7fffffffu; }

// The largest over the threads of a row; blocks of one warp a row need no barrier.
__device__ __forceinline__ uint32_t row_most(uint32_t most) {
  __shared__ uint32_t warps[32];
  most = __reduce_max_sync(0xffffffffu, most);
  if (blockDim.x == 32) return most;
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = most;
  __syncthreads();
  for (int w = 0; w < (int)blockDim.x / 32; w++) most = max(most, warps[w]);
  return most;
}

struct Rows {
  const void* x;
  int64_t ld;
  const float* columns;
  uint8_t* codes;
  float* scale;
  int64_t rows, cols;
};

// threadIdx.x runs along a row, which is kept in registers, threadIdx.y over rows.
template <class T, int kPacks, bool kColumns>
__global__ void __launch_bounds__(512) encode_kept(const Rows g) {
  constexpr int kEach = Pack<T>::kCount;
  const int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
  if (r >= g.rows) return;
  const T* x = static_cast<const T*>(g.x) + r * g.ld;
  const int packs = (int)(g.cols / kEach);
  Pack<T> held[kPacks];           // what of the two is used is kept
  float scaled[kPacks][kEach];
  uint32_t most = 0;
#pragma unroll
  for (int p = 0; p < kPacks; p++) {
    const int at = threadIdx.x + p * blockDim.x;
    if (at < packs) {
      held[p] = load_pack(x + (int64_t)at * kEach);
    } else {
      held[p] = Pack<T>{};
    }
  }
#pragma unroll
  for (int p = 0; p < kPacks; p++) {
    const int at = threadIdx.x + p * blockDim.x;
    float by[kEach];
    if (kColumns && at < packs) load_floats<kEach>(g.columns + (int64_t)at * kEach, by);
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      const float v = to_float(held[p].v[e]);
      scaled[p][e] = kColumns && at < packs ? __fmul_rn(v, by[e]) : v;
      most = max(most, magnitude(scaled[p][e]));
    }
  }
  const Scales s = scales_of(row_most(most));
  if (threadIdx.x == 0) g.scale[r] = s.back;
  uint8_t* codes = g.codes + r * g.cols;
#pragma unroll
  for (int p = 0; p < kPacks; p++) {
    const int at = threadIdx.x + p * blockDim.x;
    if (at >= packs) continue;
    uint32_t words[kEach / 4];
#pragma unroll
    for (int w = 0; w < kEach / 4; w++) {
      float v[4];
#pragma unroll
      for (int e = 0; e < 4; e++) v[e] = __fmul_rn(kColumns ? scaled[p][4 * w + e] : to_float(held[p].v[4 * w + e]), s.to);
      words[w] = encode_two(v[0], v[1]) | encode_two(v[2], v[3]) << 16;
    }
    if (kEach == 8) {
      *reinterpret_cast<uint2*>(codes + (int64_t)at * 8) = make_uint2(words[0], words[kEach / 4 - 1]);
    } else {
      *reinterpret_cast<uint32_t*>(codes + (int64_t)at * 4) = words[0];
    }
  }
}

// Rows of any length and address: a block a row, read twice.
template <class T>
__global__ void encode_any(const Rows g) {
  for (int64_t r = blockIdx.x; r < g.rows; r += gridDim.x) {
    const T* x = static_cast<const T*>(g.x) + r * g.ld;
    auto at = [&](int64_t i) { return g.columns == nullptr ? to_float(x[i]) : __fmul_rn(to_float(x[i]), g.columns[i]); };
    uint32_t most = 0;
    for (int64_t i = threadIdx.x; i < g.cols; i += blockDim.x) most = max(most, magnitude(at(i)));
    __syncthreads();  // of the row before
    const Scales s = scales_of(row_most(most));
    if (threadIdx.x == 0) g.scale[r] = s.back;
    for (int64_t i = threadIdx.x; i < g.cols; i += blockDim.x) g.codes[r * g.cols + i] = (uint8_t)encode_two(__fmul_rn(at(i), s.to), 0.0f);
  }
}

template <class T, int kPacks>
void launch_kept(const Rows& g, dim3 block) {
  const int64_t blocks = blocks_for(g.rows, block.y);
  if (g.columns == nullptr) {
    encode_kept<T, kPacks, false><<<(unsigned)blocks, block, 0, device.stream>>>(g);
  } else {
    encode_kept<T, kPacks, true><<<(unsigned)blocks, block, 0, device.stream>>>(g);
  }
}

template <class T>
void encode(const Rows& g, bool wide) {
  const int64_t packs = g.cols / Pack<T>::kCount;
  if (!wide || packs > 8 * 512 || g.rows > 2147483647) {
    encode_any<T><<<(unsigned)min(g.rows, (int64_t)device.multiprocessors * 64), 256, 0, device.stream>>>(g);
    return;
  }
  if (packs <= 32) return launch_kept<T, 1>(g, dim3(32, 8));
  if (packs <= 64) return launch_kept<T, 2>(g, dim3(32, 8));
  if (packs <= 128) return launch_kept<T, 4>(g, dim3(32, 8));
  auto threads = [&](int64_t each) { return dim3((unsigned)(blocks_for(packs, each * 32) * 32)); };
  if (packs <= 1024) return launch_kept<T, 2>(g, threads(2));
  if (packs <= 2048) return launch_kept<T, 4>(g, threads(4));
  launch_kept<T, 8>(g, threads(8));
}

// ---- restoring ----------------------------------------------------------------------------

// Eight codes of one row a thread and turn.
template <class T>
__global__ void decode_eights(const uint8_t* q, const float* scale, T* y, int64_t eights, uint32_t eights_a_row) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < eights; i += (int64_t)gridDim.x * blockDim.x) {
    float v[8];
    decode_eight(__ldcs(reinterpret_cast<const uint2*>(q) + i), v);
    if (scale != nullptr) {
      const float s = scale[eights <= 0xffffffffll ? (uint32_t)i / eights_a_row : i / eights_a_row];
#pragma unroll
      for (int e = 0; e < 8; e++) v[e] = __fmul_rn(v[e], s);
    }
    store_floats<8>(y + 8 * i, v);
  }
}

template <class T>
__global__ void decode_each(const uint8_t* q, const float* scale, T* y, int64_t n, int64_t cols) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
    y[i] = from_float<T>(__fmul_rn(decode_two(q[i]).x, scale != nullptr ? scale[i / cols] : 1.0f));
}

// ---- transposing --------------------------------------------------------------------------

constexpr int kTile = 128;

// A tile of 128 x 128 bytes. A thread turns blocks of 4 x 4 in registers; a column's words of four rows lie in shared memory, moved on by
// the column's number by 4, so that neither way two threads of a warp meet in a bank.
__global__ void __launch_bounds__(256) transpose_tiles(const uint8_t* codes, int64_t rows, int64_t cols, uint8_t* to, float* ones) {
  __shared__ uint32_t tile[kTile][kTile / 4];
  const int64_t row0 = (int64_t)blockIdx.y * kTile, col0 = (int64_t)blockIdx.x * kTile;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (blockIdx.y == 0 && threadIdx.x < kTile && col0 + threadIdx.x < cols) ones[col0 + threadIdx.x] = 1.0f;
  const bool inside = col0 + 4 * lane < cols;
  uint32_t in[4][4] = {};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int64_t row = row0 + 4 * (warp + 8 * i);
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (inside && row < rows) in[i][j] = *reinterpret_cast<const uint32_t*>(codes + (row + j) * cols + col0 + 4 * lane);
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int word = (warp + 8 * i + lane) % 32;
    const uint32_t low01 = __byte_perm(in[i][0], in[i][1], 0x5140), low23 = __byte_perm(in[i][2], in[i][3], 0x5140);
    const uint32_t high01 = __byte_perm(in[i][0], in[i][1], 0x7362), high23 = __byte_perm(in[i][2], in[i][3], 0x7362);
    tile[4 * lane][word] = __byte_perm(low01, low23, 0x5410);
    tile[4 * lane + 1][word] = __byte_perm(low01, low23, 0x7632);
    tile[4 * lane + 2][word] = __byte_perm(high01, high23, 0x5410);
    tile[4 * lane + 3][word] = __byte_perm(high01, high23, 0x7632);
  }
  __syncthreads();
  if (row0 + 4 * lane >= rows) return;
#pragma unroll 4
  for (int c = warp; c < kTile; c += 8) {
    if (col0 + c >= cols) break;
    *reinterpret_cast<uint32_t*>(to + (col0 + c) * rows + row0 + 4 * lane) = tile[c][(lane + c / 4) % 32];
  }
}

}  // namespace

void encode_rows(const Ref& x, int64_t ld, const float* columns, int64_t rows, int64_t cols, uint8_t* codes, float* scale) {
  if (rows <= 0) return;
  const Rows g{x.data, ld, columns, codes, scale, rows, cols};
  with_float_type(x.dtype, "x", [&](auto of) {
    using T = decltype(of);
    const bool whole = cols > 0 && cols % Pack<T>::kCount == 0 && packed<T>(x.data, rows > 1 ? ld : 0);
    encode<T>(g, whole && aligned(8, codes) && aligned(16, columns));
  });
  launched("rounding rows to E4M3");
}

void decode_rows(const uint8_t* codes, const float* scale, int64_t rows, int64_t cols, const Ref& y) {
  const int64_t n = rows * cols;
  if (n <= 0) return;
  const int64_t most = device.multiprocessors * 8;
  with_float_type(y.dtype, "y", [&](auto of) {
    using T = decltype(of);
    if (cols % 8 == 0 && aligned(8, codes) && packed<T>(y.data, 0)) {
      const unsigned grid = (unsigned)min(blocks_for(n, 8 * 256), most);
      decode_eights<T><<<grid, 256, 0, device.stream>>>(codes, scale, y.as<T>(), n / 8, (uint32_t)(cols / 8));
    } else {
      decode_each<T><<<(unsigned)min(blocks_for(n, 256), most), 256, 0, device.stream>>>(codes, scale, y.as<T>(), n, cols);
    }
  });
  launched("restoring E4M3");
}

void transpose_codes(const uint8_t* codes, int64_t rows, int64_t cols, uint8_t* to, float* ones) {
  const dim3 grid((unsigned)blocks_for(cols, kTile), (unsigned)blocks_for(rows, kTile));
  transpose_tiles<<<grid, 256, 0, device.stream>>>(codes, rows, cols, to, ones);
  launched("transposing E4M3");
}

}  // namespace cuda
}  // namespace tunebook
