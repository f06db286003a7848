// Sums, means, largest and smallest elements along an axis. Work is cut by shape alone and parts are joined in order.
#include "reduce.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int64_t kRun = 16384;    // elements of a row joined by one worker where rows are few
constexpr int64_t kDepth = 64;     // rows joined by one block, at least, where columns stay
constexpr int64_t kBlocks = 1024;  // wanted of one launch

// Task t joins run t % runs of row t / runs.
template <class K, class X, int N>
__global__ void reduce_rows_kernel(const X* x, void* y, DType y_type, int64_t tasks, int64_t n, int64_t runs, int64_t run, float scale) {
  const int64_t task = worker(), step = (int64_t)blockDim.x * N;
  if (task >= tasks) return;
  const int64_t begin = task % runs * run, end = begin + run < n ? begin + run : n;
  x += task / runs * n;
  const K join;
  float a[N], v[N];
  each_is<N>(a, K::kStart);
  for (int64_t i = begin + (int64_t)threadIdx.x * N; i < end; i += step) {
    load_floats<N>(x + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) a[j] = join(a[j], v[j]);
  }
#pragma unroll
  for (int j = 1; j < N; ++j) a[0] = join(a[0], a[j]);
  const float joined = row_reduce(a[0], join);
  if (threadIdx.x == 0) store_any(y, y_type, task, joined * scale);
}

template <class K, class X> void reduce_rows(const X* x, void* y, DType y_type, int64_t outer, int64_t n, float scale) {
  const int64_t runs = n > 2 * kRun && outer < kBlocks ? blocks_for(n, kRun) : 1, run = runs > 1 ? kRun : n, tasks = product(outer, runs);
  float* partial = runs > 1 ? scratch_of<float>(kPartials, tasks) : nullptr;
  with_width<X>(n % Pack<X>::kCount == 0 && aligned(16, x), [&](auto width) {
    constexpr int N = decltype(width)::value;
    const dim3 block = row_block(tasks, run / N);
    reduce_rows_kernel<K, X, N><<<grid_of(tasks, block.y), block, 0, device.stream>>>(
        x, partial ? partial : y, partial ? DType::Float32 : y_type, tasks, n, runs, run, partial ? 1.0f : scale);
    launched("reduce");
    if (!partial) return;
    const dim3 second = row_block(outer, runs);
    reduce_rows_kernel<K, float, 1>
        <<<grid_of(outer, second.y), second, 0, device.stream>>>(partial, y, y_type, outer, runs, 1, runs, scale);
    launched("reduce");
  });
}

constexpr int kAcross = 32, kDown = 8;  // threads of a block of columns

// Block: a tile of columns of part `p` of the depth of one outer index. y gets outer x parts x inner.
template <class K, class X, int N>
__global__ void reduce_columns_kernel(
    const X* x, void* y, DType y_type, int64_t n, int64_t inner, int64_t tiles, int64_t parts, int64_t depth, float scale) {
  __shared__ float joined[kDown][N][kAcross];
  const int64_t tile = blockIdx.x % tiles, task = blockIdx.x / tiles, part = task % parts, outer = task / parts;
  const int64_t c = (tile * kAcross + threadIdx.x) * N, end = (part + 1) * depth < n ? (part + 1) * depth : n;
  const K join;
  float a[N], v[N];
  each_is<N>(a, K::kStart);
  if (c < inner)
    for (int64_t r = part * depth + threadIdx.y; r < end; r += kDown) {
      load_floats<N>(x + (outer * n + r) * inner + c, v);
#pragma unroll
      for (int j = 0; j < N; ++j) a[j] = join(a[j], v[j]);
    }
#pragma unroll
  for (int j = 0; j < N; ++j) joined[threadIdx.y][j][threadIdx.x] = a[j];
  __syncthreads();
  if (c >= inner) return;
  for (int j = threadIdx.y; j < N; j += kDown) {
    float value = joined[0][j][threadIdx.x];
    for (int k = 1; k < kDown; ++k) value = join(value, joined[k][j][threadIdx.x]);
    store_any(y, y_type, task * inner + c + j, value * scale);
  }
}

template <class K, class X> void reduce_columns(const X* x, void* y, DType y_type, int64_t outer, int64_t n, int64_t inner, float scale) {
  with_width<X>(inner % Pack<X>::kCount == 0 && aligned(16, x), [&](auto width) {
    constexpr int N = decltype(width)::value;
    const int64_t tiles = blocks_for(inner, kAcross * N), tasks = product(outer, tiles);
    int64_t parts = tasks >= kBlocks ? 1 : blocks_for(kBlocks, tasks);
    if (parts > n / kDepth) parts = n / kDepth;
    if (parts < 1) parts = 1;
    const int64_t depth = blocks_for(n, parts);
    parts = blocks_for(n, depth > 0 ? depth : 1);
    if (parts < 1) parts = 1;  // nothing to join
    const dim3 block(kAcross, kDown);
    float* partial = parts > 1 ? scratch_of<float>(kPartials, product(outer, parts, inner)) : nullptr;
    reduce_columns_kernel<K, X, N><<<grid_of(product(tasks, parts), 1), block, 0, device.stream>>>(
        x, partial ? partial : y, partial ? DType::Float32 : y_type, n, inner, tiles, parts, depth, partial ? 1.0f : scale);
    launched("reduce");
    if (!partial) return;
    const int64_t singles = blocks_for(inner, kAcross);
    reduce_columns_kernel<K, float, 1>
        <<<grid_of(product(outer, singles), 1), block, 0, device.stream>>>(partial, y, y_type, parts, inner, singles, 1, parts, scale);
    launched("reduce");
  });
}

template <class K> void reduce_as(const Ref& x, const Ref& y, int64_t outer, int64_t n, int64_t inner, float scale) {
  with_float_type(x.dtype, "x", [&](auto type) {
    using X = decltype(type);
    if (inner == 1) reduce_rows<K, X>(x.as<const X>(), y.data, y.dtype, outer, n, scale);
    else reduce_columns<K, X>(x.as<const X>(), y.data, y.dtype, outer, n, inner, scale);
  });
}

void reduce(const reduce_args& a) {
  check_size("outer", a.outer);
  check_size("n", a.n, a.kind >= 2 ? 1 : 0);
  check_size("inner", a.inner);
  check_floats("x", a.x, product(a.outer, a.n, a.inner));
  check_floats("y", a.y, product(a.outer, a.inner));
  if (a.outer == 0 || a.inner == 0) return;
  switch (a.kind) {
    case 0: return reduce_as<SumOf>(a.x, a.y, a.outer, a.n, a.inner, 1.0f);
    case 1: return reduce_as<SumOf>(a.x, a.y, a.outer, a.n, a.inner, 1.0f / (float)a.n);
    case 2: return reduce_as<MaxOf>(a.x, a.y, a.outer, a.n, a.inner, 1.0f);
    case 3: return reduce_as<MinOf>(a.x, a.y, a.outer, a.n, a.inner, 1.0f);
  }
  fail("kind %lld of reduce is unknown", (long long)a.kind);
}

}  // namespace

void reduce_sum(const Ref& x, const Ref& y, int64_t outer, int64_t n, int64_t inner, float scale) {
  reduce_as<SumOf>(x, y, outer, n, inner, scale);
}

void register_reduce(Backend& b) { b.reduce = reduce; }

}  // namespace cuda
}  // namespace tunebook
