// A few rows of activations against a plain weight, or one of 8 bits (decoding text, its adapters and its head): bound by reading the weight, which is read once, as it stands.
#include "fp8.cuh"
#include "gemm.h"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 128;

struct Task {
  int64_t m, n, k;
  const void* a;
  int64_t lda;
  const void* b;
  int64_t ldb;
  const float* scale;  // codes: W[r, c] = b[r, c] * scale[r] * unit
  float unit;
  Ref y, bias;
  int64_t ldy;
  float alpha, beta;
};

template <class T> __device__ inline void load_eight(const T* p, float (&v)[8]) { load_floats<8>(p, v); }
template <> __device__ inline void load_eight<int8_t>(const int8_t* p, float (&v)[8]) {
  const uint2 from = *reinterpret_cast<const uint2*>(p);
#pragma unroll
  for (int e = 0; e < 8; e++) v[e] = (float)(int8_t)((e < 4 ? from.x : from.y) >> (8 * (e % 4)));
}

template <> __device__ inline void load_eight<E4m3>(const E4m3* p, float (&v)[8]) { decode_eight(*reinterpret_cast<const uint2*>(p), v); }

__device__ inline float load_one(const Ref& x, int64_t i) {
  return x.dtype == DType::Float32 ? static_cast<const float*>(x.data)[i]
         : x.dtype == DType::BFloat16 ? to_float(static_cast<const __nv_bfloat16*>(x.data)[i]) : to_float(static_cast<const __half*>(x.data)[i]);
}
__device__ inline void store_one(const Ref& x, int64_t i, float v) {
  if (x.dtype == DType::Float32) {
    static_cast<float*>(x.data)[i] = v;
  } else if (x.dtype == DType::BFloat16) {
    static_cast<__nv_bfloat16*>(x.data)[i] = from_float<__nv_bfloat16>(v);
  } else {
    static_cast<__half*>(x.data)[i] = from_float<__half>(v);
  }
}

// `lanes` neighbouring threads (a power of two up to a warp, or the whole block) share kOutputs rows of the weight against kRows rows of a.
template <class A, class B, int kRows, int kOutputs>
__global__ void __launch_bounds__(kThreads) few_rows(const Task t, int lanes) {
  __shared__ float parts[kThreads / 32][kRows * kOutputs];
  const int lane = threadIdx.x % lanes;
  const int64_t group = (blockIdx.x * (int64_t)kThreads + threadIdx.x) / lanes, first = group * kOutputs;
  const A* a = static_cast<const A*>(t.a);
  const B* rows[kOutputs];
#pragma unroll
  for (int o = 0; o < kOutputs; o++) rows[o] = static_cast<const B*>(t.b) + min(first + o, t.n - 1) * t.ldb;  // past the end: read again, not written
  float sum[kRows][kOutputs] = {};
  constexpr int kAhead = kOutputs == 1 ? 4 : kRows == 1 ? 2 : 1;  // steps whose loads are on their way together
#pragma unroll kAhead
  for (int64_t k = 8 * lane; k < t.k; k += 8 * lanes) {
    float w[kOutputs][8];
#pragma unroll
    for (int o = 0; o < kOutputs; o++) load_eight(rows[o] + k, w[o]);
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      if (r < t.m) {
        float x[8];
        load_eight(a + r * t.lda + k, x);
#pragma unroll
        for (int o = 0; o < kOutputs; o++) {
#pragma unroll
          for (int e = 0; e < 8; e++) sum[r][o] += x[e] * w[o][e];
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) {
#pragma unroll
    for (int o = 0; o < kOutputs; o++) {
      for (int s = min(lanes, 32) / 2; s > 0; s >>= 1) sum[r][o] += __shfl_xor_sync(0xffffffffu, sum[r][o], s);
      if (lanes > 32 && threadIdx.x % 32 == 0) parts[threadIdx.x / 32][r * kOutputs + o] = sum[r][o];
    }
  }
  if (lanes > 32) __syncthreads();
  if (lane != 0) return;
#pragma unroll
  for (int r = 0; r < kRows; r++) {
#pragma unroll
    for (int o = 0; o < kOutputs; o++) {
      const int64_t j = first + o;
      if (r >= t.m || j >= t.n) continue;
      float v = sum[r][o];
      for (int w = 1; lanes > 32 && w < kThreads / 32; w++) v += parts[w][r * kOutputs + o];
      if (t.scale != nullptr) v *= t.scale[j] * t.unit;
      v *= t.alpha;
      const int64_t at = r * t.ldy + j;
      if (t.beta != 0.0f) v += t.beta * load_one(t.y, at);
      if (t.bias.data != nullptr) v += load_one(t.bias, j);
      store_one(t.y, at, v);
    }
  }
}

template <class A, class B>
void launch(const Task& t) {
  // Several outputs a thread read the activations once for all of them; with few outputs a whole block works on one.
  const bool several = t.n >= 4096 && t.k >= 512;
  int lanes = 1;
  while (lanes < 32 && 8 * lanes < t.k) lanes *= 2;
  if (t.n <= 1024 && t.k >= 1024) lanes = kThreads;
  const unsigned grid = (unsigned)blocks_for(blocks_for(t.n, several ? 4 : 1) * lanes, kThreads);
  auto run = [&](auto* kernel) { kernel<<<grid, kThreads, 0, device.stream>>>(t, lanes); };
  if (t.m == 1) {
    several ? run(few_rows<A, B, 1, 4>) : run(few_rows<A, B, 1, 1>);
  } else {
    several ? run(few_rows<A, B, 4, 4>) : run(few_rows<A, B, 4, 1>);
  }
  launched("a product of few rows");
}

// Whether rows may be read eight elements at a time.
bool whole_eights(const Matrix& x, int64_t rows) {
  const int64_t to = x.dtype == DType::UInt8 ? 8 : 16;
  return reinterpret_cast<uintptr_t>(x.data) % to == 0 && (rows == 1 || x.ld * (int64_t)size_of(x.dtype) % to == 0);
}

}  // namespace

bool gemv(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, const Codes& codes, const Ref& y, int64_t ldy, float alpha, float beta, const Ref& bias) {
  if (m < 1 || m > 4 || n < 1 || k < 8 || k % 8 != 0 || a.transposed || !b.transposed || !whole_eights(a, m) || !whole_eights(b, n)) return false;
  const Task t{m, n, k, a.data, a.ld, b.data, b.ld, codes.scale, codes.e4m3 ? 1.0f : 1.0f / 127.0f, y, bias, ldy, alpha, beta};
  bool done = false;
  with_float_type(a.dtype, "a", [&](auto of) {
    using A = decltype(of);
    if (b.dtype == DType::UInt8) {
      codes.e4m3 ? launch<A, E4m3>(t) : launch<A, int8_t>(t);
      done = true;
    } else if (b.dtype == DType::Float32) {
      launch<A, float>(t);
      done = true;
    } else if (b.dtype == a.dtype) {
      launch<A, A>(t);
      done = true;
    }
  });
  return done;
}

}  // namespace cuda
}  // namespace tunebook
