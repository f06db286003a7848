// Filling, copying between dtypes, permuting, copying parts of rows.
#include "check.cuh"
#include "op_checks.h"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// ---- fill -------------------------------------------------------------------------------------

// `pattern` is the value repeated over 16 bytes; n items of kItem bytes.
template <class Item> __global__ void fill_kernel(Item* y, int64_t n, uint4 pattern, bool whole) {
  constexpr int N = 16 / (int)sizeof(Item);
  const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  if (whole && i + N <= n) {
    *reinterpret_cast<uint4*>(y + i) = pattern;
    return;
  }
  Item value;
  memcpy(&value, &pattern, sizeof value);
  for (int j = 0; j < N && i + j < n; ++j) y[i + j] = value;
}

template <class Item> void fill_items(const Ref& y, int64_t n, Item value) {
  uint4 pattern;
  for (size_t j = 0; j < 16; j += sizeof value) memcpy(reinterpret_cast<char*>(&pattern) + j, &value, sizeof value);
  fill_kernel<Item>
      <<<grid_of(n, kThreads * (16 / (int64_t)sizeof(Item))), kThreads, 0, device.stream>>>(y.as<Item>(), n, pattern, aligned(16, y.data));
  launched("fill");
}

template <class Item, class T> Item bits_of(T value) {
  static_assert(sizeof(Item) == sizeof(T), "");
  Item bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

void fill(const fill_args& a) {
  check_size("n", a.n);
  check_tensor("y", a.y, a.n, a.y.dtype);
  if (a.n == 0) return;
  switch (a.y.dtype) {
    case DType::Float32: return fill_items(a.y, a.n, bits_of<uint32_t>(a.value));
    case DType::BFloat16: return fill_items(a.y, a.n, bits_of<uint16_t>(from_float<__nv_bfloat16>(a.value)));
    case DType::Float16: return fill_items(a.y, a.n, bits_of<uint16_t>(from_float<__half>(a.value)));
    case DType::Int32: return fill_items(a.y, a.n, bits_of<uint32_t>(to_int32(a.value)));
    case DType::UInt8: return fill_items(a.y, a.n, to_uint8(a.value));
  }
}

// ---- conversion -------------------------------------------------------------------------------

template <class X, class Y> __global__ void convert_kernel(const X* x, Y* y, int64_t n, bool whole) {
  constexpr int N = width_of<X, Y>();
  const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  float v[N];
  if (whole && i + N <= n) {
    load_floats<N>(x + i, v);
    store_floats<N>(y + i, v);
  } else {
    load_some<N>(x + i, v, n - i);
    store_some<N>(y + i, v, n - i);
  }
}

__global__ void convert_any_kernel(const void* x, DType x_type, void* y, DType y_type, int64_t n) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) store_any(y, y_type, i, load_any(x, x_type, i));
}

void copy(const copy_args& a) {
  check_size("n", a.n);
  check_tensor("x", a.x, a.n, a.x.dtype);
  check_tensor("y", a.y, a.n, a.y.dtype);
  if (a.n == 0) return;
  if (a.x.dtype == a.y.dtype) {
    if (a.x.data == a.y.data) return;
    check(cudaMemcpyAsync(a.y.data, a.x.data, (size_t)a.n * size_of(a.x.dtype), cudaMemcpyDeviceToDevice, device.stream), "copy");
    return;
  }
  if (!is_float(a.x.dtype) || !is_float(a.y.dtype)) {
    convert_any_kernel<<<grid_of(a.n, kThreads), kThreads, 0, device.stream>>>(a.x.data, a.x.dtype, a.y.data, a.y.dtype, a.n);
    return launched("copy");
  }
  with_float_type(a.x.dtype, "x", [&](auto from) {
    with_float_type(a.y.dtype, "y", [&](auto to) {
      using X = decltype(from);
      using Y = decltype(to);
      const unsigned grid = grid_of(a.n, kThreads * width_of<X, Y>());
      convert_kernel<X, Y><<<grid, kThreads, 0, device.stream>>>(a.x.as<const X>(), a.y.as<Y>(), a.n, aligned(16, a.x.data, a.y.data));
      launched("copy");
    });
  });
}

// ---- rows -------------------------------------------------------------------------------------

// Rows of y stand y_stride apart; row (i0, i1, i2) of x begins at the sum of i * stride. All counted in words.
struct Rows {
  Divider cols, d2, d1;
  int64_t x0, x1, x2, y_stride, words;
};

