// Checks of an op's arguments, the same for every backend: every tensor must hold what the integers say, before anything is read or written.
// Internal linkage: files are compiled for several instruction sets.
#pragma once
#include "backend.h"

namespace tunebook {

// A product of sizes; too large for 64 bits gives the largest number, which no tensor holds.
static inline int64_t product(int64_t a, int64_t b = 1, int64_t c = 1, int64_t d = 1) {
  int64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r) || __builtin_mul_overflow(r, c, &r) || __builtin_mul_overflow(r, d, &r)) return INT64_MAX;
  return r;
}

// Elements spanned by `rows` rows of `cols` that stand `stride` apart.
static inline int64_t span(int64_t rows, int64_t cols, int64_t stride) {
  if (rows <= 0 || cols <= 0) return 0;
  const int64_t lead = product(rows - 1, stride);
  return lead > INT64_MAX - cols ? INT64_MAX : lead + cols;
}

static inline const char* dtype_name(DType t) {
  static const char* const names[] = {"float32", "bfloat16", "float16", "int32", "uint8"};
  const int i = (int)t;
  return i >= 0 && i < 5 ? names[i] : "an unknown dtype";
}

static inline void check_size(const char* name, int64_t value, int64_t least = 0) {
  if (value < least) fail("%s is %lld, expected at least %lld", name, (long long)value, (long long)least);
}

// Of any dtype, counted in its own.
static inline void check_count(const char* name, const Ref& t, int64_t elements) {
  const int64_t have = t.bytes / (int64_t)size_of(t.dtype);
  if (elements > have || (elements > 0 && t.data == nullptr))
    fail("%s holds %lld elements, expected at least %lld", name, (long long)have, (long long)elements);
}

static inline void check_tensor(const char* name, const Ref& t, int64_t elements, DType dtype = DType::Float32) {
  if (t.dtype != dtype) fail("%s is %s, expected %s", name, dtype_name(t.dtype), dtype_name(dtype));
  check_count(name, t, elements);
}

// Of dropout inside another op, which writes `through` then.
static inline void check_share(float p, const Ref& through) {
  if (!(p >= 0.0f && p < 1.0f)) fail("p is %g, expected at least 0 and less than 1", (double)p);
  if (p > 0.0f && !through) fail("with p above 0 a tensor is needed for what dropout makes, but none was given");
}

// A stride shorter than a row would make rows overlap.
static inline void check_stride(const char* name, int64_t stride, int64_t cols, int64_t rows) {
  if (rows > 1 && stride < cols) fail("%s is %lld, expected at least the row's %lld elements", name, (long long)stride, (long long)cols);
}

}  // namespace tunebook
