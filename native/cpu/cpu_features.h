// What this processor can do.
#pragma once

namespace tunebook {

struct CpuFeatures {
  bool avx2 = false;    // AVX2, FMA, F16C, BMI2, and the system saves the registers
  bool avx512 = false;  // the same and AVX-512 F, BW, DQ, VL, VBMI
  bool avx512bf16 = false;  // the same and AVX-512 BF16: products of bfloat16 pairs
};
CpuFeatures cpu_features();

}  // namespace tunebook
