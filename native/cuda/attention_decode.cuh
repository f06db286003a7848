// Attention of few queries over many keys (decoding): bound by reading k and v once. A block takes one query row, up to 8 heads of one kv
// head and a share of the keys; the last block of a row to finish adds the shares, in their order (Flash-Decoding, Dao et al. 2023).
// The keys and values may be of another type than the queries: of 16 bits, or codes of 8 bits with a scale for each token and kv head.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

namespace tunebook {
namespace cuda {
namespace decode {

constexpr int kThreads = 128, kWarps = kThreads / 32, kKeys = 32, kHeads = 8;
constexpr int kMostShares = 64, kMostPlaces = 1024;

// Blocks of a place (row, kv head, up to 8 heads) that are done; zero between ops.
static __device__ int32_t finished[kMostPlaces];

template <class C> __device__ inline float item(C v) { return to_float(v); }
template <> __device__ inline float item<int8_t>(int8_t v) { return (float)v; }

template <class T, class C> struct Args {
  ForwardArgs<T> f;
  const C *k, *v;
  const float *k_absmax, *v_absmax;  // of codes: k_rows x kv_heads
  float* part;          // rows x heads x shares x width
  float2* part_sums;    // rows x heads x shares: the largest score (in units of log2), the sum
  int32_t shares, places_a_row, head_groups, columns;
  int32_t pitch, width;  // items of a row in shared memory, head_dim to whole float4
  bool aligned;
  Fault* fault;
};

// The sequence that owns the row; none: no keys. Every thread of the block gets it.
template <class P> __device__ Span find_span(const P& p, int row) {
  __shared__ Span span;
  __shared__ int owner;
  const AttentionSizes& a = p.f.a;
  if (threadIdx.x == 0) {
    owner = -1;
    span = Span{row, 1, 0, 0};
  }
  __syncthreads();
  for (int s = threadIdx.x; s < a.sequences; s += kThreads) {
    const Span r{a.q_begin[s], a.q_len[s], a.k_begin[s], a.k_len[s]};
    const bool q_bad = r.q_begin < 0 || r.q_len < 0 || (int64_t)r.q_begin + r.q_len > a.q_rows;
    const bool k_bad = r.k_begin < 0 || r.k_len < 0 || (int64_t)r.k_begin + r.k_len > a.k_rows;
    if (q_bad) raise(p.fault, kBadSequence, s, r.q_begin + r.q_len, a.q_rows);
    else if (k_bad) raise(p.fault, kBadSequence, s, r.k_begin + r.k_len, a.k_rows);
    else if (row >= r.q_begin && row < r.q_begin + r.q_len) {
      if (atomicExch(&owner, s) == -1) span = r;
      else raise(p.fault, kSharedRow, s, row, a.q_rows);
    }
  }
  __syncthreads();
  return span;
}

// kKeys rows of k or v; zeros from row `valid` and column head_dim on.
template <class C, class P> __device__ void stage(C* to, const C* from, int64_t stride, int valid, const P& p) {
  constexpr int kPack = 16 / (int)sizeof(C);
  const int head_dim = p.f.a.head_dim, packs = (head_dim + kPack - 1) / kPack;
  for (int i = threadIdx.x; i < kKeys * packs; i += kThreads) {
    const int key = i / packs, col = i % packs * kPack;
    C* const place = to + key * p.pitch + col;
    const C* const source = from + key * stride + col;
    if (p.aligned) {
      copy_async_16(shared_address(place), key < valid ? source : from, key < valid ? 16 : 0);
    } else {
      for (int e = 0; e < kPack; ++e) place[e] = key < valid && col + e < head_dim ? source[e] : C{};
    }
  }
}

// Scores of this lane's key with one head's query.
template <class C> __device__ float score(const C* k, const float* q, int packs) {
  constexpr int kPack = 16 / (int)sizeof(C);
  float even = 0.0f, odd = 0.0f;
#pragma unroll 4
  for (int c = 0; c < packs; ++c) {
    const Pack<C> x = load_pack(k + c * kPack);
#pragma unroll
    for (int e = 0; e < kPack; e += 4) {
      const float4 y = *reinterpret_cast<const float4*>(q + c * kPack + e);
      even += item(x.v[e]) * y.x + item(x.v[e + 2]) * y.z;
      odd += item(x.v[e + 1]) * y.y + item(x.v[e + 3]) * y.w;
    }
  }
  return even + odd;
}

template <class T, class C> __device__ void add_shares(const Args<T, C>& p, int row, int head0, int heads, int used, float* weights) {
  const AttentionSizes& a = p.f.a;
  const int lane = threadIdx.x % 32;
  for (int h = threadIdx.x / 32; h < heads; h += kWarps) {
    const float2* sums = p.part_sums + ((int64_t)row * a.heads + head0 + h) * p.shares;
    float most = -INFINITY;
    for (int s = lane; s < used; s += 32) most = fmaxf(most, sums[s].x);
    most = warp_reduce(most, Max());
    const float shift = most == -INFINITY ? 0.0f : most;
    float sum = 0.0f;
    for (int s = lane; s < used; s += 32) {
      const float w = exp2f(sums[s].x - shift);
      weights[h * kMostShares + s] = w;
      sum += sums[s].y * w;
    }
    sum = warp_reduce(sum, Sum());
    __syncwarp();
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (int s = lane; s < used; s += 32) weights[h * kMostShares + s] *= inverse;
    if (lane == 0 && p.f.lse != nullptr) p.f.lse[(int64_t)row * a.heads + head0 + h] = most * kLn2 + logf(sum);
  }
  __syncthreads();
  const int fours = p.width / 4;
  for (int i = threadIdx.x; i < heads * fours; i += kThreads) {
    const int h = i / fours, col = i % fours * 4;
    const float* from = p.part + ((int64_t)row * a.heads + head0 + h) * p.shares * p.width + col;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
    for (int s = 0; s < used; ++s) {
      const float4 x = *reinterpret_cast<const float4*>(from + (int64_t)s * p.width);
      const float w = weights[h * kMostShares + s];
      sum.x += x.x * w, sum.y += x.y * w, sum.z += x.z * w, sum.w += x.w * w;
    }
    T* to = p.f.o + row * a.o_stride + (head0 + h) * a.head_dim + col;
    to[0] = from_float<T>(sum.x);
    if (col + 1 < a.head_dim) to[1] = from_float<T>(sum.y);
    if (col + 2 < a.head_dim) to[2] = from_float<T>(sum.z);
    if (col + 3 < a.head_dim) to[3] = from_float<T>(sum.w);
  }
}

struct Layout {
  int64_t queries, weights, rescale, sums, bytes;  // after the two halves of k and of v
};
template <class C> __host__ __device__ Layout layout_of(int pitch) {
  Layout l;
  int64_t rows = (int64_t)4 * kKeys * pitch * (int64_t)sizeof(C);
  const int64_t least = kThreads * 2 * kHeads * 4;  // the same memory adds the key groups' outputs at the end
  if (rows < least) rows = least;
  l.queries = rows;
  l.weights = l.queries + kHeads * pitch * 4;
  l.rescale = l.weights + kKeys * kHeads * 4;
  l.sums = l.rescale + kHeads * 4;
  l.bytes = l.sums + kHeads * 8;
  return l;
}

template <class T, class C> __global__ void __launch_bounds__(kThreads) attend(Args<T, C> p) {
  constexpr int kPack = 16 / (int)sizeof(C);
  constexpr bool kCodes = sizeof(C) == 1;
  const AttentionSizes& a = p.f.a;
  const int share = blockIdx.x % p.shares, place = blockIdx.x / p.shares, row = place / p.places_a_row;
  const int kv = place % p.places_a_row / p.head_groups, group0 = place % p.head_groups * kHeads;
  const int head0 = kv * a.group + group0, heads = min(kHeads, a.group - group0);
  const Span span = find_span(p, row);
  const int i = row - span.q_begin, low = span.low(a, i), all = max(span.high(a, i) + 1 - low, 0);
  const int each = ((all + p.shares - 1) / p.shares + kKeys - 1) / kKeys * kKeys, used = all > 0 ? (all + each - 1) / each : 0;
  const int begin = low + share * each, end = min(begin + each, low + all), tiles = end > begin ? (end - begin + kKeys - 1) / kKeys : 0;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, packs = (a.head_dim + kPack - 1) / kPack;

  char* const shared = shared_memory();
  const Layout at = layout_of<C>(p.pitch);
  C *const k = reinterpret_cast<C*>(shared), *const v = k + 2 * kKeys * p.pitch;
  float *const q = reinterpret_cast<float*>(shared + at.queries), *const weights = reinterpret_cast<float*>(shared + at.weights);
  float *const rescale = reinterpret_cast<float*>(shared + at.rescale), *const sums = reinterpret_cast<float*>(shared + at.sums);
  const auto stage_keys = [&](int n) {
    const int from = begin + n * kKeys, half = (n & 1) * kKeys * p.pitch;
    const int64_t key = span.k_begin + from;
    stage(k + half, p.k + key * a.k_stride + kv * a.head_dim, a.k_stride, end - from, p);
    stage(v + half, p.v + key * a.v_stride + kv * a.head_dim, a.v_stride, end - from, p);
  };
  if (tiles > 0) stage_keys(0);
  copy_commit();
  for (int n = threadIdx.x; n < heads * packs * kPack; n += kThreads) {
    const int h = n / (packs * kPack), d = n % (packs * kPack);
    q[h * p.pitch + d] = d < a.head_dim ? to_float(p.f.q[row * a.q_stride + (head0 + h) * a.head_dim + d]) * (a.scale * kLog2e) : 0.0f;
  }

  // First a lane is a key and a warp has two heads, then a thread is a pair of columns of every `groups`-th key.
  const int column = threadIdx.x % p.columns, key_group = threadIdx.x / p.columns, groups = kThreads / p.columns;
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f}, out[kHeads][2] = {};
  for (int n = 0; n < tiles; ++n) {
    copy_wait<0>();
    __syncthreads();
    if (n + 1 < tiles) stage_keys(n + 1);
    copy_commit();
    const int half = (n & 1) * kKeys * p.pitch;
    const bool there = begin + n * kKeys + lane < end;
    float k_unit = 1.0f, v_unit = 1.0f;
    if (kCodes && there) {
      const int64_t token = (int64_t)(span.k_begin + begin + n * kKeys + lane) * a.kv_heads + kv;
      k_unit = p.k_absmax[token] * (1.0f / 127.0f), v_unit = p.v_absmax[token] * (1.0f / 127.0f);
    }
#pragma unroll
    for (int w = 0; w < 2; ++w) {
      const int h = warp + w * kWarps;
      if (h >= heads) {
        weights[lane * kHeads + h] = 0.0f;
        if (lane == 0) rescale[h] = 1.0f;
        continue;
      }
      const float s = there ? score(k + half + lane * p.pitch, q + h * p.pitch, packs) * k_unit : -INFINITY;
      const float most = fmaxf(top[w], warp_reduce(s, Max())), shift = most == -INFINITY ? 0.0f : most;
      const float factor = exp2f(top[w] - shift), weight = exp2f(s - shift);
      top[w] = most;
      sum[w] = sum[w] * factor + warp_reduce(weight, Sum());
      weights[lane * kHeads + h] = weight * v_unit;
      if (lane == 0) rescale[h] = factor;
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < kHeads; ++h) out[h][0] *= rescale[h], out[h][1] *= rescale[h];
    if (column * 2 < packs * kPack) {
#pragma unroll 4
      for (int key = key_group; key < kKeys; key += groups) {
        const C* pair = v + half + key * p.pitch + column * 2;
        const float x = item(pair[0]), y = item(pair[1]);
        const float4 w0 = *reinterpret_cast<const float4*>(weights + key * kHeads);
        out[0][0] += w0.x * x, out[0][1] += w0.x * y, out[1][0] += w0.y * x, out[1][1] += w0.y * y;
        out[2][0] += w0.z * x, out[2][1] += w0.z * y, out[3][0] += w0.w * x, out[3][1] += w0.w * y;
        if (heads > 4) {
          const float4 w1 = *reinterpret_cast<const float4*>(weights + key * kHeads + 4);
          out[4][0] += w1.x * x, out[4][1] += w1.x * y, out[5][0] += w1.y * x, out[5][1] += w1.y * y;
          out[6][0] += w1.z * x, out[6][1] += w1.z * y, out[7][0] += w1.w * x, out[7][1] += w1.w * y;
        }
      }
    }
  }

