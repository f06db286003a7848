// Packing a right operand that is restored line by line from a quantised form.
#pragma once
#include "gemm_driver.h"

namespace tunebook {
namespace TB_ISA {

// Panels of n columns, k steps. restore(line, from, count, to) gives `count` values of a stored line from its element `from` on: a line is a column
// (transposed: the usual weight, out x in, times its inputs) or a step of k.
template <class P, class Restore>
static void pack_restored(float* out, int64_t k, int64_t n, bool transposed, Restore&& restore) {
  const int64_t words = words_of<P>(k);
  if (transposed) {
    constexpr int64_t kStrip = 128;
    static_assert(kStrip % (P::kPair * W) == 0, "a strip fills whole vectors");
    alignas(64) float strip[W * kStrip];
    for (int64_t c = 0; c < n; c += kNR, out += words * kNR) {
      for (int64_t lane = 0; lane < kNR; lane += W) {
        const int64_t left = n - c - lane;
        const int64_t valid = left < 0 ? 0 : left < W ? left : W;
        for (int64_t s = 0; s < k; s += kStrip) {
          const int64_t length = k - s < kStrip ? k - s : kStrip;
          for (int64_t i = 0; i < valid; i++) restore(c + lane + i, s, length, strip + i * kStrip);
          pack_across<P>(out + s / P::kPair * kNR + lane, kNR, W, strip, kStrip, valid, length);
        }
      }
    }
    return;
  }
  alignas(64) float row[2 * kGroup];
  for (int64_t s = 0; s < k; s += P::kPair, out += kNR) {
    const int64_t steps = k - s < P::kPair ? k - s : P::kPair;
    for (int64_t i = 0; i < steps; i++) restore(s + i, 0, n, row + i * kGroup);
    for (int64_t c = 0; c < n; c += kNR) pack_along<P>(out + c * words, kNR, kNR, row + c, kGroup, n - c < kNR ? n - c : kNR, steps);
  }
}

}  // namespace TB_ISA
}  // namespace tunebook
