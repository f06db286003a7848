// Checks of an op's arguments before anything is launched, beside those of every backend: activations may have 16 bits here.
#pragma once
#include "checks.h"
#include "device.cuh"

namespace tunebook {
namespace cuda {

inline bool is_float(DType t) { return t == DType::Float32 || t == DType::BFloat16 || t == DType::Float16; }

// A tensor of any float dtype.
inline void check_floats(const char* name, const Ref& t, int64_t elements) {
  if (!is_float(t.dtype)) fail("%s is %s, expected float32, bfloat16 or float16", name, dtype_name(t.dtype));
  check_count(name, t, elements);
}

// An activation that shares the dtype of another one, whose name is given for the message.
inline void check_like(const char* name, const Ref& t, int64_t elements, const char* other_name, const Ref& other) {
  if (t.dtype != other.dtype) fail("%s is %s, expected %s as %s", name, dtype_name(t.dtype), dtype_name(other.dtype), other_name);
  check_floats(name, t, elements);
}

// A norm's weight or bias: float32 or the activations' dtype.
inline void check_weight(const char* name, const Ref& t, int64_t elements, DType activations) {
  if (t.dtype != DType::Float32 && t.dtype != activations)
    fail("%s is %s, expected float32 or the activations' %s", name, dtype_name(t.dtype), dtype_name(activations));
  check_count(name, t, elements);
}

// Blocks that cover n items, `each` a block.
inline unsigned grid_of(int64_t n, int64_t each) {
  const int64_t blocks = (n + each - 1) / each;
  if (blocks > 0x7fffffff) fail("%lld elements are more than one launch covers", (long long)n);
  return (unsigned)blocks;
}

}  // namespace cuda
}  // namespace tunebook
