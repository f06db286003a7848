// Checks of 4-bit weights (NF4, FP4), the same for every backend. Internal linkage: files are compiled for several instruction sets.
#pragma once
#include "backend.h"

namespace tunebook {

constexpr int64_t kAbsmaxBlock = 256;  // scales that share one of their own, when they are quantised too

static inline int64_t nf4_blocks(int64_t n, int64_t block) { return (n + block - 1) / block; }

static inline void check_nf4_form(int64_t block, int64_t kind) {
  if (block < 2 || block % 2 != 0) fail("the block must be an even number of elements, but is %lld", (long long)block);
  if (kind != 0 && kind != 1) fail("kind must be 0 (NF4) or 1 (FP4), but is %lld", (long long)kind);
}

// The tensors of a weight of n elements. Whether its scales are quantised too: then absmax2 and offset are there, otherwise absmax is float32.
static inline bool check_nf4(const Ref& q, const Ref& absmax, const Ref& absmax2, const Ref& offset, int64_t n, int64_t block, int64_t kind) {
  check_nf4_form(block, kind);
  const int64_t blocks = nf4_blocks(n, block);
  if (q.bytes < (n + 1) / 2) fail("q has %lld bytes, but %lld elements need %lld", (long long)q.bytes, (long long)n, (long long)((n + 1) / 2));
  if (absmax.dtype == DType::UInt8) {
    if (!absmax2 || !offset) fail("absmax is uint8 (doubly quantised), so absmax2 and offset must be given");
    const int64_t groups = nf4_blocks(blocks, kAbsmaxBlock);
    if (absmax.bytes < blocks || absmax2.bytes < groups * 4 || offset.bytes < 4) {
      fail("absmax has %lld elements and absmax2 %lld, but %lld and %lld are needed", (long long)absmax.bytes, (long long)(absmax2.bytes / 4), (long long)blocks,
           (long long)groups);
    }
    return true;
  }
  if (absmax.dtype != DType::Float32 || absmax2) fail("absmax must be uint8 with absmax2 and offset, or float32 without them");
  if (absmax.bytes < blocks * 4) fail("absmax has %lld elements, but %lld are needed", (long long)(absmax.bytes / 4), (long long)blocks);
  return false;
}

static inline void check_quantize_nf4(const quantize_nf4_args& g) {
  check_nf4_form(g.block, g.kind);
  const int64_t blocks = nf4_blocks(g.n, g.block), item = (int64_t)size_of(g.x.dtype);
  if (g.x.bytes < g.n * item || g.q.bytes < (g.n + 1) / 2 || g.absmax.bytes < blocks * 4) {
    fail("%lld elements need %lld bytes of x, %lld of q and %lld of absmax; there are %lld, %lld and %lld", (long long)g.n, (long long)(g.n * item),
         (long long)(g.n + 1) / 2, (long long)blocks * 4, (long long)g.x.bytes, (long long)g.q.bytes, (long long)g.absmax.bytes);
  }
}

static inline void check_quantize_absmax(const quantize_absmax_args& g) {
  const int64_t groups = nf4_blocks(g.n, kAbsmaxBlock);
  if (g.absmax.dtype != DType::Float32 || g.absmax.bytes < g.n * 4) fail("absmax must be float32 with %lld elements", (long long)g.n);
  if (g.q.bytes < g.n || g.absmax2.bytes < groups * 4 || g.offset.bytes < 4) {
    fail("%lld scales need %lld bytes of q and %lld values of absmax2", (long long)g.n, (long long)g.n, (long long)groups);
  }
}

}  // namespace tunebook
