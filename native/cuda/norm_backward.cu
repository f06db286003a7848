// RMSNorm and LayerNorm, backward. A worker (a warp or a block) takes neighbouring rows one after the other and sums their share of the
// weight's gradient by itself; a second kernel adds the workers' sums in order. Rows are cut by their number alone.
#include "norm.cuh"
#include "philox.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int64_t kBlocks = 528;  // at most, where the weight's gradient is summed: four a multiprocessor of the largest devices

// Rows a worker takes, and how many workers there are.
struct Parts {
  int64_t rows, count;
  Parts(int64_t total, int64_t workers_a_block, bool sums) {
    rows = sums ? (total + kBlocks * workers_a_block - 1) / (kBlocks * workers_a_block) : 1;
    if (sums && rows < 4) rows = 4;
    count = (total + rows - 1) / rows;
  }
};

// Where a worker keeps what it knows of the columns: sums in float32, then two rows of T. In shared memory if it fits; otherwise the sums
// stand in the worker's part of the partial results themselves and the rows are read twice.
template <class T> struct Room {
  float* sums;
  T *first, *second;
  __device__ Room(uint4* shared, float* partial, int64_t part, int sums_count, int64_t cols, bool keep) {
    const int64_t bytes = cols * (sums_count * (int64_t)sizeof(float) + 2 * (int64_t)sizeof(T));
    char* own = reinterpret_cast<char*>(shared) + threadIdx.y * bytes;
    sums = keep ? reinterpret_cast<float*>(own) : partial + part * sums_count * cols;
    first = reinterpret_cast<T*>(own + sums_count * cols * (int64_t)sizeof(float));
    second = first + cols;
  }
};

template <int N> __device__ __forceinline__ void add_to(float* sums, const float (&v)[N]) {
  float s[N];
  load_floats<N>(sums, s);
#pragma unroll
  for (int j = 0; j < N; ++j) s[j] += v[j];
  store_floats<N>(sums, s);
}

// Each thread deals with the same columns in every loop, so nothing has to be waited for.
template <int N> __device__ __forceinline__ void clear(float* sums, int64_t count, int64_t start, int64_t step) {
  const float zero[N] = {};
  for (int64_t i = start; i < count; i += step) store_floats<N>(sums + i, zero);
}
template <int N> __device__ __forceinline__ void hand_over(const float* sums, float* partial, int64_t count, int64_t start, int64_t step) {
  float s[N];
  for (int64_t i = start; i < count; i += step) {
    load_floats<N>(sums + i, s);
    store_floats<N>(partial + i, s);
  }
}

template <class T, int N>
__global__ void rms_norm_backward_kernel(const T* dy, const T* h, const void* weight, bool weight_is_float32, const float* rstd,
    const T* extra, T* dx, float* partial, int64_t rows, int64_t part_rows, int64_t cols, bool keep) {
  extern __shared__ uint4 shared[];
  const int64_t part = worker(), step = (int64_t)blockDim.x * N, start = (int64_t)threadIdx.x * N;
  const int64_t begin = part * part_rows, end = begin + part_rows < rows ? begin + part_rows : rows;
  if (begin >= rows) return;
  const Room<T> room(shared, partial, part, partial != nullptr, cols, keep);
  if (partial != nullptr) clear<N>(room.sums, cols, start, step);
  float d[N], v[N], w[N];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * cols;
    const float scale = rstd[row];
    float dot = 0.0f;
    for (int64_t i = start; i < cols; i += step) {
      load_floats<N>(dy + at + i, d);
      load_floats<N>(h + at + i, v);
      load_weight<N, T>(weight, weight_is_float32, i, w);
      if (keep) store_floats<N>(room.first + i, d), store_floats<N>(room.second + i, v);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        dot += d[j] * v[j] * w[j];
        d[j] *= v[j] * scale;
      }
      if (partial != nullptr) add_to<N>(room.sums + i, d);
    }
    // d/dh: rstd * (w dy - h * rstd^2 * mean(w dy h))
    const float k = row_reduce(dot, Sum()) / (float)cols * scale * scale * scale;
    for (int64_t i = start; i < cols; i += step) {
      load_floats<N>(keep ? room.first + i : dy + at + i, d);
      load_floats<N>(keep ? room.second + i : h + at + i, v);
      load_weight<N, T>(weight, weight_is_float32, i, w);
#pragma unroll
      for (int j = 0; j < N; ++j) d[j] = d[j] * w[j] * scale - v[j] * k;
      if (extra != nullptr) {
        load_floats<N>(extra + at + i, v);
#pragma unroll
        for (int j = 0; j < N; ++j) d[j] += v[j];
      }
      store_floats<N>(dx + at + i, d);
    }
  }
  if (partial != nullptr && keep) hand_over<N>(room.sums, partial + part * cols, cols, start, step);
}

