// isa: portable avx2 avx512
// Filling, copying between dtypes, permuting, copying parts of rows.
#include "checks.h"
#include "half.h"
#include "op_checks.h"
#include "parallel.h"
#include "transpose.h"

namespace tunebook {
namespace TB_ISA {
namespace {

// Ops that move 4-byte items take float32 and int32 alike.
void check_words(const char* name, const Ref& t, int64_t elements) {
  if (size_of(t.dtype) != 4) fail("%s is %s, expected a dtype of 4 bytes", name, dtype_name(t.dtype));
  if (elements > t.bytes / 4) fail("%s holds %lld elements, expected at least %lld", name, (long long)(t.bytes / 4), (long long)elements);
}

constexpr int64_t kPiece = 65536;

// Each dtype knows how it is read as float32 and written from it. Branch-free, so that loops over it vectorise.
struct F32 {
  using Item = float;
  static float get(float x) { return x; }
  static float put(float x) { return x; }
};
struct BF16 {
  using Item = uint16_t;
  static float get(uint16_t h) { return to_float(bf16{h}); }
  static uint16_t put(float x) { return to_bf16_bits(x); }
};
struct F16 {
  using Item = uint16_t;
  static float get(uint16_t h) { return to_float(f16{h}); }
  static uint16_t put(float x) { return to_f16_bits(x); }
};
struct I32 {
  using Item = int32_t;
  static float get(int32_t x) { return (float)x; }
  static int32_t put(float x) {  // towards zero; out of range: the nearest end; NaN: 0
    return x >= 2147483648.0f ? INT32_MAX : x < -2147483648.0f ? INT32_MIN : x == x ? (int32_t)x : 0;
  }
};
struct U8 {
  using Item = uint8_t;
  static float get(uint8_t x) { return (float)x; }
  static uint8_t put(float x) { return (uint8_t)(x >= 255.0f ? 255.0f : x > 0.0f ? x : 0.0f); }
};

template <class F>
void with_dtype(DType t, F f) {
  switch (t) {
    case DType::Float32: return f(F32{});
    case DType::BFloat16: return f(BF16{});
    case DType::Float16: return f(F16{});
    case DType::Int32: return f(I32{});
    case DType::UInt8: return f(U8{});
  }
  fail("dtype %d is unknown", (int)t);
}

void fill(const fill_args& a) {
  check_size("n", a.n);
  check_tensor("y", a.y, a.n, a.y.dtype);
  with_dtype(a.y.dtype, [&](auto to) {
    using Item = typename decltype(to)::Item;
    Item* y = a.y.as<Item>();
    const Item value = decltype(to)::put(a.value);
    parallel_pieces(a.n, kPiece, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y[i] = value;
    });
  });
}

void copy(const copy_args& a) {
  check_size("n", a.n);
  check_tensor("x", a.x, a.n, a.x.dtype);
  check_tensor("y", a.y, a.n, a.y.dtype);
  if (a.x.dtype == a.y.dtype) {
    const int64_t item = (int64_t)size_of(a.x.dtype);
    parallel_pieces(a.n, kPiece, [&](int64_t begin, int64_t end) {
      memmove(a.y.u8() + begin * item, a.x.u8() + begin * item, (size_t)((end - begin) * item));
    });
    return;
  }
  with_dtype(a.x.dtype, [&](auto from) {
    with_dtype(a.y.dtype, [&](auto to) {
      const auto* x = a.x.as<const typename decltype(from)::Item>();
      auto* y = a.y.as<typename decltype(to)::Item>();
      parallel_pieces(a.n, kPiece, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) y[i] = decltype(to)::put(decltype(from)::get(x[i]));
      });
    });
  });
}

// y[r * y_row + c] = x[c * x_row + r] for at most 16 rows of y, 16 columns at a time: lines of the cache are used whole.
void transpose_stripe(const float* x, int64_t x_row, float* y, int64_t y_row, int64_t rows, int64_t cols) {
  for (int64_t c = 0; c < cols; c += 16) transpose(x + c * x_row, x_row, cols - c < 16 ? cols - c : 16, rows, y + c, y_row);
}

