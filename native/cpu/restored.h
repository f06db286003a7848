// A right operand that is restored line by line from a quantised form.
//
// A weight W (rows x cols as stored) has
//   void restore(int64_t row, int64_t from, int64_t count, float* to) const            elements of a row as float32
//   template <class P> void words(int64_t row, int64_t from, int64_t count, float* to) const
//                                                    the same as packed words, zeros up to a whole vector; from is a multiple of 64
#pragma once
#include "gemm_driver.h"

namespace tunebook {
namespace TB_ISA {

// `words` of a weight that has no way of its own: through float32.
template <class P, class Weight>
static void words_through_floats(const Weight& w, int64_t row, int64_t from, int64_t count, float* to) {
  if (P::kInPlace) {  // words are the elements
    w.restore(row, from, count, to);
    for (int64_t i = count; i % W != 0; i++) to[i] = 0.0f;
    return;
  }
  constexpr int64_t kStrip = 128, kStep = P::kPair * W;
  alignas(64) float strip[kStrip];
  for (int64_t s = 0; s < count; s += kStrip) {
    const int64_t length = count - s < kStrip ? count - s : kStrip;
    w.restore(row, from + s, length, strip);
    for (int64_t i = 0; i < length; i += kStep, to += W) store(to, P::along(strip + i, length - i < kStep ? length - i : kStep));
  }
}

// W itself, k running over its rows, or its transpose (the usual weight, out x in, times its inputs), k running over its columns.
template <class Weight>
struct RestoredB {
  Weight w;
  bool transposed;

  // Panels of n columns from j on, k steps from p on.
  template <class P>
  void pack_panels(float* out, int64_t p, int64_t k, int64_t j, int64_t n) const {
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
            for (int64_t i = 0; i < valid; i++) w.template words<P>(j + c + lane + i, p + s, length, strip + i * kStrip);
            pack_across<Exact>(out + s / P::kPair * kNR + lane, kNR, W, strip, kStrip, valid, words_of<P>(length));
          }
        }
      }
      return;
    }
    alignas(64) float row[2 * kGroup];
    for (int64_t s = 0; s < k; s += P::kPair, out += kNR) {
      const int64_t steps = k - s < P::kPair ? k - s : P::kPair;
      for (int64_t i = 0; i < steps; i++) w.restore(p + s + i, j, n, row + i * kGroup);
      for (int64_t c = 0; c < n; c += kNR) pack_along<P>(out + c * words, kNR, kNR, row + c, kGroup, n - c < kNR ? n - c : kNR, steps);
    }
  }
};

}  // namespace TB_ISA
}  // namespace tunebook
