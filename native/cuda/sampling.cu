// The next token from logits: one block a row. The order of the filters is transformers': temperature, top-k, top-p, min-p. The same
// tokens as on the CPU: probabilities are summed exactly there in double, here as integers.
#include "sampling.cuh"

#include "philox.cuh"

namespace tunebook {
namespace cuda {
namespace {

// ---- repetition penalty -----------------------------------------------------------------------

constexpr int64_t kSeen = 48 * 1024 * 8;  // ids that one bitmap in shared memory knows

__global__ void repetition_penalty_kernel(
    const int32_t* ids, void* logits, DType type, int64_t vocab, int64_t n, float penalty, Fault* fault) {
  extern __shared__ uint32_t seen[];
  const int64_t row = blockIdx.x;
  ids += row * n;
  for (int64_t low = 0; low < vocab; low += kSeen) {
    const int64_t size = min(kSeen, vocab - low);
    __syncthreads();
    for (int64_t i = threadIdx.x; i < (size + 31) / 32; i += blockDim.x) seen[i] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      const int32_t id = ids[i];
      if (id < 0) continue;
      if (id >= vocab) {
        raise(fault, kBadId, (int)row, id, (int)vocab);
        continue;
      }
      if (id < low || id - low >= size) continue;
      const uint32_t bit = 1u << ((id - low) & 31);
      if (atomicOr(&seen[(id - low) >> 5], bit) & bit) continue;  // whoever comes first does it: the result is the same
      const float l = load_any(logits, type, row * vocab + id);
      store_any(logits, type, row * vocab + id, l > 0.0f ? l / penalty : l * penalty);
    }
  }
}

void repetition_penalty(const repetition_penalty_args& a) {
  check_size("rows", a.rows);
  check_size("vocab", a.vocab);
  check_size("n", a.n);
  check_tensor("ids", a.ids, product(a.rows, a.n), DType::Int32);
  check_floats("logits", a.logits, product(a.rows, a.vocab));
  if (!(a.penalty > 0.0f)) fail("penalty is %g, expected more than 0", (double)a.penalty);
  if (a.rows == 0 || a.n == 0 || a.vocab == 0) return;
  const int64_t bytes = ((a.vocab < kSeen ? a.vocab : kSeen) + 31) / 32 * 4;
  repetition_penalty_kernel<<<grid_of(a.rows, 1), a.n <= 256 ? 256 : 1024, bytes, device.stream>>>(
      a.ids.i32(), a.logits.data, a.logits.dtype, a.vocab, a.n, a.penalty, faults());
  launched("repetition_penalty");
}

// ---- sample -----------------------------------------------------------------------------------

struct Sampler {
  int64_t vocab, top_k;
  uint32_t seed, offset;
  const int32_t* draws;  // or nullptr
  float temperature, top_p, min_p;
};

__device__ double draw_of(const Sampler& g, int64_t row) {
  const Words4 words = g.draws != nullptr ? philox((uint32_t)g.draws[2 * row], (uint64_t)(uint32_t)g.draws[2 * row + 1])
                                          : philox(g.seed, (uint64_t)g.offset + (uint64_t)row);
  return ((double)(words.w[0] >> 5) * 67108864.0 + (double)(words.w[1] >> 6)) / 9007199254740992.0;
}
__device__ Mass target_of(double u, Mass mass) {
  const Mass target = (Mass)(u * (double)mass);
  return target < mass ? target : mass - 1;
}

// Without top-k and top-p: the first id, in their order, at which the running sum exceeds u of the whole.
__device__ __noinline__ void walk_row(SampleShared& s, const float* p, int64_t vocab, double u) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  constexpr int kWarps = kSampleThreads / 32;
  const int64_t each = (vocab + kSampleThreads - 1) / kSampleThreads * 32, begin = min(vocab, warp * each), end = min(vocab, begin + each);
  Mass own = 0;
  for (int64_t i = begin + lane; i < end; i += 32) own += mass_of(__float_as_uint(p[i]));
  for (int o = 16; o > 0; o >>= 1) own += __shfl_xor_sync(0xffffffffu, own, o);
  __syncthreads();
  if (lane == 0) s.sums[warp] = own;
  __syncthreads();
  Mass total = 0, before = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before = total;
    total += s.sums[w];
  }
  const Mass target = target_of(u, total);
  if (before > target || before + own <= target) return;  // one warp goes on
  for (int64_t i = begin; i < end; i += 32) {
    const Mass mass = i + lane < end ? mass_of(__float_as_uint(p[i + lane])) : 0;
    Mass sum = mass;
    for (int o = 1; o < 32; o <<= 1) {
      const Mass other = __shfl_up_sync(0xffffffffu, sum, o);
      if (lane >= o) sum += other;
    }
    const unsigned past = __ballot_sync(0xffffffffu, before + sum > target);
    if (past != 0) {
      if (lane == __ffs((int)past) - 1) s.id = (int32_t)(i + lane);
      return;
    }
    before += __shfl_sync(0xffffffffu, sum, 31);
  }
}

