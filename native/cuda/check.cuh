// Checks of an op's arguments before anything is launched: every tensor must hold what the integers say, counted in its own dtype.
#pragma once
#include "device.cuh"

namespace tunebook {
namespace cuda {

// A product of sizes; too large for 64 bits gives the largest number, which no tensor holds.
inline int64_t product(int64_t a, int64_t b = 1, int64_t c = 1, int64_t d = 1) {
  int64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r) || __builtin_mul_overflow(r, c, &r) || __builtin_mul_overflow(r, d, &r)) return INT64_MAX;
  return r;
}

// Elements spanned by `rows` rows of `cols` that stand `stride` apart.
inline int64_t span(int64_t rows, int64_t cols, int64_t stride) {
  if (rows <= 0 || cols <= 0) return 0;
  const int64_t lead = product(rows - 1, stride);
  return lead > INT64_MAX - cols ? INT64_MAX : lead + cols;
}

inline const char* dtype_name(DType t) {
  static const char* const names[] = {"float32", "bfloat16", "float16", "int32", "uint8"};
  const int i = (int)t;
  return i >= 0 && i < 5 ? names[i] : "an unknown dtype";
}

inline void check_size(const char* name, int64_t value, int64_t least = 0) {
  if (value < least) fail("%s is %lld, expected at least %lld", name, (long long)value, (long long)least);
}

inline void check_count(const char* name, const Ref& t, int64_t elements) {
  const int64_t have = t.bytes / (int64_t)size_of(t.dtype);
  if (elements > have || (elements > 0 && t.data == nullptr))
    fail("%s holds %lld elements, expected at least %lld", name, (long long)have, (long long)elements);
}

inline void check_tensor(const char* name, const Ref& t, int64_t elements, DType dtype = DType::Float32) {
  if (t.dtype != dtype) fail("%s is %s, expected %s", name, dtype_name(t.dtype), dtype_name(dtype));
  check_count(name, t, elements);
}

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

// A stride shorter than a row would make rows overlap.
inline void check_stride(const char* name, int64_t stride, int64_t cols, int64_t rows) {
  if (rows > 1 && stride < cols) fail("%s is %lld, expected at least the row's %lld elements", name, (long long)stride, (long long)cols);
}

// Blocks that cover n items, `each` a block.
inline unsigned grid_of(int64_t n, int64_t each) {
  const int64_t blocks = (n + each - 1) / each;
  if (blocks > 0x7fffffff) fail("%lld elements are more than one launch covers", (long long)n);
  return (unsigned)blocks;
}

}  // namespace cuda
}  // namespace tunebook
