// The packed product, for a right operand that knows how to pack itself (dense of any float type, or quantised and restored while packing).
// The policy P says what packed words are: float32, or pairs of bfloat16 (gemm_kernel.h).
//
// How work is cut depends on the shape alone, and every element sums its k products in one order, so the result does not depend on the number of threads.
#pragma once
#include "gemm_pack.h"

namespace tunebook {
namespace TB_ISA {

TB_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kKC = 640;         // k is cut into equal pieces of at most this length
constexpr int64_t kMB = 2040;        // rows of A packed at once
constexpr int64_t kGroup = 4 * kNR;  // columns of B packed by one task: with kKC rows they stay in the second-level cache
constexpr double kSerialFlops = 1e6;  // below this a second thread costs more than it brings

// Weights are read in the order in which they stand, this many bytes ahead: nearly all that memory gives, on one row at a time. Several rows at once are
// several streams, which the processor's own prefetching follows badly.
constexpr int64_t kAhead = 4096;

struct KSplit {
  int64_t count, size;
};
template <class P>
TB_INLINE KSplit split_k(int64_t k) {
  const int64_t count = ceil_div(k, kKC * P::kPair);
  const int64_t size = ceil_div(ceil_div(k, count), 64) * 64;  // pieces of a quantised row begin where a block does
  return {ceil_div(k, size), size};
}

// The epilogue of a piece of k: the first one brings beta and bias, the others add.
TB_INLINE Epilogue piece_of(const Epilogue& e, int64_t piece) {
  if (piece == 0) return e;
  return {e.alpha, 1.0f, e.y, e.ldy, nullptr};
}

// Packed slivers of MR rows against one packed panel; k counts words.
template <class P, int MR>
static void panel_times_slivers(int64_t k, const float* slivers, const float* panel, const Epilogue& e, int64_t row, int64_t rows, int64_t column,
                                   int64_t columns) {
  for (int64_t i = 0; i < rows; i += MR, slivers += k * MR) {
    const int64_t r = rows - i < MR ? rows - i : MR;
    if (kNV > 1 && columns <= W) {
      tile<P, MR, 1, true, false>(k, slivers, 0, 0, panel, kNR, e, row + i, column, r, columns);
    } else {
      tile<P, MR, kNV, true, false>(k, slivers, 0, 0, panel, kNR, e, row + i, column, r, columns);
    }
  }
}

// Runs f(i) on the pool, or here when the work is small.
template <class F>
TB_INLINE void tasks_if(bool parallel, int64_t count, F&& f) {
  if (parallel) {
    parallel_tasks(count, f);
  } else {
    for (int64_t i = 0; i < count; i++) f(i);
  }
}

// Wide products: A is packed by all threads, then each task packs a group of B's columns and runs over the rows.
template <class P, int MR, class B>
void gemm_wide_of(int64_t m, int64_t n, int64_t k, const DenseA& a, const B& b, const Epilogue& e) {
  const bool parallel = 2.0 * m * n * k > kSerialFlops;
  const KSplit ks = split_k<P>(k);
  const int64_t most = words_of<P>(ks.size);
  // Few columns and many threads: smaller groups, and rows cut as well (B's columns are then packed once for each cut).
  const int threads = parallel ? thread_count() : 1;
  int64_t group = kGroup;
  while (group > kNR && ceil_div(n, group) < 3 * threads) group -= kNR;
  const int64_t groups = ceil_div(n, group);
  for (int64_t i0 = 0; i0 < m; i0 += kMB) {
    const int64_t rows = m - i0 < kMB ? m - i0 : kMB;
    const int64_t slivers = ceil_div(rows, MR);
    int64_t cuts = 1;
    while (groups * cuts < 2 * threads && slivers / (cuts + 1) >= 8) cuts++;
    const int64_t cut = ceil_div(slivers, cuts) * MR;
    float* packed = scratch_f32(4, slivers * MR * most);
    for (int64_t piece = 0; piece < ks.count; piece++) {
      const int64_t p0 = piece * ks.size, kc = k - p0 < ks.size ? k - p0 : ks.size, kw = words_of<P>(kc);
      constexpr int64_t kSliversATask = 8;
      tasks_if(parallel && slivers > kSliversATask, ceil_div(slivers, kSliversATask), [&](int64_t t) {
        const int64_t first = t * kSliversATask * MR;
        const int64_t count = rows - first < kSliversATask * MR ? rows - first : kSliversATask * MR;
        a.pack_slivers<P>(packed + first * kw, MR, i0 + first, count, p0, kc);
      });
      const Epilogue pe = piece_of(e, piece);
      tasks_if(parallel, groups * cuts, [&](int64_t t) {
        const int64_t j0 = t / cuts * group, first = t % cuts * cut;
        const int64_t columns = n - j0 < group ? n - j0 : group;
        const int64_t count = rows - first < cut ? rows - first : cut;
        if (count <= 0) return;
        float* panels = scratch_f32(5, ceil_div(group, kNR) * kNR * most);
        b.template pack_panels<P>(panels, p0, kc, j0, columns);
        // A block of slivers meets all panels of the group before the next one comes.
        constexpr int64_t kBlock = 4 * MR;
        for (int64_t i = 0; i < count; i += kBlock) {
          const int64_t r = count - i < kBlock ? count - i : kBlock;
          for (int64_t j = 0; j < columns; j += kNR) {
            panel_times_slivers<P, MR>(kw, packed + (first + i) * kw, panels + j * kw, pe, i0 + first + i, r, j0 + j, columns - j < kNR ? columns - j : kNR);
          }
        }
      });
    }
  }
}

template <class P, class B>
void gemm_wide(int64_t m, int64_t n, int64_t k, const DenseA& a, const B& b, const Epilogue& e) {
  // Eight rows twice rather than twelve and four (the rank of an adapter is often 8 or 16).
  if (kMR == 12 && (m <= 8 || (m > 12 && m <= 16))) {
    gemm_wide_of<P, 8>(m, n, k, a, b, e);
  } else {
    gemm_wide_of<P, kMR>(m, n, k, a, b, e);
  }
}

// Narrow products (few columns): B is packed once, then each task takes rows of A, which it reads in place where every row is used once.
template <class P, class B>
void gemm_narrow(int64_t m, int64_t n, int64_t k, const DenseA& a, const B& b, const Epilogue& e) {
  const bool parallel = 2.0 * m * n * k > kSerialFlops;
  const KSplit ks = split_k<P>(k);
  const int64_t most = words_of<P>(ks.size);
  float* panels = scratch_f32(4, ceil_div(n, kNR) * kNR * most);
  constexpr int64_t kRows = 4 * kMR;
  const bool in_place = P::kInPlace && (a.col == 1 || a.row == 1) && n <= 2 * kNR;
  for (int64_t piece = 0; piece < ks.count; piece++) {
    const int64_t p0 = piece * ks.size, kc = k - p0 < ks.size ? k - p0 : ks.size, kw = words_of<P>(kc);
    b.template pack_panels<P>(panels, p0, kc, 0, n);
    const Epilogue pe = piece_of(e, piece);
    tasks_if(parallel, ceil_div(m, kRows), [&](int64_t t) {
      const int64_t first = t * kRows, rows = m - first < kRows ? m - first : kRows;
      const int64_t whole = in_place ? rows / kMR * kMR : 0;
      for (int64_t i = 0; i < whole; i += kMR) {
        const float* at = a.data + (first + i) * a.row + p0 * a.col;
        for (int64_t j = 0; j < n; j += kNR) {
          if (kNV > 1 && n - j <= W) {
            tile<P, kMR, 1, false, false>(kc, at, a.row, a.col, panels + j * kw, kNR, pe, first + i, j, kMR, n - j);
          } else {
            tile<P, kMR, kNV, false, false>(kc, at, a.row, a.col, panels + j * kw, kNR, pe, first + i, j, kMR, n - j < kNR ? n - j : kNR);
          }
        }
      }
      if (whole == rows) return;
      float* slivers = scratch_f32(5, kRows * most);
      a.pack_slivers<P>(slivers, kMR, first + whole, rows - whole, p0, kc);
      for (int64_t j = 0; j < n; j += kNR) {
        panel_times_slivers<P, kMR>(kw, slivers, panels + j * kw, pe, first + whole, rows - whole, j, n - j < kNR ? n - j : kNR);
      }
    });
  }
}

}  // namespace TB_ISA
}  // namespace tunebook
