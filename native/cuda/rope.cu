// Rotary position embedding: a block a row, a thread two packs of halves or one pack of neighbouring pairs.
#include "op_checks.h"
#include "rows.cuh"

namespace tunebook {
namespace cuda {
namespace {

struct Rope {
  int64_t heads, head_dim, half, x_stride, y_stride, table_rows;
  Divider units;         // of a head: rotations, then packs that are copied
  int64_t rotations;     // units of a head that rotate
  int64_t total;         // units of a row
  float sign;            // the direction
  bool interleaved;
};

template <class T, int N>
__global__ void rope_kernel(const T* x, const int32_t* positions, const float* cos, const float* sin, T* y, Rope g, Fault* fault) {
  const int64_t row = blockIdx.x;
  const int32_t position = positions[row];
  if (position < 0 || position >= g.table_rows) {
    if (threadIdx.x == 0) raise(fault, kBadPosition, (int)row, position, (int)g.table_rows);
    return;
  }
  x += row * g.x_stride, y += row * g.y_stride;
  cos += position * g.half, sin += position * g.half;
  constexpr int kPairs = N > 1 ? N / 2 : 1;
  for (int64_t t = threadIdx.x; t < g.total; t += blockDim.x) {
    int64_t unit = t;
    const int64_t at = g.units.take(unit) * g.head_dim;
    if (unit >= g.rotations) {  // past the rotary part
      float v[N];
      const int64_t i = at + 2 * g.half + (unit - g.rotations) * N;
      load_floats<N>(x + i, v);
      store_floats<N>(y + i, v);
    } else if (!g.interleaved) {
      const int64_t i = unit * N;
      float a[N], b[N], c[N], s[N];
      load_floats<N>(x + at + i, a), load_floats<N>(x + at + g.half + i, b);
      load_floats<N>(cos + i, c), load_floats<N>(sin + i, s);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float first = a[j], turned = s[j] * g.sign;
        a[j] = first * c[j] - b[j] * turned;
        b[j] = b[j] * c[j] + first * turned;
      }
      store_floats<N>(y + at + i, a), store_floats<N>(y + at + g.half + i, b);
    } else {
      const int64_t i = unit * kPairs;
      float v[2 * kPairs], c[kPairs], s[kPairs];
      if (N > 1) load_floats<2 * kPairs>(x + at + 2 * i, v);
      else load_some<2 * kPairs>(x + at + 2 * i, v, 2);
      load_floats<kPairs>(cos + i, c), load_floats<kPairs>(sin + i, s);
#pragma unroll
      for (int j = 0; j < kPairs; ++j) {
        const float first = v[2 * j], turned = s[j] * g.sign;
        v[2 * j] = first * c[j] - v[2 * j + 1] * turned;
        v[2 * j + 1] = v[2 * j + 1] * c[j] + first * turned;
      }
      if (N > 1) store_floats<2 * kPairs>(y + at + 2 * i, v);
      else store_some<2 * kPairs>(y + at + 2 * i, v, 2);
    }
  }
}

void rope(const rope_args& g) {
  const int64_t width = check_rope(g), half = g.rotary_dim / 2;
  check_floats("x", g.x, span(g.rows, width, g.x_stride));
  check_like("y", g.y, span(g.rows, width, g.y_stride), "x", g.x);
  if (g.rows == 0) return;
  with_float_type(g.x.dtype, "x", [&](auto type) {
    using T = decltype(type);
    constexpr int kFull = Pack<T>::kCount;
    // Both halves, the rest of a head and the table's rows begin at whole packs.
    const bool strides = g.rows == 1 || (g.x_stride % kFull == 0 && g.y_stride % kFull == 0);
    const bool whole = strides && half % kFull == 0 && g.head_dim % kFull == 0 && aligned(16, g.x.data, g.y.data, g.cos.data, g.sin.data);
    with_width<T>(whole, [&](auto n) {
      constexpr int N = decltype(n)::value;
      const int64_t rotations = g.interleaved ? half / (N > 1 ? N / 2 : 1) : half / N;
      const int64_t copies = g.x.data != g.y.data ? (g.head_dim - g.rotary_dim) / N : 0;
      const int64_t total = g.heads * (rotations + copies), threads = (total + 31) / 32 * 32;
      Rope r{g.heads, g.head_dim, half, g.x_stride, g.y_stride, g.table_rows, Divider(rotations + copies), rotations, total,
             g.inverse ? -1.0f : 1.0f, g.interleaved != 0};
      rope_kernel<T, N><<<grid_of(g.rows, 1), (unsigned)(threads < 32 ? 32 : threads < 256 ? threads : 256), 0, device.stream>>>(
          g.x.as<const T>(), g.positions.i32(), g.cos.f32(), g.sin.f32(), g.y.as<T>(), r, faults());
      launched("rope");
    });
  });
}

}  // namespace

void register_rope(Backend& b) { b.rope = rope; }

}  // namespace cuda
}  // namespace tunebook
