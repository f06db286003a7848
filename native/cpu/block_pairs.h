// Weights in blocks of 32 (blocks.cc) as forms of pairs.h: codes of 8 and of 4 bits are whole numbers, which bfloat16 holds exactly, so only A is
// rounded.
#pragma once
#include "pairs.h"

#if TB_BF16

namespace tunebook {
namespace TB_ISA {

// The first `count` of up to four scales, each in 16 / kBlocks lanes.
template <int kBlocks>
TB_INLINE vf spread(const f16* scale, int64_t count) {
  uint64_t bits = 0;
  memcpy(&bits, scale, (size_t)(count < kBlocks ? count : kBlocks) * 2);
  const __m512 four = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi64_si128((int64_t)bits)));
  return (vf)_mm512_maskz_permutexvar_ps(kAll, (__m512i)(lanes() / (W / kBlocks)), four);
}

// 8 bits, two blocks a chunk: a vector holds sixteen codes of the first block and sixteen of the second.
struct BytePairs {
  static constexpr int kVectors = 2;
  static constexpr bool kScaled = true, kHalves = false;
  const uint8_t* q;
  const f16* scale;
  int64_t cols;

  static void along(const float* x, float* to) {
    store(to, Rounded::pack(load(x), load(x + 2 * W)));
    store(to + W, Rounded::pack(load(x + W), load(x + 3 * W)));
  }
  BytePairs near(int64_t, int64_t) const { return *this; }

  struct Row {
    const uint8_t* q;
    const f16* scale;

    TB_MEMBER vf codes(const uint8_t* from) const {
      return to_float((vi)_mm512_maskz_cvtepi8_epi32(kAll, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    }
    TB_MEMBER void words(int64_t c, int64_t left, vf* to) const {
      const uint8_t* from = q + c * 64;
      __builtin_prefetch(from + kAhead);
      const bool both = left > 32;
      to[0] = Rounded::pack(codes(from), both ? codes(from + 2 * W) : vf{});
      to[1] = Rounded::pack(codes(from + W), both ? codes(from + 3 * W) : vf{});
    }
    TB_MEMBER vf scales(int64_t c, int64_t left) const { return spread<2>(scale + c * 2, left / 32); }
    template <int M>
    TB_MEMBER void start(int64_t, vf*) const {}
  };

  TB_MEMBER Row row(int64_t j) const { return {q + j * cols, scale + j * (cols / 32)}; }
};

// 4 bits, four blocks a chunk: each fills four lanes. sums: what A's rounded elements add up to in each block, rows of whole
// vectors, for the minima.
struct NibblePairs {
  static constexpr int kVectors = 4;
  static constexpr bool kScaled = true, kHalves = false;
  // Byte i of a block holds elements i and 16 + i.
  static constexpr Order order() {
    Order o{};
    for (int v = 0; v < 4; v++) {
      for (int j = 0; j < 16; j++) o.at[16 * v + j] = (uint16_t)(32 * (j / 8) + 2 * (j % 8) + v % 2 + 16 * (v / 2));
    }
    return o;
  }

  const uint8_t* q;
  const f16* scale;
  const f16* minimum;
  const float* sums;
  int64_t cols;

  static void along(const float* x, float* to) {
    static constexpr Order kOrder = order();
    along_order(kOrder, x, to);
  }
  NibblePairs near(int64_t, int64_t) const { return *this; }

  struct Row {
    const uint8_t* q;
    const f16* scale;
    const f16* minimum;
    const float* sums;
    int64_t blocks;
    __m512i numbers;

    TB_MEMBER void words(int64_t c, int64_t left, vf* to) const {
      __builtin_prefetch(q + c * 64 + kAhead);
      const __m512i four = code_bytes(q + c * 64, left / 2);
      to[0] = look_up(numbers, four);
      to[1] = look_up(numbers, shifted<8>(four));
      to[2] = look_up(numbers, shifted<4>(four));
      to[3] = look_up(numbers, shifted<12>(four));
    }
    TB_MEMBER vf scales(int64_t c, int64_t left) const { return spread<4>(scale + c * 4, left / 32); }
    template <int M>
    TB_MEMBER void start(int64_t first, vf* acc) const {
      const int64_t stride = ceil_div(blocks, W) * W;
      for_vectors(blocks, [&](int64_t b, int64_t lanes) __attribute__((always_inline)) {
        const vf m = load_as(minimum + b, lanes);
TB_UNROLL(8)
        for (int i = 0; i < M; i++) acc[i] += m * load(sums + (first + i) * stride + b);
      });
    }
  };

  TB_MEMBER Row row(int64_t j) const {
    const int64_t blocks = cols / 32;
    return {q + j * (cols / 2), scale + j * blocks, minimum + j * blocks, sums, blocks, table_of(to_float(lanes()))};
  }
};

// The products of m rows of a weight of n rows; minimum is there with 4 bits.
static void few_block_pairs(int64_t m, int64_t n, const DenseA& a, const uint8_t* q, const f16* scale, const f16* minimum, int64_t cols,
                            const Epilogue& e) {
  if (minimum == nullptr) return few_pairs(m, n, cols, a, BytePairs{q, scale, cols}, cols, e);
  const int64_t blocks = cols / 32, stride = ceil_div(blocks, W) * W, height = ceil_div(m, kPairM) * kPairM;
  float* sums = scratch_f32(6, height * stride);
  memset(sums, 0, (size_t)(height * stride) * 4);
  for (int64_t i = 0; i < m; i++) {
    const float* x = a.data + i * a.row;
    for (int64_t b = 0; b < blocks; b++) sums[i * stride + b] = hsum(round_bf16(load(x + b * 32)) + round_bf16(load(x + b * 32 + W)));
  }
  few_pairs(m, n, cols, a, NibblePairs{q, scale, minimum, sums, cols}, cols / 2, e);
}

}  // namespace TB_ISA
}  // namespace tunebook

#endif
