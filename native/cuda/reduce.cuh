// Ways to join elements. Largest and smallest: once NaN, always NaN.
#pragma once
#include "rows.cuh"

namespace tunebook {
namespace cuda {

struct SumOf {
  static constexpr float kStart = 0.0f;
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct MaxOf {
  static constexpr float kStart = -INFINITY;
  __device__ float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};
struct MinOf {
  static constexpr float kStart = INFINITY;
  __device__ float operator()(float a, float b) const { return a < b || a != a ? a : b; }
};

// x: outer x n x inner (contiguous) of a float dtype; y: outer x inner. y = joined over n, times scale.
void reduce_sum(const Ref& x, const Ref& y, int64_t outer, int64_t n, int64_t inner, float scale);

}  // namespace cuda
}  // namespace tunebook
