// Attention's backward row by row: what both passes need of a query (lse in units of log2, rowsum(do * o), its number for dropout), the
// rows that no sequence owns, and the sum of a group's parts.
#include "attention.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// Four neighbouring items as floats: one access where they are aligned.
template <class T> struct alignas(4 * sizeof(T)) Four { T v[4]; };

template <class T> __device__ float dot_of_row(const T* x, const T* y, int n, bool fours) {
  const int lane = threadIdx.x % 32;
  float sum = 0.0f;
  if (fours) {
    for (int i = lane * 4; i < n; i += 128) {
      const Four<T> a = *reinterpret_cast<const Four<T>*>(x + i), b = *reinterpret_cast<const Four<T>*>(y + i);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum += to_float(a.v[e]) * to_float(b.v[e]);
    }
  } else {
    for (int i = lane; i < n; i += 32) sum += to_float(x[i]) * to_float(y[i]);
  }
  return warp_reduce(sum, Sum());
}

template <class T> __device__ void zero_row(T* row, int n) {
  for (int i = threadIdx.x; i < n; i += kThreads) row[i] = from_float<T>(0.0f);
}

// One block a row, of queries as well as of keys.
template <class T> __global__ void __launch_bounds__(kThreads) prepare_rows(BackwardArgs<T> p) {
  const AttentionSizes& a = p.a;
  const int64_t row = blockIdx.x;
  if (row < a.q_rows) {
    const uintptr_t addresses = reinterpret_cast<uintptr_t>(p.o) | reinterpret_cast<uintptr_t>(p.d_o);
    const bool fours = a.head_dim % 4 == 0 && a.o_stride % 4 == 0 && addresses % sizeof(Four<T>) == 0;
    const bool owned = p.queries.owner[row] >= 0;
    for (int h = threadIdx.x / 32; h < a.heads; h += kWarps) {
      const int64_t at = row * a.o_stride + h * a.head_dim;
      const float delta = owned ? dot_of_row(p.o + at, p.d_o + at, a.head_dim, fours) : 0.0f;
      if (threadIdx.x % 32 == 0) {
        const float lse = p.lse[row * a.heads + h];
        p.delta[(int64_t)h * a.q_rows + row] = delta / a.kept;
        if (a.drops) p.numbers[(int64_t)h * a.q_rows + row] = number_of_row(a, row, h);
        p.lse2[(int64_t)h * a.q_rows + row] = lse == -INFINITY ? INFINITY : lse * kLog2e;  // no key: every probability is 2^-inf
      }
    }
    if (!owned) zero_row(p.dq + row * a.q_stride, a.heads * a.head_dim);
  }
  if (row < a.k_rows && p.keys.owner[row] < 0) {
    zero_row(p.dk + row * a.k_stride, a.kv_heads * a.head_dim);
    zero_row(p.dv + row * a.v_stride, a.kv_heads * a.head_dim);
  }
}

template <class T> __global__ void __launch_bounds__(kThreads) add_rows(BackwardArgs<T> p) {
  const AttentionSizes& a = p.a;
  const int64_t row = blockIdx.x, width = (int64_t)a.kv_heads * a.head_dim, apart = a.k_rows * width;
  if (p.keys.owner[row] < 0) return;  // zero already
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    float dk = 0.0f, dv = 0.0f;
    for (int part = 0; part < p.parts; ++part) {
      dk += p.dk_part[part * apart + row * width + i];
      dv += p.dv_part[part * apart + row * width + i];
    }
    p.dk[row * a.k_stride + i] = from_float<T>(dk);
    p.dv[row * a.v_stride + i] = from_float<T>(dv);
  }
}

}  // namespace

template <class T> BackwardArgs<T> backward_args(const attention_backward_args& op, const AttentionSizes& a) {
  BackwardArgs<T> p{};
  p.a = a;
  p.q = op.q.as<T>(), p.k = op.k.as<T>(), p.v = op.v.as<T>(), p.o = op.o.as<T>(), p.d_o = op.do_.as<T>();
  p.lse = op.lse.f32();
  p.dq = op.dq.as<T>(), p.dk = op.dk.as<T>(), p.dv = op.dv.as<T>();
  const int64_t n = (int64_t)a.heads * a.q_rows;
  p.lse2 = scratch_of<float>(kPartials2, (a.drops ? 3 : 2) * n);
  p.delta = p.lse2 + n;
  p.numbers = a.drops ? reinterpret_cast<uint32_t*>(p.delta + n) : nullptr;
  p.parts = 1;
  return p;
}

template <class T> void prepare_backward(const BackwardArgs<T>& p) {
  launch("attention's rows", prepare_rows<T>, p.a.q_rows > p.a.k_rows ? p.a.q_rows : p.a.k_rows, kThreads, 0, p);
}

template <class T> void add_parts(const BackwardArgs<T>& p) { launch("attention's parts", add_rows<T>, p.a.k_rows, kThreads, 0, p); }

#define TYPES(T)                                                                                              \
  template BackwardArgs<T> backward_args<T>(const attention_backward_args& op, const AttentionSizes& a);     \
  template void prepare_backward<T>(const BackwardArgs<T>& p);                                                \
  template void add_parts<T>(const BackwardArgs<T>& p);
TYPES(float)
TYPES(__nv_bfloat16)
TYPES(__half)
#undef TYPES

}  // namespace cuda
}  // namespace tunebook