  copy_wait<0>();
  __syncthreads();  // k's and v's memory is used again, for columns x heads x key groups
  float* const parts = reinterpret_cast<float*>(shared);
  const int line = 2 * p.columns;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    parts[(key_group * kHeads + h) * line + 2 * column] = out[h][0];
    parts[(key_group * kHeads + h) * line + 2 * column + 1] = out[h][1];
  }
#pragma unroll
  for (int w = 0; w < 2; ++w)
    if (lane == 0) sums[2 * (warp + w * kWarps)] = top[w], sums[2 * (warp + w * kWarps) + 1] = sum[w];
  __syncthreads();
  for (int n = threadIdx.x; n < heads * p.width; n += kThreads) {
    const int h = n / p.width, d = n % p.width, head = head0 + h;
    float total = 0.0f;
    if (d < line)
      for (int g = 0; g < groups; ++g) total += parts[(g * kHeads + h) * line + d];
    const float whole = sums[2 * h + 1];
    if (p.shares > 1) p.part[(((int64_t)row * a.heads + head) * p.shares + share) * p.width + d] = total;
    else if (d < a.head_dim) p.f.o[row * a.o_stride + head * a.head_dim + d] = from_float<T>(whole == 0.0f ? 0.0f : total / whole);
    if (d != 0) continue;
    if (p.shares > 1) p.part_sums[((int64_t)row * a.heads + head) * p.shares + share] = make_float2(sums[2 * h], whole);
    else if (p.f.lse != nullptr) p.f.lse[(int64_t)row * a.heads + head] = sums[2 * h] * kLn2 + logf(whole);
  }
  if (p.shares == 1) return;

  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&finished[place], 1) == p.shares - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  add_shares(p, row, head0, heads, used, parts);  // kHeads x kMostShares floats
  if (threadIdx.x == 0) finished[place] = 0;
}

}  // namespace decode

