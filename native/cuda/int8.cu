// Weights in 8 bits with one scale a row: quantising, restoring (the same bytes as the CPU's), products.
#include "frozen.h"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr float kUnit = 1.0f / 127.0f;

__device__ inline float restored(int8_t q, float absmax) { return __fmul_rn(__fmul_rn((float)q, absmax), kUnit); }

void check_weight(const Ref& q, const Ref& absmax, int64_t rows, int64_t cols) {
  if (rows < 0 || cols < 0) fail("rows and cols are %lld and %lld, expected at least 0", (long long)rows, (long long)cols);
  if (q.dtype != DType::UInt8 || q.bytes < rows * cols) fail("q must be uint8 with %lld elements, but has %lld bytes", (long long)(rows * cols), (long long)q.bytes);
  if (absmax.dtype != DType::Float32 || absmax.bytes < rows * 4)
    fail("absmax must be float32 with %lld elements, but has %lld bytes", (long long)rows, (long long)absmax.bytes);
}

// ---- restoring ----------------------------------------------------------------------------

// Eight codes of one row a thread and turn.
template <class T>
__global__ void decode_eights(const int8_t* q, const float* absmax, T* y, int64_t eights, uint32_t eights_a_row) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < eights; i += (int64_t)gridDim.x * blockDim.x) {
    const uint2 codes = __ldcs(reinterpret_cast<const uint2*>(q) + i);
    const float scale = absmax[eights <= 0xffffffffll ? (uint32_t)i / eights_a_row : i / eights_a_row];
    float v[8];
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = restored((int8_t)((e < 4 ? codes.x : codes.y) >> (8 * (e % 4))), scale);
    store_floats<8>(y + 8 * i, v);
  }
}

template <class T>
__global__ void decode_each(const int8_t* q, const float* absmax, T* y, int64_t n, int64_t cols) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) y[i] = from_float<T>(restored(q[i], absmax[i / cols]));
}

void dequantize(const Ref& q, const Ref& absmax, int64_t rows, int64_t cols, const Ref& y) {
  const int64_t n = rows * cols;
  if (n <= 0) return;
  const int64_t most = device.multiprocessors * 8;
  with_float_type(y.dtype, "y", [&](auto of) {
    using T = decltype(of);
    if (cols % 8 == 0 && reinterpret_cast<uintptr_t>(q.data) % 8 == 0 && packed<T>(y.data, 0)) {
      decode_eights<T><<<(unsigned)min(blocks_for(n, 8 * 256), most), 256, 0, device.stream>>>(q.as<int8_t>(), absmax.f32(), y.as<T>(), n / 8, (uint32_t)(cols / 8));
    } else {
      decode_each<T><<<(unsigned)min(blocks_for(n, 256), most), 256, 0, device.stream>>>(q.as<int8_t>(), absmax.f32(), y.as<T>(), n, cols);
    }
  });
  launched("dequantize_int8");
}

void dequantize_int8(const dequantize_int8_args& g) {
  check_weight(g.q, g.absmax, g.rows, g.cols);
  if (g.y.bytes < g.rows * g.cols * (int64_t)size_of(g.y.dtype)) fail("y must have %lld elements", (long long)(g.rows * g.cols));
  dequantize(g.q, g.absmax, g.rows, g.cols, g.y);
}

// ---- quantising ---------------------------------------------------------------------------

