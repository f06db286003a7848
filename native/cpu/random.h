// Random numbers for the elements of a tensor, and dropout by them, which norms do on their way too.
#pragma once
#include "parallel.h"
#include "philox.h"

namespace tunebook {
namespace TB_ISA {

constexpr int64_t kRandomPiece = 16384;  // a multiple of the kWords elements made at once

// f(i, lanes, words) for vectors of [0, n): words are the W random words of elements i ...
template <class F>
void each_random(int64_t n, int64_t seed, int64_t offset, F f) {
  parallel_pieces(n, kRandomPiece, [&](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[kWords];
    for (int64_t i = begin; i < end; i += kWords) {
      philox((uint32_t)seed, (uint64_t)(uint32_t)offset + (uint64_t)(i / 4), words);
      for (int64_t j = 0; j < kWords && i + j < end; j += W) f(i + j, end - i - j < W ? end - i - j : (int64_t)W, words + j);
    }
  });
}

// y = x / (1 - p), or 0 with probability p. (in place)
inline void drop(const float* x, float* y, int64_t n, int64_t seed, int64_t offset, float p) {
  const float scale = p < 1.0f ? 1.0f / (1.0f - p) : 0.0f;
  each_random(n, seed, offset, [=](int64_t i, int64_t m, const uint32_t* words) {
    store_to(y + i, uniform_v(words) >= splat(p) ? load_to(x + i, m) * scale : splat(0.0f), m);
  });
}

}  // namespace TB_ISA
}  // namespace tunebook
