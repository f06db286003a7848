// Matrix product for other families: attention, linear + cross entropy. Inside namespace TB_ISA, as everything of an ISA file.
#pragma once
#include "parallel.h"

namespace tunebook {
namespace TB_ISA {

// `compute` of ops.def: how operands enter a product. Sums are float32 always.
enum Compute : int64_t { kFloat32 = 0, kBFloat16 = 1 };

// A matrix of float32, bfloat16 or float16: element (i, j) stands at data[i * row + j * col].
struct Matrix {
  const void* data;
  DType dtype;
  int64_t row, col;
};

// y (m x n, row stride ldy) = alpha * A B + beta * y + bias. A is m x k float32: element (i, p) at a[i * a_row + p * a_col]; B is k x n. With beta 0 y is
// not read. Uses the pool, or only the calling thread inside a parallel region.
void sgemm(int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t a_row, int64_t a_col, const Matrix& b, float beta, float* y, int64_t ldy,
           const float* bias = nullptr, int64_t compute = kFloat32);

}  // namespace TB_ISA
}  // namespace tunebook
