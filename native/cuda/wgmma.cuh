// Products of a warpgroup (4 warps) by Hopper's wgmma, with what feeds them: swizzled panels in shared memory, their descriptors, mbarriers between the warps that
// copy and those that multiply. Machine code for compute capability 9.0a alone; elsewhere mma.cuh serves.
//
// Accumulators lie in registers as those of mma.m16n8k16 (mma.cuh): warp w of the group has rows 16 w to 16 w + 15, d[j] columns 8 j to 8 j + 7. An operand A in registers
// is what pack_operand makes of them. PTX ISA, "Asynchronous warpgroup level matrix instructions".
#pragma once
#include <cstring>
#include <type_traits>

#include "mma.cuh"

namespace tunebook {
namespace cuda {

// Whether these kernels were compiled, and run on this device.
inline bool has_wgmma() { return device.major == 9 && device.minor == 0 && strstr(TUNEBOOK_CUDA_ARCHS, "90a") != nullptr; }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TB_HOPPER_ASM(...) asm volatile(__VA_ARGS__)
#else
#define TB_HOPPER_ASM(...)
#endif

// kRows x D 16-bit items in shared memory as D / 64 panels of rows of 128 bytes, whose chunks of 16 bytes are permuted as the hardware's 128-byte swizzle has them.
// Starts at a multiple of 1,024 bytes.
template <int D, int kRows> struct Panels {
  static_assert(D % 64 == 0 && kRows % 8 == 0, "whole panels, whole groups of 8 rows");
  static constexpr int kPanel = kRows * 128, kBytes = D / 64 * kPanel, kChunks = D / 8;
  static __device__ uint32_t at(int row, int chunk) {
    return (uint32_t)((chunk >> 3) * kPanel + row * 128 + (((chunk & 7) ^ (row & 7)) << 4));
  }
  // 16 of the columns from `row` on, as an operand whose sums run along rows; k counts sixteens of columns.
  static __device__ uint64_t along_rows(uint32_t base, int row, int k) {
    return descriptor(base + (uint32_t)((k >> 2) * kPanel + row * 128 + (k & 3) * 32), 16);
  }
  // All columns of 16 rows, as an operand B whose sums run down columns; k counts sixteens of rows.
  static __device__ uint64_t down_columns(uint32_t base, int k) { return descriptor(base + (uint32_t)(k * 2048), kPanel); }

 private:
  // Leading byte offset: between panels, where an operand needs several; stride byte offset: between groups of 8 rows; layout 1: the 128-byte swizzle.
  static __device__ uint64_t descriptor(uint32_t address, uint32_t leading) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(leading >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
  }
};

// Copies kRows x D items into panels, by `kThreads` threads of which this one is `me`; rows from `valid` on and columns from head_dim on are zeros.
template <class T, int D, int kRows, int kThreads>
__device__ inline void copy_panels(uint32_t to, const T* from, int64_t stride, int valid, int head_dim, int me) {
  using Place = Panels<D, kRows>;
  constexpr int kStep = kThreads / Place::kChunks;
  static_assert(kStep % 4 == 0 && kRows % kStep == 0, "a thread keeps to one chunk of every kStep-th row");
  const int row = me / Place::kChunks, chunk = me % Place::kChunks, left = chunk * 8 < head_dim ? valid - row : 0;
  const uint32_t even = to + Place::at(row, chunk), odd = to + Place::at(row + 4, chunk) - 4 * 128;
  const T* source = from + row * stride + chunk * 8;
#pragma unroll
  for (int r = 0; r < kRows; r += kStep) {
    copy_async_16((r & 4 ? odd : even) + r * 128, source, r < left ? 16 : 0);
    source += kStep * stride;
  }
}

// What this thread has written to shared memory can be read by wgmma once others know of it.
__device__ inline void fence_shared() { TB_HOPPER_ASM("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- mbarriers ----------------------------------------------------------------------------

__device__ inline void barrier_init(uint32_t barrier, int arrivals) {
  TB_HOPPER_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) { TB_HOPPER_ASM("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }
// Until the phase of this parity (0, 1, 0, …) has ended.
__device__ inline void barrier_wait(uint32_t barrier, int parity) {
  TB_HOPPER_ASM(
      "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra over;\nbra again;\nover:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// Of `threads` threads that name the same number (1 to 15).
__device__ inline void barrier_of(int number, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory"); }

// Registers a thread of this warpgroup may have from here on.
template <int kRegisters> __device__ inline void give_registers() { TB_HOPPER_ASM("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters)); }
template <int kRegisters> __device__ inline void take_registers() { TB_HOPPER_ASM("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters)); }

// ---- products -----------------------------------------------------------------------------

// Before the first product of a group: registers that it reads or adds to are written.
__device__ inline void products_begin() { TB_HOPPER_ASM("wgmma.fence.sync.aligned;" ::: "memory"); }
// The products since the last group are one group.
__device__ inline void products_end() { TB_HOPPER_ASM("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most kGroups of the last groups are under way.
template <int kGroups> __device__ inline void products_wait() { TB_HOPPER_ASM("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory"); }
// The compiler leaves these registers where they are: a product that it cannot see may be writing them.
template <int N> __device__ inline void hold(float (&d)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(d[i][e])::"memory");
}

#define TB_FOUR(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define TB_SIXTEEN(d, i) TB_FOUR(d, i), TB_FOUR(d, i + 1), TB_FOUR(d, i + 2), TB_FOUR(d, i + 3)
#define TB_HALF(d, i) TB_SIXTEEN(d, i), TB_SIXTEEN(d, i + 4)
#define TB_BOTH(d) TB_HALF(d, 0), TB_HALF(d, 8)
#define TB_LIST_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TB_LIST_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// d (64 rows x N) (+)= a b: `a` rows in shared memory or 4 registers, b columns in shared memory; scale-d 0 overwrites d.
#define TB_SHARED(N, LIST, OUT, A, B, ADD, TYPE) \
  TB_HOPPER_ASM("{\n.reg .pred add;\nsetp.ne.b32 add, " ADD ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" LIST "}, " A ", " B ", add, 1, 1, 0, 0;\n}" \
                : OUT : "l"(a), "l"(b), "r"(add))
#define TB_REGISTERS(N, LIST, OUT, A, B, TYPE) \
  TB_HOPPER_ASM("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" LIST "}, " A ", " B ", 1, 1, 1, 1;" \
                : OUT : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define TB_A4(i, j, k, l) "{%" #i ", %" #j ", %" #k ", %" #l "}"

template <class T> constexpr bool kIsBf16 = std::is_same_v<T, __nv_bfloat16>;

// Both operands along rows: d[row][column] = sum over 16 of a[row] b[column].
template <class T> __device__ inline void multiply_shared(float (&d)[8][4], uint64_t a, uint64_t b, int add) {
  if constexpr (kIsBf16<T>) TB_SHARED(64, TB_LIST_32, TB_HALF(d, 0), "%32", "%33", "%34", "bf16");
  else TB_SHARED(64, TB_LIST_32, TB_HALF(d, 0), "%32", "%33", "%34", "f16");
}
template <class T> __device__ inline void multiply_shared(float (&d)[16][4], uint64_t a, uint64_t b, int add) {
  if constexpr (kIsBf16<T>) TB_SHARED(128, TB_LIST_64, TB_BOTH(d), "%64", "%65", "%66", "bf16");
  else TB_SHARED(128, TB_LIST_64, TB_BOTH(d), "%64", "%65", "%66", "f16");
}
// A in registers, B down columns; added to d.
template <class T> __device__ inline void multiply_held(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
  if constexpr (kIsBf16<T>) TB_REGISTERS(64, TB_LIST_32, TB_HALF(d, 0), TB_A4(32, 33, 34, 35), "%36", "bf16");
  else TB_REGISTERS(64, TB_LIST_32, TB_HALF(d, 0), TB_A4(32, 33, 34, 35), "%36", "f16");
}
template <class T> __device__ inline void multiply_held(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
  if constexpr (kIsBf16<T>) TB_REGISTERS(128, TB_LIST_64, TB_BOTH(d), TB_A4(64, 65, 66, 67), "%68", "bf16");
  else TB_REGISTERS(128, TB_LIST_64, TB_BOTH(d), TB_A4(64, 65, 66, 67), "%68", "f16");
}

}  // namespace cuda
}  // namespace tunebook
