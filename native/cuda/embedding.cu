// Rows of a table by id, and the sum of gradients back into it.
#include "rows.cuh"

namespace tunebook {
namespace cuda {
namespace {

void check_ids(const Ref& ids, int64_t rows, int64_t dim, int64_t vocab) {
  check_size("rows", rows);
  check_size("dim", dim);
  check_size("vocab", vocab);
  check_tensor("ids", ids, rows, DType::Int32);
  if (rows > INT32_MAX || vocab >= INT32_MAX) fail("%lld rows of a vocabulary of %lld are too many", (long long)rows, (long long)vocab);
}

unsigned threads_for(int64_t units) { return units >= 256 ? 256 : units <= 32 ? 32 : (unsigned)((units + 31) / 32 * 32); }

// ---- forward ----------------------------------------------------------------------------------

template <class W, class Y, int N>
__global__ void embedding_kernel(const W* weight, const int32_t* ids, Y* y, int64_t dim, int64_t vocab, Fault* fault) {
  const int64_t row = blockIdx.x;
  const int32_t id = ids[row];
  if (id < 0 || id >= vocab) {
    if (threadIdx.x == 0) raise(fault, kBadId, (int)row, id, (int)vocab);
    return;
  }
  weight += id * dim, y += row * dim;
  float v[N];
  for (int64_t i = (int64_t)threadIdx.x * N; i < dim; i += (int64_t)blockDim.x * N) {
    load_floats<N>(weight + i, v);
    store_floats<N>(y + i, v);
  }
}

void embedding(const embedding_args& a) {
  check_ids(a.ids, a.rows, a.dim, a.vocab);
  check_floats("weight", a.weight, product(a.vocab, a.dim));
  check_floats("y", a.y, product(a.rows, a.dim));
  if (a.rows == 0 || a.dim == 0) return;
  with_float_type(a.weight.dtype, "weight", [&](auto from) {
    with_float_type(a.y.dtype, "y", [&](auto to) {
      using W = decltype(from);
      using Y = decltype(to);
      const auto run = [&](auto width) {
        constexpr int N = decltype(width)::value;
        embedding_kernel<W, Y, N><<<(unsigned)a.rows, threads_for(a.dim / N), 0, device.stream>>>(
            a.weight.as<const W>(), a.ids.i32(), a.y.as<Y>(), a.dim, a.vocab, faults());
        launched("embedding");
      };
      constexpr int kFull = width_of<W, Y>();
      if (a.dim % kFull == 0 && aligned(16, a.weight.data, a.y.data)) run(std::integral_constant<int, kFull>{});
      else run(std::integral_constant<int, 1>{});
    });
  });
}

// ---- backward ---------------------------------------------------------------------------------
//
// Rows are sorted by id, stably, so that the rows of an id stand together in their order. They are added up in windows of 32 sorted
// places; an id whose rows reach over several windows gets its windows' sums added in order by a second kernel. No atomics.

constexpr int kSortThreads = 1024, kDigitBits = 4, kDigits = 1 << kDigitBits;
constexpr int64_t kWindow = 32;

struct Pairs {
  int32_t *keys, *rows;
};

// Inclusive sum over the 1,024 threads of a block.
__device__ uint32_t block_scan(uint32_t v) {
  __shared__ uint32_t sums[32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int o = 1; o < 32; o <<= 1) {
    const uint32_t other = __shfl_up_sync(0xffffffffu, v, o);
    if (lane >= o) v += other;
  }
  __syncthreads();
  if (lane == 31) sums[warp] = v;
  __syncthreads();
  uint32_t before = 0;
  for (int w = 0; w < warp; ++w) before += sums[w];
  return before + v;
}

// One block sorts by digits of 4 bits, the lowest first; a thread owns a run of neighbouring places, so equal keys keep their order. The
// result is in `a` after an even number of passes, else in `b`. An id outside the vocabulary gets the key `vocab`, which is left out later.
__global__ void __launch_bounds__(kSortThreads)
    sort_ids_kernel(const int32_t* ids, Pairs a, Pairs b, int32_t rows, int32_t vocab, int passes, Fault* fault) {
  extern __shared__ uint32_t counts[];  // of digit d in thread t's run: counts[d * kSortThreads + t]
  const int32_t each = (rows + kSortThreads - 1) / kSortThreads;
  const int32_t begin = min((int64_t)rows, (int64_t)threadIdx.x * each), end = min((int64_t)rows, (int64_t)begin + each);
  for (int32_t i = begin; i < end; ++i) {
    const int32_t id = ids[i];
    const bool good = id >= 0 && id < vocab;
    if (!good) raise(fault, kBadId, i, id, vocab);
    a.keys[i] = good ? id : vocab;
    a.rows[i] = i;
  }
  Pairs from = a, to = b;
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = pass * kDigitBits;
    for (int d = 0; d < kDigits; ++d) counts[d * kSortThreads + threadIdx.x] = 0;
    for (int32_t i = begin; i < end; ++i) ++counts[(from.keys[i] >> shift & (kDigits - 1)) * kSortThreads + threadIdx.x];
    __syncthreads();
    // Where each thread's keys of each digit begin: sums of everything before, digit by digit.
    uint32_t own = 0;
    for (int k = 0; k < kDigits; ++k) own += counts[threadIdx.x * kDigits + k];
    uint32_t before = block_scan(own) - own;
    for (int k = 0; k < kDigits; ++k) {
      const uint32_t count = counts[threadIdx.x * kDigits + k];
      counts[threadIdx.x * kDigits + k] = before;
      before += count;
    }
    __syncthreads();
    for (int32_t i = begin; i < end; ++i) {
      const int32_t key = from.keys[i];
      const uint32_t place = counts[(key >> shift & (kDigits - 1)) * kSortThreads + threadIdx.x]++;
      to.keys[place] = key;
      to.rows[place] = from.rows[i];
    }
    __syncthreads();
    const Pairs swap = from;
    from = to, to = swap;
  }
}

template <int N> __device__ __forceinline__ void add_floats(float* p, const float (&v)[N]) {
  float old[N];
  load_floats<N>(p, old);
#pragma unroll
  for (int j = 0; j < N; ++j) old[j] += v[j];
  store_floats<N>(p, old);
}

// One block a sorted place; those where no piece begins have nothing to do. partial: two rows a window, for the piece that continues an
// id from the window before and for the piece that begins an id which goes on.
template <class T, int N>
__global__ void sum_pieces_kernel(const T* dy, Pairs sorted, float* dweight, float* partial, int64_t rows, int64_t dim, int32_t vocab) {
  const int64_t i = blockIdx.x, window = i / kWindow, window_end = min(rows, (window + 1) * kWindow);
  const int32_t key = sorted.keys[i];
  const bool same_before = i > 0 && sorted.keys[i - 1] == key;
  if (key == vocab || (same_before && i % kWindow != 0)) return;
  int64_t end = i + 1;
  while (end < window_end && sorted.keys[end] == key) ++end;
  const bool goes_on = end == window_end && end < rows && sorted.keys[end] == key;
  for (int64_t c = (int64_t)threadIdx.x * N; c < dim; c += (int64_t)blockDim.x * N) {
    float sum[N], v[N];
    each_is<N>(sum, 0.0f);
    for (int64_t k = i; k < end; ++k) {
      load_floats<N>(dy + sorted.rows[k] * dim + c, v);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[j] += v[j];
    }
    if (same_before) store_floats<N>(partial + window * 2 * dim + c, sum);
    else if (goes_on) store_floats<N>(partial + (window * 2 + 1) * dim + c, sum);
    else add_floats<N>(dweight + key * dim + c, sum);
  }
}

// One block a window: if an id begins in it and goes on, its windows' sums are added in order.
__global__ void join_pieces_kernel(const int32_t* keys, const float* partial, float* dweight, int64_t rows, int64_t dim, int32_t vocab) {
  const int64_t window = blockIdx.x, begin = window * kWindow, end = begin + kWindow;
  if (end >= rows) return;
  const int32_t key = keys[end];
  if (key == vocab || keys[end - 1] != key || (begin > 0 && keys[begin - 1] == key)) return;
  for (int64_t c = threadIdx.x; c < dim; c += blockDim.x) {
    float sum = partial[(window * 2 + 1) * dim + c];
    for (int64_t w = window + 1; w * kWindow < rows && keys[w * kWindow] == key; ++w) sum += partial[w * 2 * dim + c];
    dweight[key * dim + c] += sum;
  }
}

void embedding_backward(const embedding_backward_args& a) {
  check_ids(a.ids, a.rows, a.dim, a.vocab);
  check_floats("dy", a.dy, product(a.rows, a.dim));
  check_tensor("dweight", a.dweight, product(a.vocab, a.dim));
  if (a.rows == 0 || a.dim == 0) return;
  int32_t* words = scratch_of<int32_t>(kSorted, a.rows * 4);
  const Pairs first{words, words + a.rows}, second{words + 2 * a.rows, words + 3 * a.rows};
  int passes = 0;
  while (a.vocab >> passes * kDigitBits > 0) ++passes;
  constexpr int64_t kCounts = kDigits * kSortThreads * 4;
  allow_shared(sort_ids_kernel, kCounts);
  sort_ids_kernel<<<1, kSortThreads, kCounts, device.stream>>>(
      a.ids.i32(), first, second, (int32_t)a.rows, (int32_t)a.vocab, passes, faults());
  launched("sorting ids");
  const Pairs sorted = passes % 2 == 0 ? first : second;
  const int64_t windows = blocks_for(a.rows, kWindow);
  float* partial = scratch_of<float>(kPartials, product(windows, 2, a.dim));
  with_float_type(a.dy.dtype, "dy", [&](auto type) {
    using T = decltype(type);
    with_width<T>(a.dim % Pack<T>::kCount == 0 && aligned(16, a.dy.data, a.dweight.data), [&](auto width) {
      constexpr int N = decltype(width)::value;
      sum_pieces_kernel<T, N><<<(unsigned)a.rows, threads_for(a.dim / N), 0, device.stream>>>(
          a.dy.as<const T>(), sorted, a.dweight.f32(), partial, a.rows, a.dim, (int32_t)a.vocab);
      launched("embedding_backward");
    });
  });
  join_pieces_kernel<<<(unsigned)windows, threads_for(a.dim), 0, device.stream>>>(
      sorted.keys, partial, a.dweight.f32(), a.rows, a.dim, (int32_t)a.vocab);
  launched("embedding_backward");
}

}  // namespace

void register_embedding(Backend& b) {
  b.embedding = embedding;
  b.embedding_backward = embedding_backward;
}

}  // namespace cuda
}  // namespace tunebook
