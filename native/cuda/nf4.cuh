// Reading 4-bit weights (NF4, FP4) on the GPU: the tensors of one, its scales, and decoding whole weights into another type.
#pragma once
#include "gemm.h"
#include "nf4_checks.h"

namespace tunebook {
namespace cuda {

// The numbers of native/cpu/nf4_tables.cc, handed to kernels by value.
struct Nf4Tables {
  float codes[16];
  float map[256];  // the dynamic map of doubly quantised scales
};

struct Nf4 {
  const uint8_t* q;
  const float* absmax;     // one a block, or
  const uint8_t* absmax8;  // doubly quantised: codes,
  const float* absmax2;    // one scale for 256 codes,
  const float* offset;     // and what was taken off before (one element)
  int64_t block;
  int block_shift;         // log2 of the block, or -1
  int kind;

  __device__ int64_t block_of(int64_t element) const { return block_shift >= 0 ? element >> block_shift : element / block; }
  // The scale of block b; `map` and `base` are the dynamic map and *offset. Two roundings, as bitsandbytes has them.
  __device__ float scale(int64_t b, const float* map, float base) const {
    return absmax8 == nullptr ? absmax[b] : __fadd_rn(__fmul_rn(map[absmax8[b]], absmax2[b / kAbsmaxBlock]), base);
  }
  __device__ float base() const { return absmax8 == nullptr ? 0.0f : *offset; }
};

// Checks the tensors of a weight of n elements.
Nf4 open_nf4(const Ref& q, const Ref& absmax, const Ref& absmax2, const Ref& offset, int64_t n, int64_t block, int64_t kind);
const Nf4Tables& nf4_tables(int kind);
// y = the n elements of a weight, on `stream`.
void dequantize(const Nf4& w, int64_t n, const Ref& y, cudaStream_t stream);

// y (m x rows) = alpha * a W^T + beta * y + bias for up to 8 rows of 16-bit activations, reading codes straight into the product. Returns false where it has no
// kernel for the shape (cols and block multiples of 64, 16-byte addresses).
bool gemv_nf4(const Nf4& w, int64_t m, int64_t rows, int64_t cols, const Matrix& a, const Ref& y, int64_t ldy, float alpha, float beta, const Ref& bias);
// The same for up to 64 rows and blocks of 64.
bool gemm_nf4_rows(const Nf4& w, int64_t m, int64_t rows, int64_t cols, const Matrix& a, const Ref& y, int64_t ldy, float alpha, float beta, const Ref& bias);

}  // namespace cuda
}  // namespace tunebook
