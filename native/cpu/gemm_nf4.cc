// isa: portable avx2 avx512 avx512bf16
// Products with a 4-bit weight (NF4, FP4). Large ones decode while packing; a few rows (decoding) read the codes straight into the dot product.
#include "frozen.h"
#include "nf4.h"
#include "pairs.h"

namespace tunebook {
namespace TB_ISA {
namespace {

#if TB_AVX2
// The codes of W bytes: even elements stand in the high nibbles, odd ones in the low.
TB_INLINE void codes_of_bytes(const float* codes, const uint8_t* from, vf& even, vf& odd) {
#if TB_AVX512
  const __m512i bytes = _mm512_maskz_cvtepu8_epi32(kAll, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  even = codes_of(codes, _mm512_maskz_srli_epi32(kAll, bytes, 4));
#else
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  even = codes_of(codes, _mm256_srli_epi32(bytes, 4));
#endif
  odd = codes_of(codes, bytes);
}

// One row of W against M rows of A, whose even and odd elements stand apart (the two nibbles of a byte): a block is summed over its codes, then scaled.
// kBlock is the block's length where it is known, so that its loop unrolls; kDoubly: scales are looked up in `tables`.
template <int M, int kBlock, bool kDoubly>
void dot_row(const Nf4& w, int64_t cols, int64_t row, const float* even, const float* odd, int64_t half, const Epilogue& e) {
  vf acc[M];
  for (int i = 0; i < M; i++) acc[i] = vf{};
  const int64_t block = kBlock > 0 ? kBlock : w.block, blocks = cols / block;
  const uint8_t* q = w.q + row * half;
  const uint64_t first = (uint64_t)(row * blocks) - (uint64_t)w.group * kAbsmaxBlock;
  const uint8_t* codes8 = kDoubly ? w.absmax8 + row * blocks : nullptr;
  for (int64_t b = 0; b < blocks; b++) {
    vf sum_even[M], sum_odd[M];
TB_UNROLL(4)
    for (int i = 0; i < M; i++) sum_even[i] = sum_odd[i] = vf{};
    __builtin_prefetch(q + b * (block / 2) + kAhead);
TB_UNROLL(4)
    for (int64_t l = 0; l < block / 2; l += W) {
      const int64_t s = b * (block / 2) + l;
      vf c_even, c_odd;
      codes_of_bytes(w.codes, q + s, c_even, c_odd);
TB_UNROLL(4)
      for (int i = 0; i < M; i++) {
        sum_even[i] += load(even + i * half + s) * c_even;
        sum_odd[i] += load(odd + i * half + s) * c_odd;
      }
    }
    const float scale = kDoubly ? w.tables[(first + (uint64_t)b) / kAbsmaxBlock * 256 + codes8[b]] : w.absmax[row * blocks + b];
TB_UNROLL(4)
    for (int i = 0; i < M; i++) acc[i] += (sum_even[i] + sum_odd[i]) * scale;
  }
  for (int i = 0; i < M; i++) finish(e, i, row, hsum(acc[i]));
}

template <int M>
void gemv_nf4(int64_t rows, int64_t cols, const float* a, int64_t lda, const Nf4& w, const Epilogue& e) {
  const int64_t half = cols / 2;
  float* even = scratch_f32(6, cols * M);
  float* odd = even + half * M;
  for (int i = 0; i < M; i++) {
    for (int64_t p = 0; p < half; p++) {
      even[i * half + p] = a[i * lda + 2 * p];
      odd[i * half + p] = a[i * lda + 2 * p + 1];
    }
  }
  const auto row_of = [&](const Nf4& near, int64_t j, auto doubly) {
    if (w.block == 64) {
      dot_row<M, 64, decltype(doubly)::value>(near, cols, j, even, odd, half, e);
    } else {
      dot_row<M, 0, decltype(doubly)::value>(near, cols, j, even, odd, half, e);
    }
  };
  weight_rows(rows, half, [&](int64_t begin, int64_t end) {
    const Nf4 near = with_tables(w, begin * (cols / w.block), end * (cols / w.block));
    for (int64_t j = begin; j < end; j++) {
      if (w.absmax8 == nullptr) {
        row_of(near, j, std::false_type{});
      } else {
        row_of(near, j, std::true_type{});
      }
    }
  });
}
#endif

#if TB_BF16
// In bfloat16 (pairs.h): the sixteen codes are rounded, scales are not. kBlock as above; the block is a multiple of 32.
template <int kBlock>
struct Nf4Pairs {
  static constexpr int kVectors = 4;
  static constexpr bool kScaled = true, kHalves = kBlock == 64;
  // Words of 16 bits hold four elements, the first one in bits 4 to 7.
  static constexpr Order order() {
    Order o{};
    for (int v = 0; v < 4; v++) {
      for (int j = 0; j < 16; j++) o.at[16 * v + j] = (uint16_t)(4 * j + v);
    }
    return o;
  }

  Nf4 w;
  int64_t cols;

  static void along(const float* x, float* to) {
    static constexpr Order kOrder = order();
    along_order(kOrder, x, to);
  }
  Nf4Pairs near(int64_t begin, int64_t end) const { return {with_tables(w, begin * (cols / w.block), end * (cols / w.block)), cols}; }

  struct Row {
    const uint8_t* q;
    const uint8_t* codes8;
    const float* absmax;
    const float* tables;
    uint64_t first;  // its first block, counted from the first table on
    int64_t block;
    __m512i codes;

    float scale(int64_t b) const { return tables != nullptr ? tables[(first + (uint64_t)b) / kAbsmaxBlock * 256 + codes8[b]] : absmax[b]; }
    TB_MEMBER void words(int64_t c, int64_t left, vf* to) const {
      __builtin_prefetch(q + c * 64 + kAhead);
      const __m512i four = code_bytes(q + c * 64, left / 2);
      to[0] = look_up(codes, shifted<4>(four));
      to[1] = look_up(codes, four);
      to[2] = look_up(codes, shifted<12>(four));
      to[3] = look_up(codes, shifted<8>(four));
    }
    TB_MEMBER vf scales(int64_t c, int64_t left) const {
      if (kBlock == 64) {
        const __m512 low = _mm512_set1_ps(scale(2 * c));
        return (vf)_mm512_mask_broadcastss_ps(low, 0xff00, _mm_set_ss(left > 64 ? scale(2 * c + 1) : 0.0f));
      }
      vf s = {};
      for (int64_t lane = 0; lane * 8 < left; lane++) s[lane] = scale((c * 128 + lane * 8) / block);
      return s;
    }
    TB_MEMBER void half_words(int64_t c, vf* to) const {
      __builtin_prefetch(q + c * 64 + kAhead);
      alignas(64) static constexpr uint16_t shifts[2][32] = {{4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4},
                                                             {12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
                                                              8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8}};
      const __m512i four = _mm512_maskz_broadcast_i64x4(0xff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + c * 64)));
TB_UNROLL(2)
      for (int v = 0; v < 2; v++) to[v] = look_up(codes, _mm512_maskz_srlv_epi16(~0u, four, _mm512_load_si512(shifts[v])));
    }
    TB_MEMBER vf half_scale(int64_t c) const { return splat(scale(2 * c)); }
    template <int M>
    TB_MEMBER void start(int64_t, vf*) const {}
  };

