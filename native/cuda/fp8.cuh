// E4M3 codes on the device: CUDA's conversions, single instructions from compute capability 8.9 on and the same numbers in code before it.
#pragma once
#include <cuda_fp8.h>

#include "device.cuh"

namespace tunebook {
namespace cuda {

// A code as it stands in memory.
struct E4m3 {
  uint8_t bits;
};

__device__ __forceinline__ float2 decode_two(uint16_t codes) {
  return __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(codes, __NV_E4M3)));  // exact: a float16 holds every value, NaN too
}

// The codes of 8 neighbours, the first in the lowest byte.
__device__ __forceinline__ void decode_eight(uint2 codes, float (&v)[8]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 two = decode_two((uint16_t)((i < 2 ? codes.x : codes.y) >> (16 * (i % 2))));
    v[2 * i] = two.x;
    v[2 * i + 1] = two.y;
  }
}

// To nearest, ties to even, at most 448; NaN: 0x7f. The first code stands in the low byte.
__device__ __forceinline__ uint32_t encode_two(float a, float b) {
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}

// Rows of codes with a scale each, from x (rows of any float type, `ld` apart; fp8_rows.cu). With `columns`, x[r, c] * columns[c] is
// rounded instead.
void encode_rows(const Ref& x, int64_t ld, const float* columns, int64_t rows, int64_t cols, uint8_t* codes, float* scale);
// y (dense) = codes * scale of their row, or the codes' own values without scales.
void decode_rows(const uint8_t* codes, const float* scale, int64_t rows, int64_t cols, const Ref& y);
// to (cols x rows) = codes (rows x cols), both multiples of 4 and aligned to 4 bytes; ones: cols times 1.
void transpose_codes(const uint8_t* codes, int64_t rows, int64_t cols, uint8_t* to, float* ones);

}  // namespace cuda
}  // namespace tunebook