template <class W> __global__ void rows_kernel(const W* x, W* y, Rows s) {
  int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= s.words) return;
  int64_t i2 = s.cols.take(c);
  W* to = y + i2 * s.y_stride + c;
  int64_t i1 = s.d2.take(i2);
  const int64_t i0 = s.d1.take(i1);
  *to = x[i0 * s.x0 + i1 * s.x1 + i2 * s.x2 + c];
}

// Copies d0*d1*d2 rows of `cols` items in the widest words that all addresses and strides allow. Everything is given in items.
void copy_rows(const void* x, void* y, int64_t item, int64_t d0, int64_t d1, int64_t d2, int64_t cols, int64_t x0, int64_t x1, int64_t x2,
               int64_t y_stride) {
  int64_t all = cols | y_stride;
  if (d0 > 1) all |= x0;
  if (d1 > 1) all |= x1;
  if (d2 > 1) all |= x2;
  all *= item;
  int64_t bytes = 16;
  while (bytes > item && (all % bytes != 0 || !aligned(bytes, x, y))) bytes /= 2;
  const int64_t k = bytes / item;
  const Rows s{Divider(cols / k), Divider(d2), Divider(d1), x0 / k, x1 / k, x2 / k, y_stride / k, d0 * d1 * d2 * (cols / k)};
  const unsigned grid = grid_of(s.words, kThreads);
  const auto run = [&](auto word) {
    using W = decltype(word);
    rows_kernel<W><<<grid, kThreads, 0, device.stream>>>(static_cast<const W*>(x), static_cast<W*>(y), s);
  };
  switch (bytes) {
    case 16: run(uint4{}); break;
    case 8: run(uint2{}); break;
    case 4: run(uint32_t{}); break;
    case 2: run(uint16_t{}); break;
    default: run(uint8_t{}); break;
  }
  launched("copying rows");
}

// ---- permute ----------------------------------------------------------------------------------

constexpr int kTile = 32;

// Planes of y's axes (unit, last) are transposed: x is contiguous along `unit`, y along its last axis.
struct Planes {
  int64_t rows, cols, tiles_cols, tiles;      // of a plane: y's `unit` axis and its last one; tiles of kTile x kTile
  int64_t x_col, y_row;                       // strides: x along y's last axis, y along `unit`
  int64_t other1, x_other[2], y_other[2];     // the two other axes
};

template <class W> __global__ void transpose_kernel(const W* x, W* y, Planes s) {
  __shared__ W tile[kTile][kTile + 1];
  const int64_t plane = blockIdx.x / s.tiles, t = blockIdx.x % s.tiles;
  const int64_t o0 = plane / s.other1, o1 = plane % s.other1;
  const int64_t row = t / s.tiles_cols * kTile, col = t % s.tiles_cols * kTile;
  x += o0 * s.x_other[0] + o1 * s.x_other[1];
  y += o0 * s.y_other[0] + o1 * s.y_other[1];
  for (int j = threadIdx.y; j < kTile; j += blockDim.y)
    if (col + j < s.cols && row + threadIdx.x < s.rows) tile[j][threadIdx.x] = x[(col + j) * s.x_col + row + threadIdx.x];
  __syncthreads();
  for (int j = threadIdx.y; j < kTile; j += blockDim.y)
    if (row + j < s.rows && col + threadIdx.x < s.cols) y[(row + j) * s.y_row + col + threadIdx.x] = tile[threadIdx.x][j];
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
  const int64_t n = product(d[0], d[1], d[2], d[3]), item = (int64_t)size_of(a.x.dtype);
  check_tensor("x", a.x, n, a.x.dtype);
  check_tensor("y", a.y, n, a.x.dtype);
  if (n == 0) return;
  const int64_t x_strides[4] = {d[1] * d[2] * d[3], d[2] * d[3], d[3], 1};
  // y's dims and the strides of x along them; neighbours that x walks evenly become one, and missing ones stand in front.
  int64_t e[4] = {1, 1, 1, 1}, sx[4] = {0, 0, 0, 1};
  int last = 3;
  bool first = true;
  for (int j = 3; j >= 0; --j) {
    const int64_t size = d[p[j]], stride = x_strides[p[j]];
    if (size == 1) continue;
    if (!first && stride == sx[last] * e[last]) e[last] *= size;
    else {
      if (!first) --last;
      e[last] = size, sx[last] = stride;
    }
    first = false;
  }
  if (sx[3] == 1) return copy_rows(a.x.data, a.y.data, item, e[0], e[1], e[2], e[3], sx[0], sx[1], sx[2], e[3]);
  int64_t sy[4] = {0, 0, 0, 1};
  for (int j = 2; j >= 0; --j) sy[j] = sy[j + 1] * e[j + 1];
  int unit = 0, other[2], k = 0;
  for (int j = 0; j < 3; ++j)
    if (e[j] > 1 && sx[j] == 1) unit = j;
  for (int j = 0; j < 3; ++j)
    if (j != unit) other[k++] = j;
  Planes s{};
  s.rows = e[unit], s.cols = e[3];
  s.tiles_cols = blocks_for(s.cols, kTile);
  s.tiles = blocks_for(s.rows, kTile) * s.tiles_cols;
  s.x_col = sx[3], s.y_row = sy[unit];
  s.other1 = e[other[1]];
  for (int j = 0; j < 2; ++j) s.x_other[j] = sx[other[j]], s.y_other[j] = sy[other[j]];
  const unsigned grid = grid_of(s.tiles * e[other[0]] * e[other[1]], 1);
  const dim3 block(kTile, 8);
  const auto run = [&](auto word) {
    using W = decltype(word);
    transpose_kernel<W><<<grid, block, 0, device.stream>>>(a.x.as<const W>(), a.y.as<W>(), s);
  };
  switch (item) {
    case 4: run(uint32_t{}); break;
    case 2: run(uint16_t{}); break;
    default: run(uint8_t{}); break;
  }
  launched("permute");
}

