// Matrix product for other families: attention, linear + cross entropy. Inside namespace TB_ISA, as everything of an ISA file.
#pragma once
#include "parallel.h"

namespace tunebook {
namespace TB_ISA {

// y (m x n, row stride ldy) = alpha * A B + beta * y + bias. A is m x k: element (i, p) at a[i * a_row + p * a_col]; B is k x n: element (p, j)
// at b[p * b_row + j * b_col]. With beta 0 y is not read. Uses the pool, or only the calling thread inside a parallel region.
void sgemm(int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, int64_t b_col,
           float beta, float* y, int64_t ldy, const float* bias = nullptr);

}  // namespace TB_ISA
}  // namespace tunebook
