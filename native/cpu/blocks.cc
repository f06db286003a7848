// isa: portable avx2 avx512 avx512bf16
// Weights in blocks of 32 along a row that share a scale (and a minimum), as llama.cpp's files hold them: restoring, rows of a table, products. A few rows
// read the codes in the dot product itself, larger products restore while they pack.
#include "block_pairs.h"
#include "frozen.h"

namespace tunebook {
namespace TB_ISA {
namespace {

constexpr int64_t kBlock = 32;

struct Blocks {
  const uint8_t* q;
  const f16* scale;
  const f16* minimum;  // 4 bits only
  int64_t cols, bits;

  int64_t row_bytes() const { return cols * bits / 8; }

  void restore(int64_t row, int64_t from, int64_t count, float* to) const;
  template <class P>
  void words(int64_t row, int64_t from, int64_t count, float* to) const;
};

// n codes (n <= W) of one byte each as float32.
TB_INLINE vf signed_codes(const uint8_t* q) {
#if TB_AVX512
  return to_float((vi)_mm512_maskz_cvtepi8_epi32(kAll, _mm_loadu_si128(reinterpret_cast<const __m128i*>(q))));
#elif TB_AVX2
  return to_float((vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q))));
#else
  vi v = {};
  for (int i = 0; i < W; i++) v[i] = (int8_t)q[i];
  return to_float(v);
#endif
}

// The low and the high nibbles of W bytes as float32.
TB_INLINE void nibbles(const uint8_t* q, vf& low, vf& high) {
#if TB_AVX512
  alignas(64) static constexpr float numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const __m512i bytes = _mm512_maskz_cvtepu8_epi32(kAll, _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
  const __m512 table = _mm512_load_ps(numbers);  // a permutation looks at four bits: it masks and converts in one
  low = (vf)_mm512_maskz_permutexvar_ps(kAll, bytes, table);
  high = (vf)_mm512_maskz_permutexvar_ps(kAll, _mm512_maskz_srli_epi32(kAll, bytes, 4), table);
#elif TB_AVX2
  const vi bytes = (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(q)));
  low = to_float(bytes & 15);
  high = to_float(bytes >> 4);
#else
  vi bytes = {};
  for (int i = 0; i < W; i++) bytes[i] = q[i];
  low = to_float(bytes & 15);
  high = to_float(bytes >> 4);
#endif
}

// A row's scales as float32, so that each is then read with the product it belongs to.
TB_INLINE void widen(const f16* from, int64_t n, float* to) {
  for_vectors(n, [&](int64_t i, int64_t lanes) { store_to(to + i, load_as(from + i, lanes), lanes); });
}

// The 32 numbers of a block.
TB_INLINE void restore_block(const Blocks& w, int64_t block, float* to) {
  const float scale = to_float(w.scale[block]);
  if (w.bits == 8) {
    const uint8_t* q = w.q + block * kBlock;
    __builtin_prefetch(q + kAhead);
    for (int64_t i = 0; i < kBlock; i += W) store(to + i, signed_codes(q + i) * scale);
    return;
  }
  const uint8_t* q = w.q + block * (kBlock / 2);
  __builtin_prefetch(q + kAhead);
  const float minimum = to_float(w.minimum[block]);
  for (int64_t i = 0; i < kBlock / 2; i += W) {
    vf low, high;
    nibbles(q + i, low, high);
    store(to + i, low * scale + minimum);
    store(to + kBlock / 2 + i, high * scale + minimum);
  }
}

void Blocks::restore(int64_t row, int64_t from, int64_t count, float* to) const {
  const int64_t first = row * (cols / kBlock);
  for (int64_t i = from, end = from + count; i < end;) {
    const int64_t block = i / kBlock, inside = i % kBlock;
    if (inside == 0 && end - i >= kBlock) {
      for (int64_t b = first + block; end - i >= kBlock; b++, i += kBlock, to += kBlock) restore_block(*this, b, to);
      continue;
    }
    alignas(64) float part[kBlock];
    restore_block(*this, first + block, part);
    const int64_t n = kBlock - inside < end - i ? kBlock - inside : end - i;
    memcpy(to, part + inside, (size_t)n * 4);
    i += n;
    to += n;
  }
}

#if TB_BF16
// Eight bits, rounded to bfloat16.
void round_bytes(const Blocks& w, int64_t block, int64_t blocks, float* to) {
  for (int64_t b = block; b < block + blocks; b++, to += W) {
    const uint8_t* q = w.q + b * kBlock;
    __builtin_prefetch(q + kAhead);
    const float scale = to_float(w.scale[b]);
    store(to, Rounded::pack(signed_codes(q) * scale, signed_codes(q + W) * scale));
  }
}

// Four bits, rounded to bfloat16: a block's sixteen values are rounded once, then looked up by its low and its high nibbles.
void round_nibbles(const Blocks& w, int64_t block, int64_t blocks, float* to) {
  const vf numbers = to_float(lanes());
  alignas(64) static constexpr uint16_t shifts[32] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4};
  const __m512i shift = _mm512_load_si512(shifts);
  constexpr int64_t kMost = 64;
  alignas(64) float scale[kMost], minimum[kMost];
  for (int64_t first = block, end = block + blocks; first < end; first += kMost) {
    const int64_t count = end - first < kMost ? end - first : kMost;
    widen(w.scale + first, count, scale);
    widen(w.minimum + first, count, minimum);
    const uint8_t* q = w.q + first * (kBlock / 2);
    for (int64_t b = 0; b < count; b++, q += kBlock / 2, to += W) {
      __builtin_prefetch(q + kAhead);
      const vf restored = numbers * scale[b] + minimum[b];
      const __m512i table = _mm512_maskz_broadcast_i64x4(0xff, (__m256i)_mm512_cvtneps_pbh((__m512)restored));
      const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
      const __m512i index = _mm512_maskz_srlv_epi16(~0u, _mm512_maskz_cvtepu8_epi16(~0u, twice), shift);
      store(to, (vf)_mm512_maskz_permutexvar_epi16(~0u, index, table));
    }
  }
}
#endif