  TB_MEMBER Row row(int64_t j) const {
    const int64_t block = kBlock > 0 ? kBlock : w.block, blocks = cols / block;
    const uint64_t first = (uint64_t)(j * blocks) - (uint64_t)w.group * kAbsmaxBlock;
    const uint8_t* codes8 = w.tables != nullptr ? w.absmax8 + j * blocks : nullptr;
    const float* absmax = w.tables != nullptr ? nullptr : w.absmax + j * blocks;
    return {w.q + j * (cols / 2), codes8, absmax, w.tables, first, block, table_of(load(w.codes))};
  }
};
#endif

void gemm_nf4(const gemm_nf4_args& g) {
  const Nf4 w = open_nf4(g.q, g.absmax, g.absmax2, g.offset, g.rows * g.cols, g.block, g.kind);
  const FrozenProduct p = open_product(g);
#if TB_BF16
  if (takes_pairs(p) && g.cols % g.block == 0 && g.block % 32 == 0) {
    if (g.block == 64) return few_pairs(p.m, p.n, p.k, p.a, Nf4Pairs<64>{w, g.cols}, g.cols / 2, p.e);
    return few_pairs(p.m, p.n, p.k, p.a, Nf4Pairs<0>{w, g.cols}, g.cols / 2, p.e);
  }
#endif
#if TB_AVX2
  if (p.few && g.cols % g.block == 0 && g.block % (2 * W) == 0) {
    return with_rows(p.m, [&](auto M) { gemv_nf4<decltype(M)::value>(g.rows, g.cols, g.a.f32(), g.lda, w, p.e); });
  }
#endif
  gemm_frozen(p, Nf4Rows{w, g.cols}, g.cols / 2);
}

}  // namespace

void register_gemm_nf4(Backend& b) { b.gemm_nf4 = gemm_nf4; }

}  // namespace TB_ISA
}  // namespace tunebook
