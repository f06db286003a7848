// AdamW with 8-bit moments in blocks of 256, the codes of the CPU's. A warp a block: each lane holds eight elements, so the largest magnitude is
// found without shared memory, and codes are read and written eight bytes at a time.
#include "adamw.h"
#include "cpu/nf4_tables.h"
#include "tensors.cuh"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256, kBlock = 256, kEach = kBlock / 32;
constexpr int64_t kPiece = kBlock * (kThreads / 32) * 2;  // of a CUDA block: two blocks of moments a warp

// The maps and their codes on a grid of 65,536 values, signed then unsigned.
struct Tables {
  float map[2][256];
  uint8_t codes[2][65536];
};
__device__ Tables tables;

const Tables* device_tables() {
  static const Tables* const address = [] {
    static Tables host;  // a copy from pageable memory that must outlive it
    memcpy(host.map[0], dynamic_map(), sizeof host.map[0]);
    memcpy(host.map[1], dynamic_map_unsigned(), sizeof host.map[1]);
    memcpy(host.codes[0], dynamic_codes(), sizeof host.codes[0]);
    memcpy(host.codes[1], dynamic_codes_unsigned(), sizeof host.codes[1]);
    void* p = nullptr;
    check(cudaGetSymbolAddress(&p, tables), "tables of the 8-bit optimizer");
    check(cudaMemcpyAsync(p, &host, sizeof host, cudaMemcpyHostToDevice, device.stream), "tables of the 8-bit optimizer");
    return static_cast<const Tables*>(p);
  }();
  return address;
}

enum List : int { kParam, kGrad, kM, kV, kAbsmaxM, kAbsmaxV, kLists };

// Eight codes of a lane; `n` of them exist.
__device__ __forceinline__ void load_codes(const uint8_t* q, int n, bool whole, uint8_t* out) {
  if (whole && n >= kEach) {
    *reinterpret_cast<uint2*>(out) = *reinterpret_cast<const uint2*>(q);
    return;
  }
#pragma unroll
  for (int j = 0; j < kEach; ++j) out[j] = j < n ? q[j] : 0;
}

__device__ __forceinline__ void load_eight(const float* x, int n, bool whole, float* out) {
  if (whole && n >= kEach) {
    *reinterpret_cast<float4*>(out) = *reinterpret_cast<const float4*>(x);
    *reinterpret_cast<float4*>(out + 4) = *reinterpret_cast<const float4*>(x + 4);
    return;
  }
#pragma unroll
  for (int j = 0; j < kEach; ++j) out[j] = j < n ? x[j] : 0.0f;
}

// Quantises the warp's block; lanes beyond the end hold zeros.
__device__ __forceinline__ void store_moment(const float* x, int n, bool whole, uint8_t* q, float* absmax, const uint8_t* codes) {
  float most = 0.0f;
#pragma unroll
  for (int j = 0; j < kEach; ++j) most = fmaxf(most, fabsf(x[j]));
  most = warp_reduce(most, Max());
  if ((threadIdx.x & 31) == 0) *absmax = most;
  const float inverse = 1.0f / most;
  alignas(8) uint8_t out[kEach];
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    // Each operation rounded, as the CPU does it. The conversion saturates; a largest magnitude below 1e-38 has no finite reciprocal.
    const int place = (int)__fadd_rn(__fmul_rn(__fadd_rn(__fmul_rn(x[j], inverse), 1.0f), 32767.5f), 0.5f);
    out[j] = most == 0.0f ? 0 : __ldg(codes + min(max(place, 0), 65535));
  }
  if (whole && n >= kEach) {
    *reinterpret_cast<uint2*>(q) = *reinterpret_cast<const uint2*>(out);
  } else {
#pragma unroll
    for (int j = 0; j < kEach; ++j)
      if (j < n) q[j] = out[j];
  }
}

