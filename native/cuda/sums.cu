// The gradient of a broadcast, the sum of squares over many tensors, the largest element's index, picking one element a row.
#include "axes.h"
#include "op_checks.h"
#include "reduce.cuh"
#include "tensors.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// ---- sum_to -----------------------------------------------------------------------------------

// Axes of x that y keeps and those that are summed over, last one first; xs and ys are strides.
struct SumWalk {
  int64_t kept[4], kept_xs[4], kept_ys[4], summed[4], summed_xs[4];
  int kept_count, summed_count;
  int64_t outputs, terms;
};

// A warp an output.
template <class X> __global__ void sum_to_kernel(const X* x, void* y, DType y_type, SumWalk s) {
  const int64_t output = worker();
  if (output >= s.outputs) return;
  int64_t rest = output, from = 0, to = 0;
  for (int k = 0; k < s.kept_count; ++k) {
    const int64_t i = rest % s.kept[k];
    rest /= s.kept[k];
    from += i * s.kept_xs[k], to += i * s.kept_ys[k];
  }
  double total = 0;
  for (int64_t t = threadIdx.x; t < s.terms; t += 32) {
    int64_t left = t, offset = from;
    for (int k = 0; k < s.summed_count; ++k) {
      offset += left % s.summed[k] * s.summed_xs[k];
      left /= s.summed[k];
    }
    total += (double)to_float<X>(x[offset]);
  }
  for (int o = 16; o > 0; o >>= 1) total += __shfl_xor_sync(0xffffffffu, total, o);
  if (threadIdx.x == 0) store_any(y, y_type, to, (float)total);
}

void sum_to(const sum_to_args& a) {
  const int64_t dims[4] = {a.d0, a.d1, a.d2, a.d3}, strides[4] = {a.ys0, a.ys1, a.ys2, a.ys3};
  const int64_t n = check_sum_to(a, dims, strides);
  check_floats("x", a.x, n);
  check_floats("y", a.y, a.y_count);
  if (a.y_count == 0) return;
  const auto clear = [&] { check(cudaMemsetAsync(a.y.data, 0, (size_t)a.y_count * size_of(a.y.dtype), device.stream), "sum_to"); };
  if (n == 0) return clear();
  const SumAxes axes = sum_axes(dims, strides, a.y_count);
  if (axes.plain) return reduce_sum(a.x, a.y, axes.outer, axes.depth, axes.inner, 1.0f);
  const int64_t *d = axes.d, *s = axes.s;
  SumWalk w{};
  w.outputs = w.terms = 1;
  int64_t stride = 1;
  for (int j = axes.count - 1; j >= 0; stride *= d[j], --j) {
    if (s[j] != 0) {
      w.kept[w.kept_count] = d[j], w.kept_xs[w.kept_count] = stride, w.kept_ys[w.kept_count++] = s[j];
      w.outputs *= d[j];
    } else {
      w.summed[w.summed_count] = d[j], w.summed_xs[w.summed_count++] = stride;
      w.terms *= d[j];
    }
  }
  clear();
  with_float_type(a.x.dtype, "x", [&](auto type) {
    using X = decltype(type);
    sum_to_kernel<X><<<grid_of(w.outputs, 8), dim3(32, 8), 0, device.stream>>>(a.x.as<const X>(), a.y.data, a.y.dtype, w);
    launched("sum_to");
  });
}

// ---- sum_squares ------------------------------------------------------------------------------

constexpr int64_t kPiece = 65536;

