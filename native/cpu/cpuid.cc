// isa: none
#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tunebook {

CpuFeatures cpu_features() {
  CpuFeatures features;
#if defined(__x86_64__)
  unsigned a, b, c, d, b7, c7;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return features;
  const bool fma = c & 1u << 12, osxsave = c & 1u << 27, f16c = c & 1u << 29;
  if (!osxsave || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d)) return features;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const bool ymm = (low & 0x06) == 0x06, zmm = (low & 0xe6) == 0xe6;
  features.avx2 = ymm && fma && f16c && (b7 & 1u << 5) && (b7 & 1u << 8);  // AVX2, BMI2
  const unsigned wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;       // F, DQ, BW, VL
  features.avx512 = features.avx2 && zmm && (b7 & wanted) == wanted && (c7 & 1u << 1);  // VBMI
  unsigned a1, b1, c1, d1;
  features.avx512bf16 = features.avx512 && __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && (a1 & 1u << 5);
#endif
  return features;
}

}  // namespace tunebook
