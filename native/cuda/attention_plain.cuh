// Attention without tensor cores: float32 arithmetic for every dtype, stride and head_dim up to 256. A block of 16 x 16 threads works on a
// square of `kTile` queries x keys; a thread holds rows y + 16 r and columns x + 16 c of it.
#pragma once
#include "attention.cuh"

namespace tunebook {
namespace cuda {
namespace plain {

constexpr int kThreads = 256;

template <int D> struct Rows {
  static constexpr int kPitch = D + 4;  // floats; an odd number of 16-byte groups, so that 8 rows lie in different banks
};

// rows x D floats from `from`; zeros from row `valid` and column head_dim on.
template <class T, int D> __device__ void load_rows(float* to, const T* from, int64_t stride, int rows, int valid, int head_dim) {
  constexpr int kSize = 4 * (int)sizeof(T);
  const bool fours = head_dim % 4 == 0 && stride % 4 == 0 && reinterpret_cast<uintptr_t>(from) % kSize == 0;
  struct alignas(kSize) Four { T v[4]; };
  for (int i = threadIdx.x; i < rows * (D / 4); i += kThreads) {
    const int row = i / (D / 4), col = i % (D / 4) * 4;
    float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const T* p = from + row * stride + col;
    if (row < valid && fours && col < head_dim) {
      const Four f = *reinterpret_cast<const Four*>(p);
      x = make_float4(to_float(f.v[0]), to_float(f.v[1]), to_float(f.v[2]), to_float(f.v[3]));
    } else if (row < valid && !fours) {
      if (col < head_dim) x.x = to_float(p[0]);
      if (col + 1 < head_dim) x.y = to_float(p[1]);
      if (col + 2 < head_dim) x.z = to_float(p[2]);
      if (col + 3 < head_dim) x.w = to_float(p[3]);
    }
    *reinterpret_cast<float4*>(to + row * Rows<D>::kPitch + col) = x;
  }
}

__device__ inline float4 four(const float* p) { return *reinterpret_cast<const float4*>(p); }

// c[r][j] += dot(a row y + 16 r, b row x + 16 j)
template <int D, int R> __device__ void dots(float (&c)[R][R], const float* a, const float* b, int y, int x) {
  constexpr int kPitch = Rows<D>::kPitch;
#pragma unroll 4
  for (int d = 0; d < D; d += 4) {
    float4 l[R], m[R];
#pragma unroll
    for (int r = 0; r < R; ++r) l[r] = four(a + (y + 16 * r) * kPitch + d), m[r] = four(b + (x + 16 * r) * kPitch + d);
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int j = 0; j < R; ++j) c[r][j] += l[r].x * m[j].x + l[r].y * m[j].y + l[r].z * m[j].z + l[r].w * m[j].w;
  }
}

// c[r][4 n + e] += sum over k of w[y + 16 r][k] * b[k][64 n + 4 x + e]; w has a pitch of kTile + 4 floats. Columns past D are left out.
template <int D, int R> __device__ void combine(float (&c)[R][D / 16], const float* w, const float* b, int y, int x) {
  constexpr int kTile = 16 * R, kPitch = Rows<D>::kPitch;
#pragma unroll 1
  for (int k = 0; k < kTile; k += 4) {
    float4 l[R];
#pragma unroll
    for (int r = 0; r < R; ++r) l[r] = four(w + (y + 16 * r) * (kTile + 4) + k);
#pragma unroll
    for (int n = 0; n < D / 64; ++n) {
      const float* p = b + k * kPitch + 64 * n + 4 * x;
      const float4 m0 = four(p), m1 = four(p + kPitch), m2 = four(p + 2 * kPitch), m3 = four(p + 3 * kPitch);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        c[r][4 * n] += l[r].x * m0.x + l[r].y * m1.x + l[r].z * m2.x + l[r].w * m3.x;
        c[r][4 * n + 1] += l[r].x * m0.y + l[r].y * m1.y + l[r].z * m2.y + l[r].w * m3.y;
        c[r][4 * n + 2] += l[r].x * m0.z + l[r].y * m1.z + l[r].z * m2.z + l[r].w * m3.z;
        c[r][4 * n + 3] += l[r].x * m0.w + l[r].y * m1.w + l[r].z * m2.w + l[r].w * m3.w;
      }
    }
  }
}

// Row y + 16 r of c, as `combine` left it, times factor.
template <class T, int D> __device__ void store_row(T* to, const float (&c)[D / 16], float factor, int x, int head_dim) {
#pragma unroll
  for (int n = 0; n < D / 64; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int col = 64 * n + 4 * x + e;
      if (col < head_dim) to[col] = from_float<T>(c[4 * n + e] * factor);
    }
}

// Over the 16 threads that share a row: half a warp.
template <class Op> __device__ float row_reduce(float v, Op op) {
#pragma unroll
  for (int o = 8; o > 0; o >>= 1) v = op(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}

template <class F> void with_width(int head_dim, F&& f) {
  if (head_dim <= 64) f(std::integral_constant<int, 64>());
  else if (head_dim <= 128) f(std::integral_constant<int, 128>());
  else f(std::integral_constant<int, 256>());
}

}  // namespace plain
}  // namespace cuda
}  // namespace tunebook
