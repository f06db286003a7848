// Neighbouring elements in one access, as float32 in registers; elements of a dtype known at run time; division by a fixed number.
#pragma once
#include "device.cuh"

namespace tunebook {
namespace cuda {

template <int kBytes> struct Word { using Type = uint4; };
template <> struct Word<8> { using Type = uint2; };
template <> struct Word<4> { using Type = uint32_t; };
template <> struct Word<2> { using Type = uint16_t; };
template <> struct Word<1> { using Type = uint8_t; };

// Elements that fit 16 bytes of the widest of the types: what a thread takes at once where tensors of several dtypes meet.
template <class A, class B = A> constexpr int width_of() { return 16 / (int)(sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B)); }

// N elements starting at p, which is aligned to all of them (or to 16 bytes, if they are more).
template <int N, class T> __device__ __forceinline__ void load_floats(const T* p, float (&v)[N]) {
  using W = typename Word<(int)sizeof(T) * N>::Type;
  constexpr int kWords = (int)(sizeof(T) * N / sizeof(W));
  union {
    W words[kWords];
    T items[N];
  } u;
#pragma unroll
  for (int i = 0; i < kWords; ++i) u.words[i] = reinterpret_cast<const W*>(p)[i];
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = to_float<T>(u.items[i]);
}
template <int N, class T> __device__ __forceinline__ void store_floats(T* p, const float (&v)[N]) {
  using W = typename Word<(int)sizeof(T) * N>::Type;
  constexpr int kWords = (int)(sizeof(T) * N / sizeof(W));
  union {
    W words[kWords];
    T items[N];
  } u;
#pragma unroll
  for (int i = 0; i < N; ++i) u.items[i] = from_float<T>(v[i]);
#pragma unroll
  for (int i = 0; i < kWords; ++i) reinterpret_cast<W*>(p)[i] = u.words[i];
}
// The first m of N elements one by one; the others read as zero and are not written.
template <int N, class T> __device__ __forceinline__ void load_some(const T* p, float (&v)[N], int64_t m) {
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = i < m ? to_float<T>(p[i]) : 0.0f;
}
template <int N, class T> __device__ __forceinline__ void store_some(T* p, const float (&v)[N], int64_t m) {
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (i < m) p[i] = from_float<T>(v[i]);
}

template <int N> __device__ __forceinline__ void each_is(float (&v)[N], float value) {
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = value;
}

// Whether every address and stride (in bytes, or elements times their size) is a multiple of `bytes`.
inline bool aligned(int64_t bytes, const void* a, const void* b = nullptr, const void* c = nullptr, const void* d = nullptr,
                    const void* e = nullptr) {
  const uintptr_t all = reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) | reinterpret_cast<uintptr_t>(c) |
                        reinterpret_cast<uintptr_t>(d) | reinterpret_cast<uintptr_t>(e);
  return all % (uintptr_t)bytes == 0;
}

// ---- a dtype known at run time: for what is not worth a kernel of its own ---------------------

// Towards zero; out of range: the nearest end; NaN: 0.
__host__ __device__ inline int32_t to_int32(float x) {
  return x >= 2147483648.0f ? 2147483647 : x < -2147483648.0f ? -2147483647 - 1 : x == x ? (int32_t)x : 0;
}
__host__ __device__ inline uint8_t to_uint8(float x) { return (uint8_t)(x >= 255.0f ? 255.0f : x > 0.0f ? x : 0.0f); }

__device__ inline float load_any(const void* p, DType t, int64_t i) {
  switch (t) {
    case DType::Float32: return static_cast<const float*>(p)[i];
    case DType::BFloat16: return to_float(static_cast<const __nv_bfloat16*>(p)[i]);
    case DType::Float16: return to_float(static_cast<const __half*>(p)[i]);
    case DType::Int32: return (float)static_cast<const int32_t*>(p)[i];
    case DType::UInt8: return (float)static_cast<const uint8_t*>(p)[i];
  }
  return 0.0f;
}
__device__ inline void store_any(void* p, DType t, int64_t i, float v) {
  switch (t) {
    case DType::Float32: static_cast<float*>(p)[i] = v; break;
    case DType::BFloat16: static_cast<__nv_bfloat16*>(p)[i] = from_float<__nv_bfloat16>(v); break;
    case DType::Float16: static_cast<__half*>(p)[i] = from_float<__half>(v); break;
    case DType::Int32: static_cast<int32_t*>(p)[i] = to_int32(v); break;
    case DType::UInt8: static_cast<uint8_t*>(p)[i] = to_uint8(v); break;
  }
}
// A weight that is float32 or of type T.
template <int N, class T> __device__ __forceinline__ void load_weight(const void* p, bool is_float32, int64_t i, float (&v)[N]) {
  if (is_float32) load_floats<N>(static_cast<const float*>(p) + i, v);
  else load_floats<N>(static_cast<const T*>(p) + i, v);
}

// ---- division ---------------------------------------------------------------------------------

// Quotients by a number that is the same for a whole launch: a multiplication below 2^31, a division above.
struct Divider {
  int64_t by = 1;
  uint32_t multiplier = 0, shift = 0;
  Divider() : Divider(1) {}
  explicit Divider(int64_t d) : by(d) {
    if (d >= (int64_t)1 << 31 || d < 1) return;
    while (((int64_t)1 << shift) < d) ++shift;
    multiplier = (uint32_t)((((uint64_t)1 << 32) * (((uint64_t)1 << shift) - (uint64_t)d)) / (uint64_t)d + 1);
  }
  __device__ __forceinline__ int64_t operator()(int64_t n) const {
    if (n < (int64_t)1 << 31 && by < (int64_t)1 << 31) return (__umulhi((uint32_t)n, multiplier) + (uint32_t)n) >> shift;
    return n / by;
  }
  // n / by, with the remainder left in n.
  __device__ __forceinline__ int64_t take(int64_t& n) const {
    const int64_t q = (*this)(n);
    n -= q * by;
    return q;
  }
};

}  // namespace cuda
}  // namespace tunebook
