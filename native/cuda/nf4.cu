// Quantising to 4 bits (NF4, FP4) and back, and the double quantisation of its scales: the same bytes as the CPU's.
#include "nf4.cuh"
#include "vector.cuh"

#include "cpu/nf4_tables.cc"  // the one list of these numbers: no CPU object is part of this library

namespace tunebook {
namespace cuda {

const Nf4Tables& nf4_tables(int kind) {
  struct Both {
    Nf4Tables of[2];
    Both() {
      for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; i < 16; i++) of[kind].codes[i] = kind == 0 ? kNf4Codes[i] : kFp4Codes[i];
        for (int i = 0; i < 256; i++) of[kind].map[i] = dynamic_map()[i];
      }
    }
  };
  static const Both both;
  return both.of[kind];
}

Nf4 open_nf4(const Ref& q, const Ref& absmax, const Ref& absmax2, const Ref& offset, int64_t n, int64_t block, int64_t kind) {
  const bool doubly = check_nf4(q, absmax, absmax2, offset, n, block, kind);
  Nf4 w{q.u8(), nullptr, nullptr, nullptr, nullptr, block, -1, (int)kind};
  for (int s = 1; s < 31; s++) {
    if (block == int64_t{1} << s) w.block_shift = s;
  }
  if (doubly) {
    w.absmax8 = absmax.u8();
    w.absmax2 = absmax2.f32();
    w.offset = offset.f32();
  } else {
    w.absmax = absmax.f32();
  }
  return w;
}

namespace {

// ---- restoring ----------------------------------------------------------------------------

// Sixteen neighbouring words of shared memory lie in sixteen banks: lanes read different codes at once.
__device__ void load_tables(const Nf4Tables& t, float* codes, float* map) {
  if (threadIdx.x < 16) codes[threadIdx.x] = t.codes[threadIdx.x];
  for (int i = threadIdx.x; i < 256; i += blockDim.x) map[i] = t.map[i];
  __syncthreads();
}

// Eight elements (one 32-bit word of codes) a thread and turn: a warp reads 128 bytes and writes 512 (16-bit types), and four turns are on their way at once.
constexpr int kTurns = 4, kThreads = 256;
template <class T>
__global__ void __launch_bounds__(kThreads) decode_words(const Nf4 w, const __grid_constant__ Nf4Tables tables, T* y, int64_t words) {
  __shared__ float codes[16], map[256];
  load_tables(tables, codes, map);
  const float base = w.base();
  constexpr int64_t kEachBlock = kThreads * kTurns;
  for (int64_t first = blockIdx.x * kEachBlock + threadIdx.x; first < words; first += gridDim.x * kEachBlock) {
    uint32_t q[kTurns];
#pragma unroll
    for (int t = 0; t < kTurns; t++) {
      const int64_t i = first + t * kThreads;
      q[t] = i < words ? __ldcs(reinterpret_cast<const uint32_t*>(w.q) + i) : 0u;
    }
#pragma unroll
    for (int t = 0; t < kTurns; t++) {
      const int64_t i = first + t * kThreads;
      if (i >= words) break;
      const float scale = w.scale(w.block_of(8 * i), map, base);
      float v[8];
#pragma unroll
      for (int b = 0; b < 4; b++) {  // byte b holds elements 2b (high nibble) and 2b + 1
        v[2 * b] = codes[(q[t] >> (8 * b + 4)) & 15u] * scale;
        v[2 * b + 1] = codes[(q[t] >> (8 * b)) & 15u] * scale;
      }
      store_floats<8>(y + 8 * i, v);
    }
  }
}

// One byte a thread, from element `first` (even) on: odd blocks, odd addresses, tails.
template <class T>
__global__ void decode_bytes(const Nf4 w, const __grid_constant__ Nf4Tables tables, T* y, int64_t first, int64_t n) {
  __shared__ float codes[16], map[256];
  load_tables(tables, codes, map);
  const float base = w.base();
  for (int64_t i = first + 2 * (blockIdx.x * (int64_t)blockDim.x + threadIdx.x); i < n; i += 2 * (int64_t)gridDim.x * blockDim.x) {
    const uint8_t q = w.q[i / 2];
    const float scale = w.scale(w.block_of(i), map, base);
    y[i] = from_float<T>(codes[q >> 4] * scale);
    if (i + 1 < n) y[i + 1] = from_float<T>(codes[q & 15] * scale);
  }
}

}  // namespace

