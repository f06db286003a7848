// Checks of single ops that every backend begins with; dtypes that differ between backends are checked beside them. Internal linkage.
#pragma once
#include "checks.h"

namespace tunebook {

static inline void check_decode_advance(const decode_advance_args& a) {
  check_size("rows", a.rows);
  check_size("limit", a.limit);
  check_size("seen_width", a.seen_width);
  check_tensor("chosen", a.chosen, a.rows, DType::Int32);
  check_tensor("ids", a.ids, a.rows, DType::Int32);
  check_tensor("positions", a.positions, a.rows, DType::Int32);
  check_tensor("lengths", a.lengths, a.rows, DType::Int32);
  check_tensor("slots", a.slots, a.rows, DType::Int32);
  if (a.draws) check_tensor("draws", a.draws, product(a.rows, 2), DType::Int32);
  if (a.seen) check_tensor("seen", a.seen, product(a.rows, a.seen_width), DType::Int32);
}

// All but x and y. Gives the width of a row.
static inline int64_t check_rope(const rope_args& a) {
  check_size("rows", a.rows);
  check_size("heads", a.heads);
  check_size("head_dim", a.head_dim);
  check_size("rotary_dim", a.rotary_dim);
  check_size("table_rows", a.table_rows);
  if (a.rotary_dim % 2 != 0 || a.rotary_dim > a.head_dim)
    fail("rotary_dim is %lld, expected an even number up to head_dim %lld", (long long)a.rotary_dim, (long long)a.head_dim);
  const int64_t width = product(a.heads, a.head_dim), half = a.rotary_dim / 2;
  check_stride("x_stride", a.x_stride, width, a.rows);
  check_stride("y_stride", a.y_stride, width, a.rows);
  check_tensor("positions", a.positions, a.rows, DType::Int32);
  check_tensor("cos", a.cos, product(a.table_rows, half));
  check_tensor("sin", a.sin, product(a.table_rows, half));
  return width;
}

struct Copy2dSpans {
  int64_t x, y;  // elements from the first to the last; x is 0 where there is nothing to copy
};

// All but x and y.
static inline Copy2dSpans check_copy_2d(const copy_2d_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols);
  check_size("x_offset", a.x_offset);
  check_size("y_offset", a.y_offset);
  check_size("x_stride", a.x_stride);
  check_stride("y_stride", a.y_stride, a.cols, a.rows);
  const Copy2dSpans s{span(a.rows, a.cols, a.x_stride), span(a.rows, a.cols, a.y_stride)};
  if (s.x > (int64_t)1 << 60 || s.y > (int64_t)1 << 60) fail("rows x stride is too large");
  return s;
}

// All but x and y. Gives the number of x's elements.
static inline int64_t check_sum_to(const sum_to_args& a, const int64_t (&dims)[4], const int64_t (&strides)[4]) {
  __int128 last = 0;
  for (int j = 0; j < 4; ++j) {
    check_size("a dimension", dims[j]);
    check_size("a stride of y", strides[j]);
    last += (__int128)(dims[j] - 1) * strides[j];
  }
  const int64_t n = product(dims[0], dims[1], dims[2], dims[3]);
  check_size("y_count", a.y_count);
  if (n > 0 && last >= a.y_count) fail("the strides of y reach element %lld, y_count is %lld", (long long)last, (long long)a.y_count);
  return n;
}

}  // namespace tunebook