template <class P>
void Blocks::words(int64_t row, int64_t from, int64_t count, float* to) const {
#if TB_BF16
  if (P::kPair == 2 && count % kBlock == 0) {
    const int64_t first = (row * cols + from) / kBlock;
    return bits == 4 ? round_nibbles(*this, first, count / kBlock, to) : round_bytes(*this, first, count / kBlock, to);
  }
#endif
  words_through_floats<P>(*this, row, from, count, to);
}

Blocks open_blocks(const Ref& q, const Ref& scale, const Ref& minimum, int64_t rows, int64_t cols, int64_t bits) {
  check_size("rows", rows);
  check_size("cols", cols);
  if (cols % kBlock != 0) fail("cols must be a multiple of 32, but is %lld", (long long)cols);
  if (bits != 8 && bits != 4) fail("bits must be 8 or 4, but is %lld", (long long)bits);
  if ((bits == 4) != (bool)minimum) fail("blocks of 4 bits have a minimum, blocks of 8 bits have none");
  const int64_t n = product(rows, cols);
  check_tensor("q", q, n * bits / 8, DType::UInt8);
  check_tensor("scale", scale, n / kBlock, DType::Float16);
  if (minimum) check_tensor("minimum", minimum, n / kBlock, DType::Float16);
  return {q.u8(), static_cast<const f16*>(scale.data), static_cast<const f16*>(minimum.data), cols, bits};
}

void dequantize_blocks(const dequantize_blocks_args& g) {
  const Blocks w = open_blocks(g.q, g.scale, g.minimum, g.rows, g.cols, g.bits);
  check_tensor("y", g.y, product(g.rows, g.cols));
  parallel_pieces(g.rows, rows_of(16384, g.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) w.restore(r, 0, g.cols, g.y.f32() + r * g.cols);
  });
}

void embedding_blocks(const embedding_blocks_args& g) {
  const Blocks w = open_blocks(g.q, g.scale, g.minimum, g.vocab, g.dim, g.bits);
  check_size("rows", g.rows);
  check_tensor("ids", g.ids, g.rows, DType::Int32);
  check_tensor("y", g.y, product(g.rows, g.dim));
  parallel_pieces(g.rows, rows_of(16384, g.dim), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int32_t id = g.ids.i32()[r];
      if (id < 0 || id >= g.vocab) fail("id %d at row %lld is outside the vocabulary of %lld", id, (long long)r, (long long)g.vocab);
      w.restore(id, 0, g.dim, g.y.f32() + r * g.dim);
    }
  });
}

