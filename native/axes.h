// Axes that can be walked as one, the same for every backend. Internal linkage: files are compiled for several instruction sets.
#pragma once
#include <cstdint>

namespace tunebook {

// Two tensors of sizes d, by their strides: neighbouring axes that both walk evenly become one, so that the last is as long as can be. Axes that are left over
// stand first, with size 1 and strides 0.
static inline void join_axes(int64_t (&d)[4], int64_t (&a)[4], int64_t (&b)[4]) {
  int last = 3;
  for (int j = 2; j >= 0; --j) {
    if (d[last] == 1) {
      d[last] = d[j], a[last] = a[j], b[last] = b[j];
    } else if (d[j] == 1 || (a[j] == a[last] * d[last] && b[j] == b[last] * d[last])) {
      d[last] *= d[j];
    } else {
      --last;
      d[last] = d[j], a[last] = a[j], b[last] = b[j];
    }
  }
  for (int j = 0; j < last; ++j) d[j] = 1, a[j] = b[j] = 0;
}

// The axes of a dense x and their strides in its sum y, 0 for those that are summed.
struct SumAxes {
  int64_t d[4], s[4];
  int count;
  bool plain;  // kept, summed, kept (any of them may be missing), y dense: a reduction
  int64_t outer, depth, inner;
};

// Neighbours that are both summed, or both kept and contiguous in y, become one; axes of size 1 go.
static inline SumAxes sum_axes(const int64_t (&dims)[4], const int64_t (&strides)[4], int64_t y_count) {
  SumAxes x{{}, {}, 0, false, 1, 1, 1};
  for (int j = 0; j < 4; ++j) {
    if (dims[j] == 1) continue;
    const int before = x.count - 1;
    if (x.count > 0 && ((x.s[before] == 0) == (strides[j] == 0)) && x.s[before] == strides[j] * dims[j]) {
      x.d[before] *= dims[j], x.s[before] = strides[j];
    } else {
      x.d[x.count] = dims[j], x.s[x.count] = strides[j], ++x.count;
    }
  }
  int at = 0;
  int64_t outer_stride = 0, inner_stride = 1;
  if (at < x.count && x.s[at] != 0 && x.count > 1) x.outer = x.d[at], outer_stride = x.s[at], ++at;
  if (at < x.count && x.s[at] == 0) x.depth = x.d[at], ++at;
  if (at < x.count && x.s[at] != 0) x.inner = x.d[at], inner_stride = x.s[at], ++at;
  x.plain = at == x.count && inner_stride == 1 && (x.outer == 1 || outer_stride == x.inner) && x.outer * x.inner == y_count;
  return x;
}

}  // namespace tunebook
