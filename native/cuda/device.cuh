// What every CUDA op family stands on: the device, its stream, scratch memory, faults that kernels report, and dispatch on element types.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "backend.h"

namespace tunebook {
namespace cuda {

// The device that this process works on. Everything below is used from the queue's dispatcher thread alone.
struct Device {
  int index = 0;
  int multiprocessors = 0;
  int major = 0, minor = 0;      // compute capability
  cudaStream_t stream = nullptr;  // all ops, uploads and downloads, in queue order
  cudaStream_t copies = nullptr;  // between device and host memory, beside the ops; ordered by events (transfer.cu)
};
extern Device device;

// Throws OpError naming what failed, CUDA's own words and (for memory) what is free.
void check(cudaError_t error, const char* what);
// After a launch: reports a bad configuration at once; faults of the kernel itself come with the next read.
inline void launched(const char* kernel) { check(cudaGetLastError(), kernel); }

// Device memory for the length of one op, kept and grown as needed: what it held is gone with the next call for the same slot, and a slot
// may be used again at once by the next op (stream order). Deterministic: nothing in it is ever read before it was written.
enum Slot : int { kOperandA, kOperandB, kWeights, kPartials, kPartials2, kLogits, kSorted, kWorkspace, kSlotCount };
void* scratch(Slot slot, int64_t bytes);
int64_t scratch_bytes();        // of all slots; any thread
uint64_t scratch_generation();  // changes whenever a slot moves: a captured graph that uses scratch memory must be captured anew
void release_scratch();
template <class T> T* scratch_of(Slot slot, int64_t count) { return static_cast<T*>(scratch(slot, count * (int64_t)sizeof(T))); }

// A value that a kernel may not use (an id outside the vocabulary, …): the first one of an op is kept and makes the next read fail. The
// kernel goes on without the value. kBadSequence: row is the sequence, value the row it reaches to; kNoProbability: row alone counts;
// kSharedRow: row is the sequence, value a row that another sequence has too.
enum FaultKind : int { kNoFault = 0, kBadId, kBadIndex, kBadLabel, kBadPosition, kBadSequence, kNoProbability, kSharedRow };
struct Fault {
  int kind, opcode, row, value, limit;
};
Fault* faults();  // the running op's record as kernels see it (pinned host memory): asked for anew in every op, never kept
// Host side, see device.cu: used by backend.cu alone.
void open_device(int index);
void close_device();
void bind_thread();  // CUDA calls of this thread go to the device
void begin_op(int opcode, uint64_t sequence);
uint64_t fence(bool soon);
void wait_fence(uint64_t fence);
double elapsed(uint64_t from, uint64_t to);

// In a kernel. `limit` is what the value must stay below.
__device__ inline void raise(Fault* f, FaultKind kind, int row, int value, int limit) {
  if (atomicCAS(&f->kind, kNoFault, -1) == kNoFault) {
    f->row = row;
    f->value = value;
    f->limit = limit;
    __threadfence_system();
    f->kind = kind;
  }
}

// ---- element types ------------------------------------------------------------------------

template <class T> __host__ __device__ inline float to_float(T v);
template <> __host__ __device__ inline float to_float<float>(float v) { return v; }
template <> __host__ __device__ inline float to_float<__nv_bfloat16>(__nv_bfloat16 v) { return __bfloat162float(v); }
template <> __host__ __device__ inline float to_float<__half>(__half v) { return __half2float(v); }
template <class T> __host__ __device__ inline T from_float(float v);
template <> __host__ __device__ inline float from_float<float>(float v) { return v; }
template <> __host__ __device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }
template <> __host__ __device__ inline __half from_float<__half>(float v) { return __float2half_rn(v); }

// 16 bytes of a type: how rows are read and written.
template <class T> struct alignas(16) Pack {
  static constexpr int kCount = 16 / (int)sizeof(T);
  T v[kCount];
};
template <class T> __device__ inline Pack<T> load_pack(const T* p) {
  Pack<T> r;
  *reinterpret_cast<uint4*>(&r) = *reinterpret_cast<const uint4*>(p);
  return r;
}
template <class T> __device__ inline void store_pack(T* p, const Pack<T>& r) { *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(&r); }
// Whether rows of a tensor may be read by packs: its address and its row stride (in elements) are multiples of 16 bytes.
template <class T> inline bool packed(const void* p, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride % Pack<T>::kCount == 0;
}

// f(T{}) with the element type of a tensor; fails naming the op's tensor for another dtype.
template <class F> void with_float_type(DType t, const char* tensor, F&& f) {
  switch (t) {
    case DType::Float32: f(float{}); break;
    case DType::BFloat16: f(__nv_bfloat16{}); break;
    case DType::Float16: f(__half{}); break;
    default: fail("%s must be float32, bfloat16 or float16", tensor);
  }
}

// ---- reductions ---------------------------------------------------------------------------

template <class Op> __device__ inline float warp_reduce(float v, Op op) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v = op(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}
struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
  static constexpr float kStart = 0.0f;
};
struct Max {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
  static constexpr float kStart = -INFINITY;
};
// Over a block of up to 1,024 threads (a multiple of 32); every thread gets the result. The order of additions is fixed.
template <class Op> __device__ inline float block_reduce(float v, Op op) {
  __shared__ float parts[33];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
  v = warp_reduce(v, op);
  __syncthreads();  // parts may still be read by an earlier call
  if (lane == 0) parts[warp] = v;
  __syncthreads();
  if (warp == 0) {
    float w = lane < warps ? parts[lane] : Op::kStart;
    w = warp_reduce(w, op);
    if (lane == 0) parts[32] = w;
  }
  __syncthreads();
  return parts[32];
}

inline int64_t blocks_for(int64_t n, int64_t each) { return (n + each - 1) / each; }

}  // namespace cuda
}  // namespace tunebook
