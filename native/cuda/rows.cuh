// How ops over rows are launched: a row belongs to one warp (several of them a block) or to one block, and where it fits it is kept in
// shared memory, so that device memory is read once. Every thread walks the same places of a row in each pass: what it keeps, only it
// reads.
#pragma once
#include <type_traits>

#include "check.cuh"
#include "vector.cuh"

namespace tunebook {
namespace cuda {

// f(N) with N elements a thread at a time: whole packs of T where rows allow it, else single elements.
template <class T, class F> void with_width(bool whole, F&& f) {
  if (whole) f(std::integral_constant<int, Pack<T>::kCount>{});
  else f(std::integral_constant<int, 1>{});
}

constexpr int64_t kWarpUnits = 64;  // rows up to so many packs (or elements) are a warp's
constexpr int kWarpRows = 8;

// Threads for workers that walk `units` each: x along a row, y the workers of a block.
inline dim3 row_block(int64_t workers, int64_t units) {
  if (units <= kWarpUnits) return dim3(32, kWarpRows);
  // Few rows: all threads that have something to do. Many rows: about two loads in flight a thread, and several blocks a multiprocessor.
  const int64_t wanted = workers < 256 ? units : (units + 1) / 2;
  const int64_t most = workers < 256 || units > 4096 ? 1024 : 512;
  const int64_t threads = (wanted + 31) / 32 * 32;
  return dim3((unsigned)(threads < most ? threads : most), 1);
}

__device__ __forceinline__ int64_t worker() { return (int64_t)blockIdx.x * blockDim.y + threadIdx.y; }

// Over the threads of a row. Blocks of one warp a row need no barrier, so rows past the end may leave early there.
template <class Op> __device__ __forceinline__ float row_reduce(float v, Op op) {
  return blockDim.x == 32 ? warp_reduce(v, op) : block_reduce(v, op);
}

// Shared memory that a block may ask for, less what kernels here declare themselves.
inline int64_t shared_limit() {
  static const int64_t limit = [] {
    int bytes = 0;
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device.index), "asking for the shared memory of a block");
    return (int64_t)bytes - 4096;
  }();
  return limit;
}
// A kernel uses more than 48 KB only when told so.
template <class K> void allow_shared(K* kernel, int64_t bytes) {
  if (bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), "reserving shared memory");
}

// Index and value of the best element so far: the largest, NaN above all, the first among equals.
struct Best {
  float value;
  int64_t index;
};
__device__ __forceinline__ bool better(const Best& a, const Best& b) {
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan != b_nan) return a_nan;
  if (!a_nan && a.value != b.value) return a.value > b.value;
  return a.index < b.index;
}
__device__ inline Best warp_best(Best best) {
  for (int o = 16; o > 0; o >>= 1) {
    const Best other{__shfl_xor_sync(0xffffffffu, best.value, o), __shfl_xor_sync(0xffffffffu, best.index, o)};
    if (better(other, best)) best = other;
  }
  return best;
}
__device__ inline Best row_best(Best best) {
  __shared__ float values[32];
  __shared__ int64_t indices[32];
  best = warp_best(best);
  if (blockDim.x == 32) return best;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  __syncthreads();
  if (lane == 0) values[warp] = best.value, indices[warp] = best.index;
  __syncthreads();
  return warp_best(lane < warps ? Best{values[lane], indices[lane]} : best);
}

}  // namespace cuda
}  // namespace tunebook