void dequantize(const Nf4& w, int64_t n, const Ref& y, cudaStream_t stream) {
  if (n <= 0) return;
  const Nf4Tables& tables = nf4_tables(w.kind);
  with_float_type(y.dtype, "y", [&](auto of) {
    using T = decltype(of);
    const bool wide = w.block % 8 == 0 && reinterpret_cast<uintptr_t>(w.q) % 4 == 0 && reinterpret_cast<uintptr_t>(y.data) % 16 == 0;
    const int64_t words = wide ? n / 8 : 0;
    const int64_t most = device.multiprocessors * (2048 / kThreads);  // as many as run at once: each fills its tables once
    if (words > 0) decode_words<T><<<(unsigned)min(blocks_for(words, kThreads * kTurns), most), kThreads, 0, stream>>>(w, tables, y.as<T>(), words);
    if (8 * words < n) {
      const int64_t blocks = min(blocks_for((n - 8 * words + 1) / 2, 256), (int64_t)device.multiprocessors * 8);
      decode_bytes<T><<<(unsigned)blocks, 256, 0, stream>>>(w, tables, y.as<T>(), 8 * words, n);
    }
  });
  launched("dequantize_nf4");
}

namespace {

// ---- quantising ---------------------------------------------------------------------------

// Borders between neighbouring codes, ascending, and the code of each rank (NF4: the rank itself).
struct Borders {
  float at[15];
  uint8_t code[16];
  uint8_t zero;
};

Borders borders_of(int64_t kind) {
  Borders b;
  for (int i = 0; i < 15; i++) b.at[i] = kind == 0 ? kNf4Borders[i] : kFp4Borders[i];
  for (int i = 0; i < 16; i++) b.code[i] = kind == 0 ? i : kFp4Order[i];
  b.zero = kind == 0 ? 7 : 0;
  return b;
}

// How many borders lie strictly below v (a NaN: none).
__device__ inline int rank_of(float v, const Borders& b) {
  int rank = 0;
#pragma unroll
  for (int i = 0; i < 15; i++) rank += v > b.at[i];
  return rank;
}

// The largest magnitude so far, kept as its bits: those of positive numbers are in the numbers' order, and NaN lies above infinity.
__device__ inline uint32_t magnitude(float v) { return __float_as_uint(v) & 0x7fffffffu; }
__device__ inline float absmax_from(uint32_t bits) { return __uint_as_float(bits > 0x7f800000u ? 0x7fc00000u : bits); }
__device__ inline float inverse_of(float absmax) { return absmax == 0.0f ? 0.0f : __frcp_rn(absmax); }

__device__ inline uint32_t max_over(uint32_t v, int lanes) {
  for (int o = lanes / 2; o > 0; o >>= 1) v = max(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}

// Eight elements a thread: `lanes` neighbours (a power of two) share a block of 8 * lanes.
template <class T>
__global__ void __launch_bounds__(256) encode_words(const T* x, uint8_t* q, float* absmax, int64_t n, int lanes, const __grid_constant__ Borders borders) {
  __shared__ uint8_t code_of[16];
  if (threadIdx.x < 16) code_of[threadIdx.x] = borders.code[threadIdx.x];
  __syncthreads();
  const int64_t i = 8 * (blockIdx.x * (int64_t)blockDim.x + threadIdx.x);
  float v[8];
  if (i + 8 <= n) {
    load_floats<8>(x + i, v);
  } else {
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = i + e < n ? to_float(x[i + e]) : 0.0f;
  }
  uint32_t most = 0;
#pragma unroll
  for (int e = 0; e < 8; e++) most = max(most, magnitude(v[e]));
  most = max_over(most, lanes);
  if (i >= n) return;
  const float scale = absmax_from(most), inverse = inverse_of(scale);
  if (threadIdx.x % lanes == 0) absmax[i / (8 * lanes)] = scale;
  uint32_t word = 0;
#pragma unroll
  for (int e = 0; e < 8; e++) {
    const uint32_t code = i + e < n ? code_of[rank_of(__fmul_rn(v[e], inverse), borders)] : borders.zero;
    word |= code << (8 * (e / 2) + (e % 2 == 0 ? 4 : 0));
  }
  if (i + 8 <= n) {
    *reinterpret_cast<uint32_t*>(q + i / 2) = word;
  } else {
    for (int64_t b = 0; 2 * b < n - i; b++) q[i / 2 + b] = word >> (8 * b);
  }
}

// A warp a block: any even length, any address.
template <class T>
__global__ void encode_blocks(const T* x, uint8_t* q, float* absmax, int64_t n, int64_t block, int64_t blocks, const __grid_constant__ Borders borders) {
  const int lane = threadIdx.x % 32;
  const int64_t b = blockIdx.x * (int64_t)(blockDim.x / 32) + threadIdx.x / 32;
  if (b >= blocks) return;
  const int64_t first = b * block, last = min(first + block, n);
  uint32_t most = 0;
  for (int64_t i = first + lane; i < last; i += 32) most = max(most, magnitude(to_float(x[i])));
  most = max_over(most, 32);
  const float scale = absmax_from(most), inverse = inverse_of(scale);
  if (lane == 0) absmax[b] = scale;
  for (int64_t i = first + 2 * lane; i < last; i += 64) {
    const uint32_t high = borders.code[rank_of(__fmul_rn(to_float(x[i]), inverse), borders)];
    const uint32_t low = i + 1 < last ? borders.code[rank_of(__fmul_rn(to_float(x[i + 1]), inverse), borders)] : borders.zero;
    q[i / 2] = high << 4 | low;
  }
}

void quantize_nf4(const quantize_nf4_args& g) {
  check_quantize_nf4(g);
  if (g.n <= 0) return;
  const Borders borders = borders_of(g.kind);
  const int64_t blocks = blocks_for(g.n, g.block), lanes = g.block / 8;
  const bool whole = g.block % 8 == 0 && lanes <= 32 && (lanes & (lanes - 1)) == 0;
  with_float_type(g.x.dtype, "x", [&](auto of) {
    using T = decltype(of);
    if (whole && packed<T>(g.x.data, 0) && reinterpret_cast<uintptr_t>(g.q.data) % 4 == 0) {
      encode_words<T><<<(unsigned)blocks_for(g.n, 8 * 256), 256, 0, device.stream>>>(g.x.as<T>(), g.q.u8(), g.absmax.f32(), g.n, (int)lanes, borders);
    } else {
      encode_blocks<T><<<(unsigned)blocks_for(blocks, 8), 256, 0, device.stream>>>(g.x.as<T>(), g.q.u8(), g.absmax.f32(), g.n, g.block, blocks, borders);
    }
  });
  launched("quantize_nf4");
}

void dequantize_nf4(const dequantize_nf4_args& g) {
  const Nf4 w = open_nf4(g.q, g.absmax, g.absmax2, g.offset, g.n, g.block, g.kind);
  if (g.y.bytes < g.n * (int64_t)size_of(g.y.dtype)) fail("y must have %lld elements", (long long)g.n);
  dequantize(w, g.n, g.y, device.stream);
}

// ---- double quantisation ------------------------------------------------------------------

constexpr int kSums = 256;

__device__ inline double block_sum(double v) {
  __shared__ double parts[256];
  parts[threadIdx.x] = v;
  __syncthreads();
  for (int o = 128; o > 0; o >>= 1) {
    if (threadIdx.x < o) parts[threadIdx.x] += parts[threadIdx.x + o];
    __syncthreads();
  }
  return parts[0];
}

// kSums partial sums in a fixed order.
__global__ void __launch_bounds__(256) sum_absmax(const float* x, int64_t n, double* sums) {
  double s = 0;
  for (int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x; i < n; i += 256 * (int64_t)gridDim.x) s += x[i];
  s = block_sum(s);
  if (threadIdx.x == 0) sums[blockIdx.x] = s;
}

// A block of threads a group of 256 scales: the code of the value of the dynamic map nearest to each (the lower of two equally near).
__global__ void __launch_bounds__(256) encode_absmax(const float* x, int64_t n, const double* sums, uint8_t* q, float* absmax2, float* offset,
                                                     const __grid_constant__ Nf4Tables tables) {
  __shared__ float map[256];
  __shared__ uint32_t warps[8];
  map[threadIdx.x] = tables.map[threadIdx.x];
  const float mean = static_cast<float>(block_sum(sums[threadIdx.x]) / static_cast<double>(n));
  const int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x;
  const float v = i < n ? __fsub_rn(x[i], mean) : 0.0f;
  const uint32_t part = max_over(magnitude(v), 32);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = part;
  __syncthreads();
  uint32_t bits = 0;
  for (int w = 0; w < 8; w++) bits = max(bits, warps[w]);
  const float most = absmax_from(bits);
  if (threadIdx.x == 0) {
    absmax2[blockIdx.x] = most;
    if (blockIdx.x == 0) *offset = mean;
  }
  if (i >= n) return;
  const float u = most == 0.0f ? 0.0f : __fmul_rn(v, __frcp_rn(most));
  int low = 0;  // the last index whose value is <= u
  for (int step = 128; step > 0; step /= 2) {
    if (low + step < 256 && map[low + step] <= u) low += step;
  }
  if (low < 255 && __fsub_rn(map[low + 1], u) < __fsub_rn(u, map[low])) low++;
  q[i] = (uint8_t)low;
}

__global__ void zero(float* y) { *y = 0.0f; }

void quantize_absmax(const quantize_absmax_args& g) {
  check_quantize_absmax(g);
  const int64_t groups = blocks_for(g.n, kAbsmaxBlock);
  if (g.n <= 0) {
    zero<<<1, 1, 0, device.stream>>>(g.offset.f32());
  } else {
    double* sums = scratch_of<double>(kPartials, kSums);
    sum_absmax<<<kSums, 256, 0, device.stream>>>(g.absmax.f32(), g.n, sums);
    encode_absmax<<<(unsigned)groups, 256, 0, device.stream>>>(g.absmax.f32(), g.n, sums, g.q.u8(), g.absmax2.f32(), g.offset.f32(), nf4_tables(0));
  }
  launched("quantize_absmax");
}

}  // namespace

void register_nf4(Backend& b) {
  b.quantize_nf4 = quantize_nf4;
  b.dequantize_nf4 = dequantize_nf4;
  b.quantize_absmax = quantize_absmax;
}

}  // namespace cuda
}  // namespace tunebook
