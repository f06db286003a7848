// How an op family is written, and the thread pool it runs on.
//
// One family a file: native/cpu/<family>.cc. Its first line says how it is compiled:
//     // isa: portable avx2 avx512      three times, with the flags of each instruction set, or
//     // isa: none                      once, with the base flags.
// Families that multiply matrices add avx512bf16: AVX-512 with products of bfloat16 pairs. The others run as avx512 there.
// scripts/build.mjs finds the files by itself; there is no list to edit. An ISA file looks like this:
//
//     // isa: portable avx2 avx512
//     // What this family is.
//     #include "parallel.h"
//
//     namespace tunebook {
//     namespace TB_ISA {                       // portable, avx2 or avx512: a macro given by the build
//     namespace {                              // what stays in this file
//
//     void axpy(const axpy_args& a) {          // the struct comes from ops.def; integers are int64_t
//       parallel_for(a.n, 16384, [&](int64_t begin, int64_t end) { … });
//     }
//
//     }  // namespace
//
//     void register_elementwise(Backend& b) {  // register_<file name>: the build calls it, so a missing one is a link error
//       b.axpy = axpy;
//     }
//
//     }  // namespace TB_ISA
//     }  // namespace tunebook
//
// An op that no family has registered fails at run time with "not implemented", naming itself.
// A name of ops.def that C++ reserves gets an underscore: `do` is a.do_.
// Macros: TB_AVX512 (F, BW, DQ, VL, VBMI) and TB_AVX2 (AVX2, FMA, F16C; set under avx512 too) are 1 or 0, TB_BF16 is 1 under
// avx512bf16. Without intrinsics the compiler
// vectorises plain loops; `#pragma omp simd reduction(+:s)` allows it to reorder a sum.
// Everything in an ISA file stands inside namespace TB_ISA, helpers of its headers too: two files compiled with different flags must
// not define one inline function. For the same reason use few templates of the standard library there.
//
// Failing: fail("embedding: id %d at row %lld …") (backend.h) from any thread; the queue stops and reports it.
// Numbers must not depend on the number of threads: sum in an order fixed by the shape (parallel_tasks over fixed pieces, one partial
// result each, added in order), never per thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "backend.h"

#ifndef TB_ISA
#define TB_ISA portable
#endif
#ifndef TB_AVX2
#define TB_AVX2 0
#endif
#ifndef TB_AVX512
#define TB_AVX512 0
#endif
#ifndef TB_BF16
#define TB_BF16 0
#endif

namespace tunebook {

// Threads that work on one op, the calling one among them.
int thread_count();

namespace detail {
// Runs fn(context, i) for 0 <= i < count, each once, in any order, on any thread; returns when all are done and rethrows the first
// failure. Inside a parallel region (a nested call) everything runs on the calling thread.
void parallel_run(int64_t count, void (*fn)(void*, int64_t), void* context);
}  // namespace detail

// f(i) for every i of [0, count): pieces of work whose borders do not depend on the number of threads.
template <class F>
inline void parallel_tasks(int64_t count, F&& f) {
  auto call = [](void* context, int64_t i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); };
  detail::parallel_run(count, call, const_cast<void*>(static_cast<const void*>(&f)));
}

// f(begin, end) over pieces of [0, n), each at least `grain` long but the last: for work where every index stands alone.
// The borders depend on the number of threads. As a rule of thumb a piece should take 10 µs or more.
template <class F>
inline void parallel_for(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  const int threads = thread_count();
  if (n <= grain || threads == 1) {
    f(int64_t{0}, n);
    return;
  }
  int64_t piece = (n + threads * 4 - 1) / (threads * 4);
  if (piece < grain) piece = grain;
  parallel_tasks((n + piece - 1) / piece, [&](int64_t i) {
    const int64_t begin = i * piece;
    f(begin, begin + piece < n ? begin + piece : n);
  });
}

// Working memory of the calling thread, 64-byte aligned, kept between ops. `slot` 0..3 are separate buffers; 4..7 belong to gemm. A
// second call for the same slot may move it: fetch once at the top of an op or a task. In the thread that runs the op itself, memory
// fetched outside a parallel region may be shared with the tasks.
void* scratch(int slot, int64_t bytes);
inline float* scratch_f32(int slot, int64_t count) { return static_cast<float*>(scratch(slot, count * 4)); }

}  // namespace tunebook