// A block of threads a row.
template <class T>
__global__ void encode_rows(const T* x, int8_t* q, float* absmax, int64_t rows, int64_t cols, bool wide) {
  constexpr int kEach = Pack<T>::kCount;
  __shared__ uint32_t warps[32];
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const T* row = x + r * cols;
    const int64_t packs = wide ? cols / kEach : 0;
    uint32_t most = 0;  // the bits of the largest magnitude: NaN lies above infinity
    for (int64_t p = threadIdx.x; p < packs; p += blockDim.x) {
      const Pack<T> v = load_pack(row + p * kEach);
#pragma unroll
      for (int e = 0; e < kEach; e++) most = max(most, __float_as_uint(to_float(v.v[e])) & 0x7fffffffu);
    }
    for (int64_t i = packs * kEach + threadIdx.x; i < cols; i += blockDim.x) most = max(most, __float_as_uint(to_float(row[i])) & 0x7fffffffu);
    most = __reduce_max_sync(0xffffffffu, most);
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = most;
    __syncthreads();
    for (int w = 0; w < (int)blockDim.x / 32; w++) most = max(most, warps[w]);
    const float largest = __uint_as_float(most > 0x7f800000u ? 0x7fc00000u : most);
    if (threadIdx.x == 0) absmax[r] = largest;
    const float scale = largest == 0.0f ? 0.0f : __fdiv_rn(127.0f, largest);
    // Adding 1.5 * 2^23 rounds to the nearest whole number, ties to even; a NaN gives 0.
    auto code = [=](float v) {
      const float scaled = __fmul_rn(v, scale);
      return scaled == scaled ? (int8_t)(__float_as_int(__fadd_rn(scaled, 12582912.0f)) - 0x4b400000) : (int8_t)0;
    };
    for (int64_t p = threadIdx.x; p < packs; p += blockDim.x) {
      const Pack<T> v = load_pack(row + p * kEach);
      uint32_t words[kEach / 4] = {};
#pragma unroll
      for (int e = 0; e < kEach; e++) words[e / 4] |= (uint32_t)(uint8_t)code(to_float(v.v[e])) << (8 * (e % 4));
#pragma unroll
      for (int e = 0; e < kEach / 4; e++) reinterpret_cast<uint32_t*>(q + r * cols + p * kEach)[e] = words[e];
    }
    for (int64_t i = packs * kEach + threadIdx.x; i < cols; i += blockDim.x) q[r * cols + i] = code(to_float(row[i]));
  }
}

void quantize_int8(const quantize_int8_args& g) {
  check_weight(g.q, g.absmax, g.rows, g.cols);
  if (g.x.bytes < g.rows * g.cols * (int64_t)size_of(g.x.dtype)) fail("x must have %lld elements", (long long)(g.rows * g.cols));
  if (g.rows <= 0) return;
  const int threads = g.cols >= 2048 ? 256 : g.cols >= 512 ? 128 : 32;
  with_float_type(g.x.dtype, "x", [&](auto of) {
    using T = decltype(of);
    const bool wide = packed<T>(g.x.data, g.cols) && reinterpret_cast<uintptr_t>(g.q.data) % 4 == 0;
    encode_rows<T><<<(unsigned)min(g.rows, (int64_t)device.multiprocessors * 64), threads, 0, device.stream>>>(g.x.as<T>(), g.q.as<int8_t>(), g.absmax.f32(), g.rows, g.cols,
                                                                                                            wide);
  });
  launched("quantize_int8");
}

// ---- products -----------------------------------------------------------------------------

void gemm_int8(const gemm_int8_args& g) {
  check_weight(g.q, g.absmax, g.rows, g.cols);
  const Product p = open_product(g);
  if (p.m <= 0 || p.n <= 0) return;
  const Matrix codes{g.q.data, DType::UInt8, g.cols, true};
  if (g.trans_w && gemv(p.m, p.n, p.k, p.a, codes, {g.absmax.f32()}, g.y, g.ldy, g.alpha, g.beta, g.bias)) return;
  multiply_restored(p, g, [&](const Ref& to) { dequantize(g.q, g.absmax, g.rows, g.cols, to); });
}

}  // namespace

void register_int8(Backend& b) {
  b.gemm_int8 = gemm_int8;
  b.quantize_int8 = quantize_int8;
  b.dequantize_int8 = dequantize_int8;
}

}  // namespace cuda
}  // namespace tunebook