void permute(const permute_args& a) {
  const int64_t d[4] = {a.d0, a.d1, a.d2, a.d3}, p[4] = {a.p0, a.p1, a.p2, a.p3};
  bool seen[4] = {};
  for (int j = 0; j < 4; ++j) {
    check_size("a dimension", d[j]);
    if (p[j] < 0 || p[j] > 3 || seen[p[j]])
      fail("axes %lld %lld %lld %lld are no permutation of 0..3", (long long)p[0], (long long)p[1], (long long)p[2], (long long)p[3]);
    seen[p[j]] = true;
  }
  const int64_t n = product(d[0], d[1], d[2], d[3]);
  check_words("x", a.x, n);
  check_words("y", a.y, n);
  if (n == 0) return;
  const int64_t x_strides[4] = {d[1] * d[2] * d[3], d[2] * d[3], d[3], 1};
  int64_t e[4], sx[4], sy[4] = {0, 0, 0, 1};  // y's dims; strides by y's axes
  for (int j = 0; j < 4; ++j) e[j] = d[p[j]], sx[j] = x_strides[p[j]];
  for (int j = 2; j >= 0; --j) sy[j] = sy[j + 1] * e[j + 1];
  const float* x = a.x.f32();
  float* y = a.y.f32();
  int unit = 0;  // y's axis along which x is contiguous
  for (int j = 0; j < 4; ++j)
    if (p[j] == 3) unit = j;
  if (unit == 3) {
    parallel_pieces(e[0] * e[1] * e[2], rows_of(16384, e[3]), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t i2 = r % e[2], i1 = r / e[2] % e[1], i0 = r / e[2] / e[1];
        memcpy(y + r * e[3], x + i0 * sx[0] + i1 * sx[1] + i2 * sx[2], (size_t)e[3] * 4);
      }
    });
    return;
  }
  // Planes of y's axes (unit, 3) are transposed, in stripes of 16 rows; the two other axes and the stripes are the pieces of work.
  int other[2], k = 0;
  for (int j = 0; j < 3; ++j)
    if (j != unit) other[k++] = j;
  const int64_t stripes = (e[unit] + 15) / 16;
  const int64_t tasks = e[other[0]] * e[other[1]] * stripes;
  parallel_pieces(tasks, rows_of(16384, 16 * e[3]), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t stripe = t % stripes, o1 = t / stripes % e[other[1]], o0 = t / stripes / e[other[1]];
      const int64_t r0 = stripe * 16, rows = e[unit] - r0 < 16 ? e[unit] - r0 : 16;
      transpose_stripe(x + o0 * sx[other[0]] + o1 * sx[other[1]] + r0, sx[3], y + o0 * sy[other[0]] + o1 * sy[other[1]] + r0 * sy[unit],
                     sy[unit], rows, e[3]);
    }
  });
}

void copy_2d(const copy_2d_args& a) {
  const auto [x_span, y_span] = check_copy_2d(a);
  if (x_span == 0) return;
  if (a.x.dtype == a.y.dtype && size_of(a.x.dtype) != 4 && !a.accumulate) {
    check_tensor("x", a.x, a.x_offset + x_span, a.x.dtype);
    check_tensor("y", a.y, a.y_offset + y_span, a.y.dtype);
    const int64_t item = (int64_t)size_of(a.x.dtype);
    for (int64_t r = 0; r < a.rows; ++r)
      memmove(a.y.u8() + (a.y_offset + r * a.y_stride) * item, a.x.u8() + (a.x_offset + r * a.x_stride) * item, (size_t)(a.cols * item));
    return;
  }
  check_words("x", a.x, a.x_offset + x_span);
  check_words("y", a.y, a.y_offset + y_span);
  if (a.accumulate && (a.x.dtype != DType::Float32 || a.y.dtype != DType::Float32)) fail("accumulate needs float32");
  const float* x = a.x.f32() + a.x_offset;
  float* y = a.y.f32() + a.y_offset;
  parallel_pieces(a.rows, rows_of(16384, a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* from = x + r * a.x_stride;
      float* to = y + r * a.y_stride;
      if (!a.accumulate) memmove(to, from, (size_t)a.cols * 4);
      else for_vectors(a.cols, [&](int64_t i, int64_t m) { store_to(to + i, load_to(to + i, m) + load_to(from + i, m), m); });
    }
  });
}

void check_slot(int64_t slot) {
  if (slot < 0 || slot > 63) fail("slot is %lld, expected 0..63", (long long)slot);
}

// There is one kind of memory here, and a copy has been done when the op returns.
void transfer_start(const transfer_start_args& a) {
  check_slot(a.slot);
  if (a.x.dtype != a.y.dtype) fail("x and y have different dtypes");
  copy({a.x, a.y, a.n});
}

void transfer_wait(const transfer_wait_args& a) { check_slot(a.slot); }

}  // namespace

void register_memory(Backend& b) {
  b.fill = fill;
  b.copy = copy;
  b.permute = permute;
  b.copy_2d = copy_2d;
  b.transfer_start = transfer_start;
  b.transfer_wait = transfer_wait;
}

}  // namespace TB_ISA
}  // namespace tunebook