template <class T, int N, bool kDrop>
__global__ void layer_norm_backward_kernel(const T* dy, const T* x, const void* weight, bool weight_is_float32, const float* mean,
    const float* rstd, const T* extra, T* dx, T* dropped, float* partial, int64_t rows, int64_t part_rows, int64_t cols, Dropout dropout,
    bool keep) {
  extern __shared__ uint4 shared[];
  const int64_t part = worker(), step = (int64_t)blockDim.x * N, start = (int64_t)threadIdx.x * N;
  const int64_t begin = part * part_rows, end = begin + part_rows < rows ? begin + part_rows : rows;
  if (begin >= rows) return;
  const Room<T> room(shared, partial, part, partial != nullptr ? 2 : 0, cols, keep);  // the weight's sums, then the bias's
  if (partial != nullptr) clear<N>(room.sums, cols, start, step), clear<N>(room.sums + cols, cols, start, step);
  float d[N], v[N], w[N];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * cols;
    const float center = mean[row], scale = rstd[row];
    float sum = 0.0f, dot = 0.0f;
    for (int64_t i = start; i < cols; i += step) {
      load_floats<N>(dy + at + i, d);
      load_floats<N>(x + at + i, v);
      if (keep) store_floats<N>(room.first + i, d), store_floats<N>(room.second + i, v);
      if (partial != nullptr) add_to<N>(room.sums + cols + i, d);
#pragma unroll
      for (int j = 0; j < N; ++j) w[j] = 1.0f, v[j] = (v[j] - center) * scale;
      if (weight != nullptr) load_weight<N, T>(weight, weight_is_float32, i, w);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sum += d[j] * w[j];
        dot += d[j] * w[j] * v[j];
        d[j] *= v[j];
      }
      if (partial != nullptr) add_to<N>(room.sums + i, d);
    }
    const float c1 = row_reduce(sum, Sum()) / (float)cols, c2 = row_reduce(dot, Sum()) / (float)cols;
    for (int64_t i = start; i < cols; i += step) {
      load_floats<N>(keep ? room.first + i : dy + at + i, d);
      load_floats<N>(keep ? room.second + i : x + at + i, v);
      if (weight != nullptr) {
        load_weight<N, T>(weight, weight_is_float32, i, w);
#pragma unroll
        for (int j = 0; j < N; ++j) d[j] *= w[j];
      }
#pragma unroll
      for (int j = 0; j < N; ++j) d[j] = scale * (d[j] - c1 - (v[j] - center) * scale * c2);
      if (extra != nullptr) {
        load_floats<N>(extra + at + i, v);
#pragma unroll
        for (int j = 0; j < N; ++j) d[j] += v[j];
      }
      store_floats<N>(dx + at + i, d);
      if constexpr (kDrop) {
        dropout.apply<N>(d, at + i);
        store_floats<N>(dropped + at + i, d);
      }
    }
  }
  if (partial == nullptr || !keep) return;
  float* const to = partial + part * 2 * cols;
  hand_over<N>(room.sums, to, cols, start, step);  // in two halves: each thread reads what it has added itself
  hand_over<N>(room.sums + cols, to + cols, cols, start, step);
}

// to[c] += sum over parts of partial[part * stride + c], in an order that the number of parts fixes.
__global__ void add_parts_kernel(const float* partial, int64_t parts, int64_t stride, int64_t cols, float* to) {
  __shared__ float sums[32][33];
  const int64_t c = (int64_t)blockIdx.x * 32 + threadIdx.x;
  float sum = 0.0f;
  if (c < cols)
    for (int64_t p = threadIdx.y; p < parts; p += 32) sum += partial[p * stride + c];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = warp_reduce(sums[threadIdx.x][threadIdx.y], Sum());  // a warp a column
  const int64_t own = (int64_t)blockIdx.x * 32 + threadIdx.y;
  if (threadIdx.x == 0 && own < cols) to[own] += sum;
}
void add_parts(const float* partial, int64_t parts, int64_t stride, int64_t cols, float* to) {
  add_parts_kernel<<<grid_of(cols, 32), dim3(32, 32), 0, device.stream>>>(partial, parts, stride, cols, to);
  launched("adding partial gradients");
}

// What a launch needs: block, grid, shared memory.
struct Plan {
  dim3 block;
  Parts parts;
  int64_t bytes;
  bool keep;
  Plan(int64_t rows, int64_t cols, int width, int64_t item, int sums)
      : block(row_block(rows, cols / width)),
        parts(rows, block.y, sums > 0),
        bytes(cols * (sums * 4 + 2 * item) * block.y),
        keep(bytes <= shared_limit()) {}
  unsigned grid() const { return grid_of(parts.count, block.y); }
};

}  // namespace

