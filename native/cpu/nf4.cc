// isa: portable avx2 avx512
// Quantising to 4 bits (NF4, FP4) and back, and the double quantisation of its scales.
#include "nf4.h"

namespace tunebook {
namespace TB_ISA {
namespace {

// The largest magnitude of a block. A NaN among the values makes it NaN: it must not disappear in a code.
float absmax_of(const float* x, int64_t n) {
  vf most = {};
  vi nan = {};
  for_vectors(n, [&](int64_t i, int64_t lanes) {
    const vf v = load_to(x + i, lanes);
    most = vmax(vabs(v), most);
    nan |= (vi)(v != v);
  });
  for (int i = 0; i < W; i++) {
    if (nan[i]) return __builtin_nanf("");
  }
  return hmax(most);
}

// The rank of each value among the ascending codes: how many borders lie strictly below it.
TB_INLINE vi encode(vf v, const float* sorted) {
#if TB_AVX512
  const __m512 borders = _mm512_load_ps(sorted);
  const __m512 x = (__m512)v;
  __m512i c = _mm512_setzero_si512();
  auto step = [&](int skip, int add) {
    const __m512 border = _mm512_maskz_permutexvar_ps(kAll, _mm512_add_epi32(c, _mm512_set1_epi32(skip)), borders);
    c = _mm512_mask_add_epi32(c, _mm512_cmp_ps_mask(x, border, _CMP_GT_OQ), c, _mm512_set1_epi32(add));
  };
  step(7, 8);
  step(3, 4);
  step(1, 2);
  step(0, 1);
  return (vi)c;
#else
  vi c = {};
  for (int i = 0; i < 15; i++) c -= (vi)(v > splat(sorted[i]));  // a true lane is -1
  return c;
#endif
}

// FP4's codes are no ranks: sign and magnitude. Ranks 0..7 go down from -1 to zero, 8..15 up from zero.
TB_INLINE vi fp4_of(vi rank) {
  vi code;
  for (int i = 0; i < W; i++) code[i] = kFp4Order[rank[i] & 15];
  return code;
}

void encode_block(const float* x, int64_t n, float absmax, int64_t kind, uint8_t* q) {
  const float inverse = absmax == 0 ? 0.0f : 1.0f / absmax;
  alignas(64) int32_t codes[W];
  static_assert(W % 2 == 0, "a vector fills whole bytes");
  for_vectors(n, [&](int64_t i, int64_t lanes) {
    const vf v = load_to(x + i, lanes) * inverse;
    vi c = encode(v, kind == 0 ? kNf4Borders : kFp4Borders);
    if (kind != 0) c = fp4_of(c);
#if TB_AVX512
    // Sixteen bytes, then pairs: the even one times 16 plus the odd one.
    const __m128i bytes = _mm512_maskz_cvtepi32_epi8(kAll, (__m512i)c);
    const __m128i pairs = _mm_maddubs_epi16(bytes, _mm_set1_epi16(0x0110));
    if (lanes == W) {
      _mm_storel_epi64(reinterpret_cast<__m128i*>(q + i / 2), _mm_packus_epi16(pairs, pairs));
      return;
    }
#endif
    memcpy(codes, &c, sizeof codes);
    if (lanes % 2 != 0) codes[lanes] = kind == 0 ? 7 : 0;  // beyond the end: zero
    for (int64_t l = 0; l < lanes; l += 2) q[(i + l) / 2] = static_cast<uint8_t>(codes[l] << 4 | codes[l + 1]);
  });
}

void quantize_nf4(const quantize_nf4_args& g) {
  if (g.x.dtype != DType::Float32) fail("x must be float32");
  check_quantize_nf4(g);
  const int64_t blocks = ceil_div(g.n, g.block);
  const float* x = g.x.f32();
  parallel_for(blocks, 256, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b++) {
      const int64_t at = b * g.block, n = g.n - at < g.block ? g.n - at : g.block;
      const float absmax = absmax_of(x + at, n);
      g.absmax.f32()[b] = absmax;
      encode_block(x + at, n, absmax, g.kind, g.q.u8() + at / 2);
    }
  });
}

void dequantize_nf4(const dequantize_nf4_args& g) {
  const Nf4 w = open_nf4(g.q, g.absmax, g.absmax2, g.offset, g.n, g.block, g.kind);
  if (g.y.dtype != DType::Float32 || g.y.bytes < g.n * 4) fail("y must be float32 with %lld elements", (long long)g.n);
  const int64_t blocks = ceil_div(g.n, g.block);
  parallel_for(blocks, 256, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * g.block, last = end * g.block < g.n ? end * g.block : g.n;
    decode(w, first, last - first, g.y.f32() + first);
  });
}

// The index of the value of the dynamic map nearest to x (the lower of two equally near).
uint8_t nearest(const float* map, float x) {
  int low = 0;  // the last index whose value is <= x
  for (int step = 128; step > 0; step /= 2) {
    if (low + step < 256 && map[low + step] <= x) low += step;
  }
  if (low < 255 && rounded(map[low + 1] - x) < rounded(x - map[low])) low++;
  return static_cast<uint8_t>(low);
}

void quantize_absmax(const quantize_absmax_args& g) {
  check_quantize_absmax(g);
  const int64_t groups = ceil_div(g.n, kAbsmaxBlock);
  const float* x = g.absmax.f32();
  double sum = 0;
  for (int64_t i = 0; i < g.n; i++) sum += x[i];
  const float offset = g.n > 0 ? static_cast<float>(sum / static_cast<double>(g.n)) : 0.0f;
  *g.offset.f32() = offset;
  const float* map = dynamic_map();
  parallel_for(groups, 8, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b++) {
      const int64_t at = b * kAbsmaxBlock, n = g.n - at < kAbsmaxBlock ? g.n - at : kAbsmaxBlock;
      float most = 0;
      for (int64_t i = 0; i < n; i++) {
        const float v = __builtin_fabsf(rounded(x[at + i] - offset));
        if (!(v <= most)) most = v;  // a NaN stays
        if (v != v) break;
      }
      g.absmax2.f32()[b] = most;
      for (int64_t i = 0; i < n; i++) {
        const float v = rounded(x[at + i] - offset);
        g.q.u8()[at + i] = nearest(map, most == 0 ? 0.0f : rounded(v * (1.0f / most)));
      }
    }
  });
}

}  // namespace

void register_nf4(Backend& b) {
  b.quantize_nf4 = quantize_nf4;
  b.dequantize_nf4 = dequantize_nf4;
  b.quantize_absmax = quantize_absmax;
}

}  // namespace TB_ISA
}  // namespace tunebook