// From here on sums are over `source`, which holds all that top-k or top-p can keep.
template <class Source>
__device__ __noinline__ void cut_and_draw(SampleShared& s, const Source& source, const Sampler& g, bool cut_k, Mass total, double u) {
  if (cut_k) {
    const Found k = select(s, source, false, (Mass)g.top_k - 1, 3, false);  // ties with the k-th stay
    total = k.above_mass + k.bin_mass;
  }
  Mass kept = total;
  if (g.top_p < 1.0f) {
    const double least = ceil((double)g.top_p * (double)total);
    const Found p = select(s, source, true, least >= 1.0 ? (Mass)least - 1 : 0, 6, false);
    if (p.found) kept = p.above_mass + p.bin_mass;
  }
  if (g.min_p > 0.0f) {
    Mass own = 0;
    for (int64_t i = threadIdx.x; i < source.count; i += kSampleThreads) {
      const uint32_t bits = source[i].bits;
      if (__uint_as_float(bits) >= g.min_p) own += mass_of(bits);
    }
    const Mass enough = max(block_sum(s, own), mass_of(__float_as_uint(1.0f)));  // the most probable token always stays
    kept = min(kept, enough);
  }
  select(s, source, true, target_of(u, kept), 6, true);
}

template <class T, int N>
__global__ void __launch_bounds__(kSampleThreads)
    sample_kernel(const T* logits, int32_t* ids, float* probabilities, Sampler g, Fault* fault) {
  __shared__ SampleShared s;
  const int64_t row = blockIdx.x, vocab = g.vocab, start = (int64_t)threadIdx.x * N, step = (int64_t)kSampleThreads * N;
  const T* x = logits + row * vocab;
  float* p = probabilities + row * vocab;
  Best best{-INFINITY, INT64_MAX};
  float v[N];
#pragma unroll 4  // one block reads a row alone: several loads on their way
  for (int64_t i = start; i < vocab; i += step) {
    load_floats<N>(x + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (const Best candidate{v[j], i + j}; better(candidate, best)) best = candidate;
  }
  best = row_best(best);
  const float top = best.value;
  const bool nan = top != top;
  if (nan || top == -INFINITY || g.temperature == 0.0f || top == INFINITY) {
    if (threadIdx.x == 0) {
      if (nan || top == -INFINITY) raise(fault, kNoProbability, (int)row, nan ? 1 : 0, 0);
      ids[row] = (int32_t)best.index;
    }
    return;
  }
  const bool cut_k = g.top_k > 0 && g.top_k < vocab, cut_p = g.top_p < 1.0f;
  const float scale = 1.0f / g.temperature;
  const double u = draw_of(g, row);
  clear_bins(s);
  if (threadIdx.x == 0) s.id = (int32_t)best.index, s.list_count = 0;
  for (int64_t i = start; i < vocab; i += step) {
    load_floats<N>(x + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      v[j] = expf((v[j] - top) * scale);
      const uint32_t bits = __float_as_uint(v[j]);
      if (cut_k || cut_p) {
        if (bits != 0) count_in(s, (int)(bits >> 20), bits);
      } else if (v[j] < g.min_p) {
        v[j] = 0.0f;
      }
    }
    store_floats<N>(p + i, v);
  }
  __syncthreads();
  if (!cut_k && !cut_p) {
    walk_row(s, p, vocab, u);
  } else {
    // The first digit tells how far down the needed tokens reach. If they are few they are gathered, and the row is not read again.
    const Mass total = block_sum(s, s.mass[threadIdx.x]);
    Found f;
    if (cut_k) {
      cross(s, false, (Mass)g.top_k - 1, f);
    } else {
      const double least = ceil((double)g.top_p * (double)total);
      cross(s, true, least >= 1.0 ? (Mass)least - 1 : 0, f);
    }
    const bool limits = cut_k && f.found;  // fewer than top_k tokens have a probability above 0: all of them stay
    if (f.found && f.above_count + f.bin_count <= (uint32_t)kCandidates) {
      const uint32_t least = (uint32_t)f.prefix << 20;
      for (int64_t i = threadIdx.x; i < vocab; i += kSampleThreads) {
        const uint32_t bits = __float_as_uint(p[i]);
        if (bits != 0 && bits >= least) s.list[atomicAdd(&s.list_count, 1)] = {bits, (int32_t)i};
      }
      __syncthreads();
      cut_and_draw(s, Gathered{s.list, s.list_count}, g, limits, total, u);
    } else {
      cut_and_draw(s, WholeRow{p, vocab}, g, limits, total, u);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) ids[row] = s.id;
}

void sample(const sample_args& a) {
  check_size("rows", a.rows);
  check_size("vocab", a.vocab, 1);
  check_size("top_k", a.top_k);
  check_floats("logits", a.logits, product(a.rows, a.vocab));
  check_tensor("ids", a.ids, a.rows, DType::Int32);
  if (a.draws) check_tensor("draws", a.draws, product(a.rows, 2), DType::Int32);
  if (!(a.temperature >= 0.0f)) fail("temperature is %g, expected 0 or more", (double)a.temperature);
  if (a.vocab >= 1 << 20)
    fail("a vocabulary of %lld is too large to sample from, expected less than 2^20", (long long)a.vocab);  // sums of 64 bits
  if (a.rows == 0) return;
  float* probabilities = scratch_of<float>(kPartials, product(a.rows, a.vocab));
  const Sampler g{a.vocab, a.top_k, (uint32_t)a.seed, (uint32_t)a.offset, a.draws.i32(), a.temperature, a.top_p, a.min_p};
  with_float_type(a.logits.dtype, "logits", [&](auto type) {
    using T = decltype(type);
    with_width<T>(a.vocab % Pack<T>::kCount == 0 && aligned(16, a.logits.data), [&](auto width) {
      constexpr int N = decltype(width)::value;
      sample_kernel<T, N>
          <<<grid_of(a.rows, 1), kSampleThreads, 0, device.stream>>>(a.logits.as<const T>(), a.ids.i32(), probabilities, g, faults());
      launched("sample");
    });
  });
}

}  // namespace

void register_sampling(Backend& b) {
  b.repetition_penalty = repetition_penalty;
  b.sample = sample;
}

}  // namespace cuda
}  // namespace tunebook