void rms_norm_backward(const rms_norm_backward_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  const int64_t n = product(a.rows, a.cols);
  check_floats("dy", a.dy, n);
  check_like("h", a.h, n, "dy", a.dy);
  check_weight("weight", a.weight, a.cols, a.dy.dtype);
  check_tensor("rstd", a.rstd, a.rows);
  if (a.dh_extra) check_like("dh_extra", a.dh_extra, n, "dy", a.dy);
  check_like("dx", a.dx, n, "dy", a.dy);
  if (a.dweight) check_tensor("dweight", a.dweight, a.cols);
  if (a.rows == 0) return;
  with_float_type(a.dy.dtype, "dy", [&](auto type) {
    using T = decltype(type);
    const bool whole = a.cols % Pack<T>::kCount == 0 && aligned(16, a.dy.data, a.h.data, a.weight.data, a.dh_extra.data, a.dx.data);
    with_width<T>(whole, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const Plan plan(a.rows, a.cols, N, sizeof(T), a.dweight ? 1 : 0);
      float* partial = a.dweight ? scratch_of<float>(kPartials, plan.parts.count * a.cols) : nullptr;
      const auto kernel = rms_norm_backward_kernel<T, N>;
      if (plan.keep) allow_shared(kernel, plan.bytes);
      kernel<<<plan.grid(), plan.block, plan.keep ? plan.bytes : 0, device.stream>>>(a.dy.as<const T>(), a.h.as<const T>(), a.weight.data,
          a.weight.dtype == DType::Float32, a.rstd.f32(), a.dh_extra.as<const T>(), a.dx.as<T>(), partial, a.rows, plan.parts.rows, a.cols,
          plan.keep);
      launched("rms_norm_backward");
      if (a.dweight) add_parts(partial, plan.parts.count, a.cols, a.cols, a.dweight.f32());
    });
  });
}

void layer_norm_backward(const layer_norm_backward_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  const int64_t n = product(a.rows, a.cols);
  check_floats("dy", a.dy, n);
  check_like("x", a.x, n, "dy", a.dy);
  if (a.weight) check_weight("weight", a.weight, a.cols, a.dy.dtype);
  check_tensor("mean", a.mean, a.rows);
  check_tensor("rstd", a.rstd, a.rows);
  if (a.dh_extra) check_like("dh_extra", a.dh_extra, n, "dy", a.dy);
  check_like("dx", a.dx, n, "dy", a.dy);
  if (a.dropped) check_like("dropped", a.dropped, n, "dy", a.dy);
  check_share(a.p, a.dropped);
  if (a.dweight) check_tensor("dweight", a.dweight, a.cols);
  if (a.dbias) check_tensor("dbias", a.dbias, a.cols);
  if (a.rows == 0) return;
  const bool wants = a.dweight || a.dbias;
  with_float_type(a.dy.dtype, "dy", [&](auto type) {
    using T = decltype(type);
    const bool whole = a.cols % Pack<T>::kCount == 0 && aligned(16, a.dy.data, a.x.data, a.weight.data, a.dx.data) &&
                       aligned(16, a.dh_extra.data, a.dropped.data);
    with_width<T>(whole, [&](auto width) {
      constexpr int N = decltype(width)::value;
      const Plan plan(a.rows, a.cols, N, sizeof(T), wants ? 2 : 0);
      float* partial = wants ? scratch_of<float>(kPartials, plan.parts.count * 2 * a.cols) : nullptr;
      const auto kernel = a.dropped ? layer_norm_backward_kernel<T, N, true> : layer_norm_backward_kernel<T, N, false>;
      if (plan.keep) allow_shared(kernel, plan.bytes);
      kernel<<<plan.grid(), plan.block, plan.keep ? plan.bytes : 0, device.stream>>>(a.dy.as<const T>(), a.x.as<const T>(), a.weight.data,
          a.weight.dtype == DType::Float32, a.mean.f32(), a.rstd.f32(), a.dh_extra.as<const T>(), a.dx.as<T>(), a.dropped.as<T>(),
          partial, a.rows, plan.parts.rows, a.cols, Dropout(a.seed, a.offset, a.p), plan.keep);
      launched("layer_norm_backward");
      if (a.dweight) add_parts(partial, plan.parts.count, 2 * a.cols, a.cols, a.dweight.f32());
      if (a.dbias) add_parts(partial + a.cols, plan.parts.count, 2 * a.cols, a.cols, a.dbias.f32());
    });
  });
}

}  // namespace cuda
}  // namespace tunebook
