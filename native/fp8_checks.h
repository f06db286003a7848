// Checks of gemm_fp8, the same for every backend. Internal linkage: files are compiled for several instruction sets.
#pragma once
#include "backend.h"

namespace tunebook {

// Of the operand a: how it is rounded, and what it must be where it has been rounded before.
static inline void check_rounding(const gemm_fp8_args& g) {
  if (g.round_a != 0 && g.round_a != 1) fail("round_a must be 0 (as it is) or 1 (to E4M3), but is %lld", (long long)g.round_a);
  if (!g.a_scale) return;
  if (g.a.dtype != DType::UInt8 || g.a_scale.dtype != DType::Float32) fail("with a_scale (float32) a must be codes (uint8)");
  if (g.round_a != 1 || g.trans_w != 1 || g.lda != g.cols)
    fail("with a_scale round_a and trans_w must be 1 and lda %lld, but they are %lld, %lld and %lld", (long long)g.cols,
         (long long)g.round_a, (long long)g.trans_w, (long long)g.lda);
  if (g.m > 0 && (g.a.bytes < g.m * g.cols || g.a_scale.bytes < g.m * 4))
    fail("%lld rows of %lld codes need as many bytes and scales, but a has %lld bytes and a_scale %lld", (long long)g.m,
         (long long)g.cols, (long long)g.a.bytes, (long long)(g.a_scale.bytes / 4));
}

}  // namespace tunebook