// `f`, `k`, `v` and `k_absmax`, `v_absmax` of `p` are set.
template <class T, class C> void launch_decode(const char* name, decode::Args<T, C>& p) {
  constexpr int kPack = 16 / (int)sizeof(C);
  const AttentionSizes& a = p.f.a;
  p.head_groups = (a.group + decode::kHeads - 1) / decode::kHeads;
  p.places_a_row = a.kv_heads * p.head_groups;
  const int64_t places = (int64_t)a.q_rows * p.places_a_row;
  int64_t shares = 2 * (int64_t)device.multiprocessors / places;
  if (shares > blocks_for(a.k_rows, decode::kKeys)) shares = blocks_for(a.k_rows, decode::kKeys);
  if (shares > decode::kMostShares) shares = decode::kMostShares;
  if (shares < 1 || places > decode::kMostPlaces) shares = 1;
  p.shares = (int32_t)shares;
  p.width = (a.head_dim + 3) / 4 * 4;
  p.pitch = (((a.head_dim + kPack - 1) / kPack) | 1) * kPack;  // an odd number of 16-byte groups, so that 8 keys lie in different banks
  p.columns = 16;
  while (p.columns * 2 < p.width) p.columns *= 2;
  p.aligned = a.head_dim % kPack == 0 && packed<C>(p.k, a.k_stride) && packed<C>(p.v, a.v_stride);
  p.fault = faults();
  if (shares > 1) {
    const int64_t n = (int64_t)a.q_rows * a.heads * shares;
    p.part = scratch_of<float>(kPartials, n * (p.width + 2));
    p.part_sums = reinterpret_cast<float2*>(p.part + n * p.width);
  }
  launch(name, decode::attend<T, C>, places * shares, decode::kThreads, decode::layout_of<C>(p.pitch).bytes, p);
}

}  // namespace cuda
}  // namespace tunebook
