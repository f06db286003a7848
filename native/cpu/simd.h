// Vectors of the compiler (GCC and clang vector extensions) with the few operations that need an intrinsic. W floats a vector: 16, 8 or 4.
#pragma once
#include <cstdint>
#include <cstring>

#include "parallel.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace tunebook {
namespace TB_ISA {

#if TB_AVX512
constexpr int W = 16;
#elif TB_AVX2
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef uint32_t vu __attribute__((vector_size(W * 4)));

#if TB_AVX512
constexpr __mmask16 kAll = 0xffff;  // the unmasked intrinsics make g++ 12 warn of uninitialised values; the code is the same
#endif

#define TB_INLINE static inline __attribute__((always_inline))

TB_INLINE vf splat(float x) { return x - vf{}; }  // x - 0 keeps every value, -0 too
TB_INLINE vi splat_i(int32_t x) { return x + vi{}; }
TB_INLINE vf load(const float* p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
TB_INLINE vi load_i(const int32_t* p) {
  vi v;
  memcpy(&v, p, sizeof v);
  return v;
}
TB_INLINE void store(float* p, vf v) { memcpy(p, &v, sizeof v); }
TB_INLINE vi bits(vf v) { return (vi)v; }
TB_INLINE vf from_bits(vi v) { return (vf)v; }
TB_INLINE vf to_float(vi v) { return __builtin_convertvector(v, vf); }
TB_INLINE vi lanes() {
  vi v;
  for (int i = 0; i < W; ++i) v[i] = i;
  return v;
}

// The first n (0 < n < W) lanes; the others read as zero and are not written.
TB_INLINE vf load_n(const float* p, int64_t n) {
#if TB_AVX512
  return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif TB_AVX2
  return (vf)_mm256_maskload_ps(p, (__m256i)(lanes() < splat_i((int32_t)n)));
#else
  vf v = {};
  for (int i = 0; i < W; ++i)
    if (i < n) v[i] = p[i];
  return v;
#endif
}
TB_INLINE void store_n(float* p, vf v, int64_t n) {
#if TB_AVX512
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif TB_AVX2
  _mm256_maskstore_ps(p, (__m256i)(lanes() < splat_i((int32_t)n)), (__m256)v);
#else
  for (int i = 0; i < W; ++i)
    if (i < n) p[i] = v[i];
#endif
}

// As the hardware's: where a or b is NaN the result is b.
TB_INLINE vf vmax(vf a, vf b) {
#if TB_AVX512
  return (vf)_mm512_maskz_max_ps(kAll, (__m512)a, (__m512)b);
#elif TB_AVX2
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (vf)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}
TB_INLINE vf vmin(vf a, vf b) {
#if TB_AVX512
  return (vf)_mm512_maskz_min_ps(kAll, (__m512)a, (__m512)b);
#elif TB_AVX2
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (vf)_mm_min_ps((__m128)a, (__m128)b);
#else
  return a < b ? a : b;
#endif
}
TB_INLINE vf vsqrt(vf a) {
#if TB_AVX512
  return (vf)_mm512_maskz_sqrt_ps(kAll, (__m512)a);
#elif TB_AVX2
  return (vf)_mm256_sqrt_ps((__m256)a);
#elif defined(__SSE2__)
  return (vf)_mm_sqrt_ps((__m128)a);
#else
  for (int i = 0; i < W; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
#endif
}
TB_INLINE vf vabs(vf a) { return from_bits(bits(a) & 0x7fffffff); }
TB_INLINE vf copysign_v(vf magnitude, vf sign) { return from_bits((bits(magnitude) & 0x7fffffff) | (bits(sign) & (int32_t)0x80000000)); }

TB_INLINE float hsum(vf v) {
#if TB_AVX512
  const __m512 a = (__m512)v;
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_maskz_extractf32x8_ps(0xff, a, 1));
#elif TB_AVX2
  const __m256 h = (__m256)v;
#endif
#if TB_AVX2
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
#else
  return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}
TB_INLINE float hmax(vf v) {
  float m = v[0];
  for (int i = 1; i < W; ++i) m = m > v[i] ? m : v[i];
  return m;
}

// Forces x to its rounded float32 value, so that the compiler does not fuse the product into a following sum: bitsandbytes rounds twice.
TB_INLINE float rounded(float x) {
#if defined(__x86_64__)
  __asm__("" : "+x"(x));
#elif defined(__aarch64__)
  __asm__("" : "+w"(x));
#endif
  return x;
}

TB_INLINE vf rounded(vf x) {
#if TB_AVX512
  __asm__("" : "+v"(x));
#elif defined(__x86_64__)
  __asm__("" : "+x"(x));
#else
  for (int i = 0; i < W; ++i) x[i] = rounded(x[i]);
#endif
  return x;
}

// Calls f(i, lanes) for the vectors of [0, n): lanes is W, or what is left at the end.
template <class F>
TB_INLINE void for_vectors(int64_t n, F f) {
  int64_t i = 0;
  for (; i + W <= n; i += W) f(i, (int64_t)W);
  if (i < n) f(i, n - i);
}
TB_INLINE vf load_to(const float* p, int64_t n) { return n == W ? load(p) : load_n(p, n); }
TB_INLINE void store_to(float* p, vf v, int64_t n) {
  if (n == W) store(p, v);
  else store_n(p, v, n);
}

// f over fixed pieces of [0, n): the borders, and so the rounding of vector and remainder code, do not depend on the number of threads.
template <class F>
inline void parallel_pieces(int64_t n, int64_t piece, F&& f) {
  if (n <= 0) return;
  if (n <= piece) {
    f(int64_t{0}, n);
    return;
  }
  parallel_tasks((n + piece - 1) / piece, [&](int64_t i) {
    const int64_t begin = i * piece;
    f(begin, begin + piece < n ? begin + piece : n);
  });
}
// The piece of rows whose elements number about `elements`.
TB_INLINE int64_t rows_of(int64_t elements, int64_t cols) {
  const int64_t r = elements / (cols > 0 ? cols : 1);
  return r > 0 ? r : 1;
}

}  // namespace TB_ISA
}  // namespace tunebook