// One row of W against M rows of A. sums: the sum of A over each block, M rows of `blocks`, which the minima are multiplied with.
template <int M, int kBits>
void dot_row(const Blocks& w, const float* a, int64_t lda, const float* sums, int64_t row, float* scales, const Epilogue& e) {
  constexpr int64_t kStep = kBits == 8 ? W : 2 * W;  // elements of one step in a block
  const int64_t blocks = w.cols / kBlock;
  const uint8_t* q = w.q + row * w.row_bytes();
  __builtin_prefetch(reinterpret_cast<const char*>(w.scale + row * blocks) + kAhead / 8);
  widen(w.scale + row * blocks, blocks, scales);
  vf acc[M][2];  // blocks take turns: one sum would wait for itself
  for (int i = 0; i < M; i++) acc[i][0] = acc[i][1] = vf{};
  if (kBits == 4) {
    const f16* minimum = w.minimum + row * blocks;
    __builtin_prefetch(reinterpret_cast<const char*>(minimum) + kAhead / 8);
    for_vectors(blocks, [&](int64_t b, int64_t lanes) {
      const vf m = load_as(minimum + b, lanes);
      for (int i = 0; i < M; i++) acc[i][0] += m * load_to(sums + i * blocks + b, lanes);
    });
  }
  const auto add_block = [&](int64_t b, int turn) __attribute__((always_inline)) {
    const float* x = a + b * kBlock;
    const uint8_t* from = q + b * (kBlock * kBits / 8);
    vf sum[M];
TB_UNROLL(4)
    for (int i = 0; i < M; i++) sum[i] = vf{};
TB_UNROLL(8)
    for (int64_t p = 0; p < kBlock; p += kStep) {
      if (kBits == 8) {
        const vf v = signed_codes(from + p);
TB_UNROLL(4)
        for (int i = 0; i < M; i++) sum[i] += load(x + i * lda + p) * v;
      } else {
        vf low, high;
        nibbles(from + p / 2, low, high);
TB_UNROLL(4)
        for (int i = 0; i < M; i++) {
          sum[i] += load(x + i * lda + p / 2) * low;
          sum[i] += load(x + i * lda + p / 2 + kBlock / 2) * high;
        }
      }
    }
TB_UNROLL(4)
    for (int i = 0; i < M; i++) acc[i][turn] += sum[i] * scales[b];
  };
  int64_t b = 0;
  for (; b + 2 <= blocks; b += 2) {
    __builtin_prefetch(q + b * (kBlock * kBits / 8) + kAhead);
    add_block(b, 0);
    add_block(b + 1, 1);
  }
  if (b < blocks) add_block(b, 0);
  for (int i = 0; i < M; i++) finish(e, i, row, hsum(acc[i][0] + acc[i][1]));
}

template <int M, int kBits>
void gemv_blocks(int64_t rows, const float* a, int64_t lda, const Blocks& w, const Epilogue& e) {
  const int64_t blocks = w.cols / kBlock;
  float* sums = scratch_f32(6, (M + 1) * blocks);
  if (kBits == 4) {
    for (int i = 0; i < M; i++) {
      for (int64_t b = 0; b < blocks; b++) {
        vf s = {};
        for (int64_t p = 0; p < kBlock; p += W) s += load(a + i * lda + b * kBlock + p);
        sums[i * blocks + b] = hsum(s);
      }
    }
  }
  weight_rows(rows, w.row_bytes(), [&](int64_t begin, int64_t end) {
    float* scales = scratch_f32(7, blocks);
    for (int64_t j = begin; j < end; j++) dot_row<M, kBits>(w, a, lda, sums, j, scales, e);
  });
}

template <int M>
void gemv_of(int64_t rows, const float* a, int64_t lda, const Blocks& w, const Epilogue& e) {
  if (w.bits == 8) {
    gemv_blocks<M, 8>(rows, a, lda, w, e);
  } else {
    gemv_blocks<M, 4>(rows, a, lda, w, e);
  }
}

void gemm_blocks(const gemm_blocks_args& g) {
  const Blocks w = open_blocks(g.q, g.scale, g.minimum, g.rows, g.cols, g.bits);
  const FrozenProduct p = open_product(g);
#if TB_BF16
  // Up to four rows stay in float32: packed models promise the logits of the restored ones there. From nine rows on, short rows of the weight are
  // better restored once.
  if (!p.few && takes_pairs(p) && (p.m <= kPairM || p.k >= 1024)) {
    return few_block_pairs(p.m, p.n, p.a, w.q, w.scale, w.minimum, w.cols, p.e);
  }
#endif
  if (p.few) return with_rows(p.m, [&](auto M) { gemv_of<decltype(M)::value>(p.n, g.a.f32(), g.lda, w, p.e); });
  gemm_frozen(p, w, w.row_bytes());
}

}  // namespace

void register_blocks(Backend& b) {
  b.gemm_blocks = gemm_blocks;
  b.dequantize_blocks = dequantize_blocks;
  b.embedding_blocks = embedding_blocks;
}

}  // namespace TB_ISA
}  // namespace tunebook
