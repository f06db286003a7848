// Choosing an element by its place in descending order of probability, without sorting.
#pragma once
#include "rows.cuh"

namespace tunebook {
namespace cuda {

constexpr int kSampleThreads = 1024;
constexpr int kBins = 1024;       // of a digit of 10 bits; one thread a bin
constexpr int kCandidates = 4096;
typedef unsigned long long Mass;  // probability relative to the most probable token, times 2^44: sums of integers have no order

struct Candidate {
  uint32_t bits;  // of the relative probability: for positive floats the order of the bits is the order of the values
  int32_t id;
};

__device__ __forceinline__ Mass mass_of(uint32_t bits) { return __float2ull_rn(__uint_as_float(bits) * 17592186044416.0f); }
// Unique, and descending in the order of sampling: larger probabilities first, the smaller id among equals. 60 bits.
__device__ __forceinline__ uint64_t key_of(uint32_t bits, int32_t id) { return (uint64_t)bits << 30 | (uint64_t)(0x3fffffff - id); }

// Where elements come from: all of a row, or the candidates gathered from it.
struct WholeRow {
  const float* p;
  int64_t count;
  __device__ __forceinline__ Candidate operator[](int64_t i) const { return {__float_as_uint(p[i]), (int32_t)i}; }
};
struct Gathered {
  const Candidate* list;
  int64_t count;
  __device__ __forceinline__ Candidate operator[](int64_t i) const { return list[i]; }
};

struct SampleShared {
  Mass mass[kBins];
  uint32_t count[kBins];
  Candidate list[kCandidates];
  Mass sums[32];
  Mass above_mass, bin_mass;
  uint32_t above_count, bin_count;
  int32_t bin, list_count, id;
};

// The bin in which a running sum passes its target, and what stands above it.
struct Found {
  uint64_t prefix = 0;  // digits so far
  Mass above_mass = 0, bin_mass = 0;
  uint32_t above_count = 0, bin_count = 0;
  bool found = true;
};

// Inclusive sum over the block.
__device__ inline Mass block_scan(SampleShared& s, Mass v) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int o = 1; o < 32; o <<= 1) {
    const Mass other = __shfl_up_sync(0xffffffffu, v, o);
    if (lane >= o) v += other;
  }
  __syncthreads();
  if (lane == 31) s.sums[warp] = v;
  __syncthreads();
  Mass before = 0;
  for (int w = 0; w < warp; ++w) before += s.sums[w];
  return before + v;
}
__device__ inline Mass block_sum(SampleShared& s, Mass v) {
  for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) s.sums[threadIdx.x >> 5] = v;
  __syncthreads();
  Mass total = 0;
  for (int w = 0; w < kSampleThreads / 32; ++w) total += s.sums[w];
  return total;
}

__device__ inline void clear_bins(SampleShared& s) {
  __syncthreads();
  s.mass[threadIdx.x] = 0, s.count[threadIdx.x] = 0;
  __syncthreads();
}
__device__ __forceinline__ void count_in(SampleShared& s, int bin, uint32_t bits) {
  atomicAdd(&s.count[bin], 1u);
  if (const Mass mass = mass_of(bits)) atomicAdd(&s.mass[bin], mass);
}

// The histogram's bin, from the top, where the sum of masses (or counts) exceeds `target`.
__device__ inline void cross(SampleShared& s, bool by_mass, Mass target, Found& f) {
  __syncthreads();
  if (threadIdx.x == 0) s.bin = -1;
  const int bin = kBins - 1 - (int)threadIdx.x;
  const Mass mass = s.mass[bin], count = s.count[bin];
  const Mass masses = block_scan(s, mass), counts = block_scan(s, count);
  const Mass upto = by_mass ? f.above_mass + masses : f.above_count + counts, own = by_mass ? mass : count;
  if (upto > target && upto - own <= target) {  // one thread alone
    s.bin = bin;
    s.bin_mass = mass, s.bin_count = (uint32_t)count;
    s.above_mass = f.above_mass + masses - mass, s.above_count = (uint32_t)(f.above_count + counts - count);
  }
  __syncthreads();
  f.found = s.bin >= 0;
  if (!f.found) return;
  f.prefix = f.prefix << 10 | (uint64_t)s.bin;
  f.above_mass = s.above_mass, f.bin_mass = s.bin_mass, f.above_count = s.above_count, f.bin_count = s.bin_count;
}

// Digit by digit: 3 levels find the probability at which the sum over the elements in descending order exceeds `target`, 6 the element.
// Elements of probability 0 do not take part. With `id`, the element's id goes to s.id.
template <class Source> __device__ Found select(SampleShared& s, const Source& source, bool by_mass, Mass target, int levels, bool id) {
  Found f;
  int shift = 60;
  for (int level = 0; level < levels; ++level) {
    shift -= 10;
    clear_bins(s);
    for (int64_t i = threadIdx.x; i < source.count; i += kSampleThreads) {
      const Candidate c = source[i];
      const uint64_t key = key_of(c.bits, c.id);
      if (c.bits != 0 && (level == 0 || key >> (shift + 10) == f.prefix)) count_in(s, (int)(key >> shift & (kBins - 1)), c.bits);
    }
    cross(s, by_mass, target, f);
    if (!f.found || f.bin_count == 1) break;
  }
  if (id) {
    for (int64_t i = threadIdx.x; i < source.count; i += kSampleThreads) {
      const Candidate c = source[i];
      if (key_of(c.bits, c.id) >> shift == f.prefix) s.id = c.id;
    }
    __syncthreads();
  }
  return f;
}

}  // namespace cuda
}  // namespace tunebook