// ---- copy_2d ----------------------------------------------------------------------------------

template <class X, class Y>
__global__ void copy_2d_kernel(
    const X* x, Y* y, Divider units, int64_t total, int64_t cols, int64_t x_stride, int64_t y_stride, bool accumulate, bool whole) {
  constexpr int N = width_of<X, Y>();
  int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= total) return;
  const int64_t r = units.take(c);
  c *= N;
  x += r * x_stride + c;
  y += r * y_stride + c;
  const int64_t m = cols - c;
  float v[N], old[N];
  if (whole && m >= N) load_floats<N>(x, v);
  else load_some<N>(x, v, m);
  if (accumulate) {
    if (whole && m >= N) load_floats<N>(y, old);
    else load_some<N>(y, old, m);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] += old[j];
  }
  if (whole && m >= N) store_floats<N>(y, v);
  else store_some<N>(y, v, m);
}

void copy_2d(const copy_2d_args& a) {
  const auto [x_span, y_span] = check_copy_2d(a);
  if (x_span == 0) return;
  check_tensor("x", a.x, a.x_offset + x_span, a.x.dtype);
  check_tensor("y", a.y, a.y_offset + y_span, a.y.dtype);
  const int64_t x_item = (int64_t)size_of(a.x.dtype), y_item = (int64_t)size_of(a.y.dtype);
  const void* x = a.x.u8() + a.x_offset * x_item;
  void* y = a.y.u8() + a.y_offset * y_item;
  if (a.x.dtype == a.y.dtype && !a.accumulate)
    return copy_rows(x, y, x_item, 1, 1, a.rows, a.cols, 0, 0, a.x_stride, a.rows > 1 ? a.y_stride : a.cols);
  if (!is_float(a.x.dtype) || !is_float(a.y.dtype))
    fail("x is %s and y is %s: other dtypes than floats are only copied as they are", dtype_name(a.x.dtype), dtype_name(a.y.dtype));
  with_float_type(a.x.dtype, "x", [&](auto from) {
    with_float_type(a.y.dtype, "y", [&](auto to) {
      using X = decltype(from);
      using Y = decltype(to);
      constexpr int N = width_of<X, Y>();
      const bool whole = aligned(16, x, y) && (a.rows == 1 || (a.x_stride % N == 0 && a.y_stride % N == 0));
      const int64_t units = blocks_for(a.cols, N), total = product(units, a.rows);
      copy_2d_kernel<X, Y><<<grid_of(total, kThreads), kThreads, 0, device.stream>>>(
          static_cast<const X*>(x), static_cast<Y*>(y), Divider(units), total, a.cols, a.x_stride, a.y_stride, a.accumulate != 0, whole);
      launched("copy_2d");
    });
  });
}

}  // namespace

void register_memory(Backend& b) {
  b.fill = fill;
  b.copy = copy;
  b.permute = permute;
  b.copy_2d = copy_2d;
}

}  // namespace cuda
}  // namespace tunebook
