// Tensor cores through mma.sync, with what feeds them: ldmatrix, cp.async and a swizzled tile in shared memory (compute capability 8.0 on).
// Fragments of m16n8k16, with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix fragments for mma.m16n8k16"):
//   A (row-major 16 x 16)   a0: row g, k 2t 2t+1   a1: row g+8   a2: row g, k 2t+8 2t+9   a3: row g+8, k 2t+8 2t+9
//   B (16 x 8)              b0: k 2t 2t+1, n g     b1: k 2t+8 2t+9
//   C (16 x 8)              c0 c1: row g, n 2t 2t+1   c2 c3: row g+8
#pragma once
#include "launch.cuh"

namespace tunebook {
namespace cuda {

// x, of which the compiler knows nothing: what is computed from it inside a loop is not kept in registers around the loop.
__device__ inline uint32_t anew(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

__device__ inline uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory, behind the program's back; bytes = 0 writes zeros and reads nothing.
__device__ inline void copy_async_16(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void copy_async_4(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Until at most N of this thread's groups are on their way. What other threads copied is there after a barrier.
template <int N> __device__ inline void copy_wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory"); }

// Four 8 x 8 matrices of 16-bit items; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// c += a b, sums in float32
template <class T> __device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <> __device__ inline void multiply_add<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> __device__ inline void multiply_add<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats as the two 16-bit items of a register, the first in the low half.
template <class T> __device__ uint32_t pack_pair(float low, float high);
template <> __device__ inline uint32_t pack_pair<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <> __device__ inline uint32_t pack_pair<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ inline float exp2_fast(float x) {  // 2 units in the last place; 0 for -infinity
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Rows of D 16-bit items in shared memory. Chunks of 16 bytes are permuted within a row so that the same chunk of 8 rows that follow one
// another lies in 8 different groups of banks. A tile starts at a multiple of 128 bytes.
template <int D> struct SharedRows {
  static_assert(D % 32 == 0, "a row is a multiple of 64 bytes");
  static constexpr int kRow = D * 2, kChunks = D / 8;
  static constexpr int kMask = D % 64 == 0 ? 7 : 3, kShift = D % 64 == 0 ? 0 : 1;

  static __device__ uint32_t at(int row, int chunk) { return (uint32_t)(row * kRow + ((chunk ^ ((row >> kShift) & kMask)) << 4)); }

  // Where this lane points for a 16 x 16 block: at rows x k for an operand A, at k x n for an operand B that is read transposed …
  static __device__ uint32_t lane_of_rows(int lane) { return at(lane & 15, lane >> 4); }
  // … and at n x k for an operand B.
  static __device__ uint32_t lane_of_columns(int lane) { return at((lane & 7) | ((lane >> 4) << 3), (lane >> 3) & 1); }
  // The block `rows16` x 16 rows down and `chunk` (even) chunks to the right of the block that `lane` points into.
  static __device__ uint32_t block(uint32_t lane, int rows16, int chunk) {
    return (lane ^ (uint32_t)((chunk & kMask) << 4)) + (uint32_t)((chunk & ~kMask) << 4) + (uint32_t)(rows16 * 16 * kRow);
  }
};

}  // namespace cuda
}  // namespace tunebook
