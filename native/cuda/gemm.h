// Matrix products for other families: quantised weights, linear + cross entropy.
#pragma once
#include "device.cuh"

namespace tunebook {
namespace cuda {

// A row-major matrix as it stands in memory: op(x) is x, or its transpose. Items of a batch stand `stride` elements apart.
struct Matrix {
  const void* data;
  DType dtype;
  int64_t ld;
  bool transposed = false;
  int64_t stride = 0;
};

// y (m x n, row stride ldy) = alpha * op(a) op(b) + beta * y + bias, for `batch` items. a and b have one element type; sums are float32, float32 operands
// enter as they are (no TF32); y is rounded once. With beta 0 y is not read. Two runs give the same bits.
struct Product {
  int64_t m, n, k;
  Matrix a, b;
  Ref y;
  int64_t ldy;
  float alpha = 1, beta = 0;
  Ref bias = {};
  int64_t batch = 1;
  int64_t stride_y = 0;
  // Operands of dtype UInt8 are E4M3 codes: a as it stands, b transposed, with a scale for each row of a and of b as stored.
  const float *scale_a = nullptr, *scale_b = nullptr;
  bool fast = false;  // their sums may lose digits on the way
};
void multiply(const Product& p);

// The type in which a product is done: 16 bits when either operand has them or compute is 1 (bfloat16), else float32.
DType product_type(DType a, DType b, int64_t compute);

// `x` (count items of rows x cols as stored) times `scale` in element type `to`: itself, or a dense copy in scratch memory.
Matrix as_type(const Matrix& x, int64_t count, int64_t rows, int64_t cols, DType to, Slot slot, float scale = 1);

// A product that cuBLASLt takes as it is: y is float32 or of the operands' type, bias (when given) of y's. False: it has no kernel with a bias, or for E4M3
// codes, for it.
bool matmul(const Product& p);

// What the codes of a weight b of dtype UInt8 are: int8, W = code * scale[row] / 127, or E4M3, W = code * scale[row].
struct Codes {
  const float* scale = nullptr;
  bool e4m3 = false;
};
// The same for up to 4 rows, by reading a weight b (n x k, "transposed") once as it stands, without rounding; b may have codes.
// False where it has no kernel: other strides, other mixtures of types, more rows.
bool gemv(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, const Codes& codes, const Ref& y, int64_t ldy, float alpha, float beta, const Ref& bias);

// Up to so many rows (decoding) a product waits for its weight to be read.
constexpr int64_t kFewRows = 64;

// y = alpha * a op(b) + beta * y for up to 64 terms and many rows, y of 16 bits; b may be float32 and is rounded. What is added to y is there in the mean, however small it
// is beside y. False where it has no kernel.
bool rank_update(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, const Ref& y, int64_t ldy, float alpha, float beta);

// y (m x n) = sum of a_i op(b_i) + bias in one product, whose sums are rounded once; see product.cu. All have one element type of 16 bits. The last part may have few terms
// (a low-rank update).
struct Part {
  Matrix a, b;
  int64_t terms;
};
constexpr int kMostParts = 4;
// Whether there is a kernel: asked before, so a part's b may not be there yet (nullptr).
bool has_parts_kernel(const Product& p, const Part* parts, int count);
void multiply_parts(const Product& p, const Part* parts, int count);

void check_compute(int64_t compute);
// Fails unless `x` holds `rows` rows of `cols` elements that stand `ld` apart, from element `before` on, in one of the float types.
void check_matrix(const char* name, const Ref& x, int64_t rows, int64_t cols, int64_t ld, int64_t before = 0);

}  // namespace cuda
}  // namespace tunebook