__global__ void __launch_bounds__(kThreads) adamw_8bit_kernel(const __grid_constant__ Chunk<kLists> chunk, AdamW o, const float* norm_squared, const Tables* t) {
  __shared__ float map[2][256];
  for (int i = threadIdx.x; i < 512; i += kThreads) map[i >> 8][i & 255] = t->map[i >> 8][i & 255];
  __syncthreads();
  float clip = 1.0f;
  if (norm_squared != nullptr) {
    const float squared = *norm_squared;
    if (!isfinite(squared)) return;
    if (o.max_norm > 0.0f) clip = fminf(1.0f, o.max_norm / (sqrtf(squared) + 1e-6f));
  }
  const int tensor = chunk.find((int)blockIdx.x);
  float* p = static_cast<float*>(chunk.data[kParam][tensor]);
  const float* g = static_cast<const float*>(chunk.data[kGrad][tensor]);
  uint8_t *m = static_cast<uint8_t*>(chunk.data[kM][tensor]), *v = static_cast<uint8_t*>(chunk.data[kV][tensor]);
  float *absmax_m = static_cast<float*>(chunk.data[kAbsmaxM][tensor]), *absmax_v = static_cast<float*>(chunk.data[kAbsmaxV][tensor]);
  const bool whole = ((reinterpret_cast<uintptr_t>(p) | reinterpret_cast<uintptr_t>(g)) & 15) == 0 &&
                     ((reinterpret_cast<uintptr_t>(m) | reinterpret_cast<uintptr_t>(v)) & 7) == 0;
  const int64_t size = chunk.n[tensor], begin = (int64_t)((int)blockIdx.x - chunk.first[tensor]) * kPiece;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  for (int64_t at = begin + warp * kBlock; at < begin + kPiece && at < size; at += kThreads / 32 * kBlock) {
    const int64_t i = at + lane * kEach, b = at / kBlock;
    const int n = (int)(size - i < 0 ? 0 : size - i < kEach ? size - i : kEach);
    const float scale_m = absmax_m[b], scale_v = absmax_v[b];
    alignas(8) uint8_t qm[kEach], qv[kEach];
    alignas(16) float d[kEach], w[kEach];
    float first[kEach], second[kEach];
    load_codes(m + i, n, whole, qm), load_codes(v + i, n, whole, qv);
    load_eight(g + i, n, whole, d), load_eight(p + i, n, whole, w);
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      // Torch's roundings: one product rounded, the other fused with the sum.
      const float x = __fmul_rn(d[j], clip);
      const bool keep = isfinite(x) && j < n;
      const float f = __fmaf_rn(x, o.new1, __fmul_rn(__fmul_rn(map[0][qm[j]], scale_m), o.beta1));
      const float s = __fmaf_rn(__fmul_rn(x, o.new2), x, __fmul_rn(__fmul_rn(map[1][qv[j]], scale_v), o.beta2));
      first[j] = keep ? f : 0.0f;
      second[j] = keep ? s : 0.0f;
      w[j] = w[j] * o.keep - o.rate * first[j] / (sqrtf(second[j]) * o.root + o.eps);
    }
    if (whole && n >= kEach) {
      *reinterpret_cast<float4*>(p + i) = *reinterpret_cast<const float4*>(w);
      *reinterpret_cast<float4*>(p + i + 4) = *reinterpret_cast<const float4*>(w + 4);
    } else {
#pragma unroll
      for (int j = 0; j < kEach; ++j)
        if (j < n) p[i + j] = w[j];
    }
    __syncwarp();  // every lane has read the old scales
    store_moment(first, n, whole, m + i, absmax_m + b, t->codes[0]);
    store_moment(second, n, whole, v + i, absmax_v + b, t->codes[1]);
  }
}

void check_moment(const char* name, const char* absmax_name, const RefList& q, const RefList& absmax, const RefList& param) {
  if (q.count != param.count) fail("%s lists %d tensors, param %d", name, q.count, param.count);
  if (absmax.count != param.count) fail("%s lists %d tensors, param %d", absmax_name, absmax.count, param.count);
  for (int i = 0; i < param.count; ++i) {
    const int64_t n = param[i].bytes / 4;
    check_tensor(name, q[i], n, DType::UInt8);
    check_tensor(absmax_name, absmax[i], blocks_for(n, kBlock));
  }
}

void adamw_8bit(const adamw_8bit_args& a) {
  check_size("step", a.step, 1);
  if (a.grad.count != a.param.count) fail("grad lists %d tensors, param %d", a.grad.count, a.param.count);
  for (int i = 0; i < a.param.count; ++i) {
    check_tensor("param", a.param[i], 0);
    check_tensor("grad", a.grad[i], a.param[i].bytes / 4);
  }
  check_moment("m", "absmax_m", a.m, a.absmax_m, a.param);
  check_moment("v", "absmax_v", a.v, a.absmax_v, a.param);
  if (a.norm_squared) check_tensor("norm_squared", a.norm_squared, 1);
  const AdamW o = adamw_of(a);
  const float* norm = a.norm_squared ? a.norm_squared.f32() : nullptr;
  const Tables* t = device_tables();
  each_chunk<kLists>({&a.param, &a.grad, &a.m, &a.v, &a.absmax_m, &a.absmax_v}, kPiece, [&](const Chunk<kLists>& chunk, int64_t pieces, int64_t) {
    adamw_8bit_kernel<<<(unsigned)pieces, kThreads, 0, device.stream>>>(chunk, o, norm, t);
    launched("adamw_8bit");
  });
}

}  // namespace

void register_optimizer8(Backend& b) { b.adamw_8bit = adamw_8bit; }

}  // namespace cuda
}  // namespace tunebook