__device__ double block_sum(double v) {
  __shared__ double parts[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  if (lane == 0) parts[warp] = v;
  __syncthreads();
  v = lane < warps ? parts[lane] : 0.0;
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

__global__ void __launch_bounds__(512) squares_kernel(const __grid_constant__ Chunk<1> chunk, double* partial) {
  const int t = chunk.find((int)blockIdx.x);
  const float* x = static_cast<const float*>(chunk.data[0][t]);
  const int64_t begin = (int64_t)((int)blockIdx.x - chunk.first[t]) * kPiece,
                end = begin + kPiece < chunk.n[t] ? begin + kPiece : chunk.n[t];
  double total = 0;
  int64_t i = begin;
  if (reinterpret_cast<uintptr_t>(x) % 16 == 0) {
    float v[4];
    for (int64_t p = begin + threadIdx.x * 4; p + 4 <= end; p += 2048) {
      load_floats<4>(x + p, v);
#pragma unroll
      for (int j = 0; j < 4; ++j) total += (double)v[j] * (double)v[j];
    }
    i = begin + (end - begin) / 4 * 4;
  }
  for (i += threadIdx.x; i < end; i += 512) total += (double)x[i] * (double)x[i];
  total = block_sum(total);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void add_squares_kernel(const double* partial, int64_t count, float* y) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) total += partial[i];
  total = block_sum(total);
  if (threadIdx.x == 0) *y = (float)total;
}

void sum_squares(const sum_squares_args& a) {
  check_tensor("y", a.y, 1);
  int64_t pieces_in_all = 0;
  for (int i = 0; i < a.x.count; ++i) {
    check_tensor("x", a.x[i], 0);
    pieces_in_all += blocks_for(a.x[i].bytes / 4, kPiece);
  }
  double* partial = scratch_of<double>(kPartials, pieces_in_all + 1);
  each_chunk<1>({&a.x}, kPiece, [&](const Chunk<1>& chunk, int64_t pieces, int64_t done) {
    squares_kernel<<<(unsigned)pieces, 512, 0, device.stream>>>(chunk, partial + done);
    launched("sum_squares");
  });
  add_squares_kernel<<<1, 1024, 0, device.stream>>>(partial, pieces_in_all, a.y.f32());
  launched("sum_squares");
}

// ---- argmax, pick -----------------------------------------------------------------------------

template <class T, int N> __global__ void argmax_kernel(const T* x, int32_t* y, int64_t rows, int64_t cols) {
  const int64_t row = worker(), step = (int64_t)blockDim.x * N;
  if (row >= rows) return;
  x += row * cols;
  Best best{-INFINITY, INT64_MAX};
  float v[N];
  for (int64_t i = (int64_t)threadIdx.x * N; i < cols; i += step) {
    load_floats<N>(x + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (const Best candidate{v[j], i + j}; better(candidate, best)) best = candidate;
  }
  best = row_best(best);
  if (threadIdx.x == 0) y[row] = (int32_t)best.index;
}

void argmax(const argmax_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  check_floats("x", a.x, product(a.rows, a.cols));
  check_tensor("y", a.y, a.rows, DType::Int32);
  if (a.rows == 0) return;
  with_float_type(a.x.dtype, "x", [&](auto type) {
    using T = decltype(type);
    with_width<T>(a.cols % Pack<T>::kCount == 0 && aligned(16, a.x.data), [&](auto width) {
      constexpr int N = decltype(width)::value;
      const dim3 block = row_block(a.rows, a.cols / N);
      argmax_kernel<T, N><<<grid_of(a.rows, block.y), block, 0, device.stream>>>(a.x.as<const T>(), a.y.i32(), a.rows, a.cols);
      launched("argmax");
    });
  });
}

__device__ __forceinline__ bool picked(int32_t i, int64_t row, int64_t cols, Fault* fault) {
  if (i >= 0 && i < cols) return true;
  if (i != -100) raise(fault, kBadIndex, (int)row, i, (int)cols);
  return false;
}

__global__ void pick_kernel(
    const void* x, DType x_type, const int32_t* index, void* y, DType y_type, int64_t rows, int64_t cols, Fault* fault) {
  const int64_t r = (int64_t)blockIdx.x * kThreads + threadIdx.x;
  if (r >= rows) return;
  const int32_t i = index[r];
  store_any(y, y_type, r, picked(i, r, cols, fault) ? load_any(x, x_type, r * cols + i) : 0.0f);
}

__global__ void pick_backward_kernel(
    const void* dy, DType dy_type, const int32_t* index, void* dx, DType dx_type, int64_t rows, int64_t cols, Fault* fault) {
  const int64_t r = (int64_t)blockIdx.x * kThreads + threadIdx.x;
  if (r >= rows) return;
  const int32_t i = index[r];
  if (picked(i, r, cols, fault)) store_any(dx, dx_type, r * cols + i, load_any(dy, dy_type, r));
}

void check_pick(int64_t rows, int64_t cols, const Ref& index) {
  check_size("rows", rows);
  check_size("cols", cols);
  check_tensor("index", index, rows, DType::Int32);
}

void pick(const pick_args& a) {
  check_pick(a.rows, a.cols, a.index);
  check_floats("x", a.x, product(a.rows, a.cols));
  check_floats("y", a.y, a.rows);
  if (a.rows == 0) return;
  pick_kernel<<<grid_of(a.rows, kThreads), kThreads, 0, device.stream>>>(
      a.x.data, a.x.dtype, a.index.i32(), a.y.data, a.y.dtype, a.rows, a.cols, faults());
  launched("pick");
}

void pick_backward(const pick_backward_args& a) {
  check_pick(a.rows, a.cols, a.index);
  check_floats("dy", a.dy, a.rows);
  check_floats("dx", a.dx, product(a.rows, a.cols));
  if (a.rows == 0 || a.cols == 0) return;
  check(cudaMemsetAsync(a.dx.data, 0, (size_t)(a.rows * a.cols) * size_of(a.dx.dtype), device.stream), "pick_backward");
  pick_backward_kernel<<<grid_of(a.rows, kThreads), kThreads, 0, device.stream>>>(
      a.dy.data, a.dy.dtype, a.index.i32(), a.dx.data, a.dx.dtype, a.rows, a.cols, faults());
  launched("pick_backward");
}

}  // namespace

void register_sums(Backend& b) {
  b.sum_to = sum_to;
  b.argmax = argmax;
  b.sum_squares = sum_squares;
  b.pick = pick;
  b.pick_backward = pick_backward;
}

}  // namespace cuda
}  // namespace tunebook
