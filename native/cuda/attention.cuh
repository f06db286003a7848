// What the kernels of attention share: sizes, which keys a query sees, and the list of tiles that the device makes from the sequences.
#pragma once
#include "hash.cuh"
#include "launch.cuh"

namespace tunebook {
namespace cuda {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// The integers of both ops, by value in every kernel's arguments.
struct AttentionSizes {
  const int32_t *q_begin, *q_len, *k_begin, *k_len;
  int32_t sequences, q_rows, k_rows, heads, kv_heads, group, head_dim, causal, window;
  float scale;
  int64_t q_stride, k_stride, v_stride, o_stride;
  uint32_t seed, threshold;  // of dropout: products below the threshold drop
  float kept;                // what probabilities that are not dropped are multiplied by: kernels leave it to the end of their sums
  bool drops;
};

// Dropout, as ops.def has it.
__device__ inline uint32_t number_of_row(const AttentionSizes& a, int64_t row, int head) {
  return mix(a.seed + (uint32_t)(row * a.heads + head)) | 1;
}
__device__ inline uint32_t number_of_key(const AttentionSizes& a, int j) { return mix(a.seed ^ (uint32_t)(j + 1) * 0x9e3779b1u) | 1; }
__device__ inline bool is_dropped(const AttentionSizes& a, uint32_t of_row, uint32_t of_key) { return of_row * of_key < a.threshold; }

// Sets dropped values of a tile to 0: s is what this thread holds of kM x 16 rows, whose numbers are given, and of kChunks * 8 keys from k0 + 2t on (a
// fragment of mma.sync's result, t the lane's place among four).
template <int kM, int kChunks>
__device__ inline void drop_values(const AttentionSizes& a, float (&s)[kM][kChunks][4], const uint32_t (&numbers)[kM][2], int k0, int t) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const uint32_t of_key = number_of_key(a, k0 + c * 8 + 2 * t + e);
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
          if (is_dropped(a, numbers[m][h], of_key)) s[m][c][2 * h + e] = 0.0f;
    }
}

// One sequence: its rows, and which keys a query sees (indices within the sequence).
struct Span {
  int32_t q_begin, q_len, k_begin, k_len;
  __device__ int high(const AttentionSizes& a, int i) const { return a.causal ? k_len - q_len + i : k_len - 1; }
  __device__ int low(const AttentionSizes& a, int i) const { return a.window > 0 ? max(high(a, i) - a.window + 1, 0) : 0; }
  __device__ bool sees(const AttentionSizes& a, int i, int k) const { return k <= high(a, i) && k >= low(a, i); }
  // No query in [i0, i1] misses a key in [k0, k1].
  __device__ bool all_see(const AttentionSizes& a, int i0, int i1, int k0, int k1) const { return k1 <= high(a, i0) && k0 >= low(a, i1); }
  // No query in [i0, i1] sees any key in [k0, k1].
  __device__ bool none_sees(const AttentionSizes& a, int i0, int i1, int k0, int k1) const { return k0 > high(a, i1) || k1 < low(a, i0); }
  // Queries [*begin, *end) that see a key in [k0, k1].
  __device__ void queries_of(const AttentionSizes& a, int k0, int k1, int* begin, int* end) const {
    const int shift = k_len - q_len;
    *begin = a.causal ? max(k0 - shift, 0) : 0;
    *end = q_len;
    if (a.window > 0) {
      if (a.causal) *end = min(q_len, k1 + a.window - shift);
      else if (k1 < k_len - a.window) *end = 0;
    }
  }
};

// Some queries (or keys) of one sequence: `count` of them from index `first` on.
struct alignas(16) Tile {
  Span span;
  int32_t first, count, unused0, unused1;
};

// The device knows how long the sequences are, the host does not: a kernel of one block lists the tiles, those with the most work first,
// and the kernels that follow are launched for the most tiles there can be. owner[row] is the sequence of a row, -1: none.
struct TilePlan {
  int32_t* count;  // tiles in the list
  int32_t* owner;
  Tile* tiles;
  int64_t most;    // tiles that there can be
};

// Both lists live in scratch memory until the next op. k_tile 0: no list of key tiles.
struct AttentionPlan {
  TilePlan queries, keys;
};
AttentionPlan plan_attention(const AttentionSizes& a, int q_tile, int k_tile);

// Rows of the tensors' memory that no sequence owns become zero (lse: -infinity).
struct UnownedRows {
  void *data[2];          // nullptr: none
  int64_t stride[2];      // bytes
  int32_t width[2];       // bytes
  float* lse;
  int32_t heads, rows;
  const int32_t* owner;
};
void zero_unowned(const UnownedRows& rows);

template <class T> struct ForwardArgs {
  AttentionSizes a;
  TilePlan plan;
  const T *q, *k, *v;
  T* o;
  float* lse;
};

// Of both passes of the gradient.
template <class T> struct BackwardArgs {
  AttentionSizes a;
  TilePlan queries, keys;
  const T *q, *k, *v, *o, *d_o;
  const float* lse;
  T *dq, *dk, *dv;
  float *lse2, *delta;    // heads x q_rows: lse in units of log2 (+infinity where no key is seen), rowsum(do * o) / kept
  uint32_t* numbers;      // heads x q_rows: those of dropout
  float *dk_part, *dv_part;  // parts x k_rows x kv_heads x head_dim where several blocks share the heads of a group
  int32_t parts;
};

// Forward.
template <class T> void attention_tensor_cores(const attention_args& op, const AttentionSizes& a);  // 16-bit, aligned
template <class T> void attention_plain(const attention_args& op, const AttentionSizes& a);         // everything
template <class T> void attention_decode(const attention_args& op, const AttentionSizes& a);        // few queries
// Backward.
template <class T> void attention_backward_tensor_cores(const attention_backward_args& op, const AttentionSizes& a);
template <class T> void attention_backward_plain(const attention_backward_args& op, const AttentionSizes& a);
template <class T> BackwardArgs<T> backward_args(const attention_backward_args& op, const AttentionSizes& a);
// lse2, delta, and zero in the rows of dq, dk and dv that no sequence owns.
template <class T> void prepare_backward(const BackwardArgs<T>& args);
// dk and dv from their parts, in the order of the parts.
template <class T> void add_parts(const BackwardArgs<T>& args);

// ---- the ops' arguments -------------------------------------------------------------------

inline int64_t span_of(int64_t rows, int64_t cols, int64_t stride) { return rows <= 0 ? 0 : (rows - 1) * stride + cols; }

inline void check_operand(const char* name, const Ref& t, int64_t elements, DType dtype) {
  if (t.dtype != dtype) {
    fail("%s has another dtype than expected: q, k, v and their gradients share one, lse is float32, lengths are int32", name);
  }
  const int64_t have = t.bytes / (int64_t)size_of(dtype);
  if (elements > have || (elements > 0 && t.data == nullptr))
    fail("%s holds %lld elements, expected at least %lld", name, (long long)have, (long long)elements);
}

template <class Args> AttentionSizes checked_sizes(const Args& a) {
  const struct { const char* name; int64_t value, least; } sizes[] = {
      {"sequences", a.sequences, 0}, {"q_rows", a.q_rows, 0}, {"k_rows", a.k_rows, 0}, {"heads", a.heads, 1},
      {"kv_heads", a.kv_heads, 1}, {"head_dim", a.head_dim, 1}, {"window", a.window, 0}};
  for (const auto& s : sizes)
    if (s.value < s.least || s.value > INT32_MAX / 2)
      fail("%s is %lld, expected %lld or more (and 30 bits)", s.name, (long long)s.value, (long long)s.least);
  if (a.head_dim > 256) fail("head_dim is %lld, expected at most 256", (long long)a.head_dim);
  if (a.heads % a.kv_heads != 0) fail("heads %lld is no multiple of kv_heads %lld", (long long)a.heads, (long long)a.kv_heads);
  const int64_t q_width = a.heads * a.head_dim, k_width = a.kv_heads * a.head_dim;
  const struct { const char* name; int64_t stride, width, rows; } strides[] = {
      {"q_stride", a.q_stride, q_width, a.q_rows}, {"k_stride", a.k_stride, k_width, a.k_rows},
      {"v_stride", a.v_stride, k_width, a.k_rows}, {"o_stride", a.o_stride, q_width, a.q_rows}};
  for (const auto& s : strides)
    if (s.stride > INT32_MAX || s.stride < 0 || (s.rows > 1 && s.stride < s.width))
      fail("%s is %lld, expected at least the row's %lld elements", s.name, (long long)s.stride, (long long)s.width);
  const DType type = a.q.dtype;
  check_operand("q", a.q, span_of(a.q_rows, q_width, a.q_stride), type);
  check_operand("k", a.k, span_of(a.k_rows, k_width, a.k_stride), type);
  check_operand("v", a.v, span_of(a.k_rows, k_width, a.v_stride), type);
  check_operand("o", a.o, span_of(a.q_rows, q_width, a.o_stride), type);
  check_operand("lse", a.lse, a.q_rows * a.heads, DType::Float32);
  check_operand("q_begin", a.q_begin, a.sequences, DType::Int32);
  check_operand("q_len", a.q_len, a.sequences, DType::Int32);
  check_operand("k_begin", a.k_begin, a.sequences, DType::Int32);
  check_operand("k_len", a.k_len, a.sequences, DType::Int32);
  AttentionSizes s;
  s.q_begin = a.q_begin.i32(), s.q_len = a.q_len.i32(), s.k_begin = a.k_begin.i32(), s.k_len = a.k_len.i32();
  s.sequences = (int32_t)a.sequences, s.q_rows = (int32_t)a.q_rows, s.k_rows = (int32_t)a.k_rows;
  s.heads = (int32_t)a.heads, s.kv_heads = (int32_t)a.kv_heads, s.group = (int32_t)(a.heads / a.kv_heads);
  s.head_dim = (int32_t)a.head_dim, s.causal = a.causal != 0;
  s.window = a.window >= a.k_rows ? 0 : (int32_t)a.window;  // wider than any sequence: no window
  s.scale = a.scale;
  s.q_stride = a.q_stride, s.k_stride = a.k_stride, s.v_stride = a.v_stride, s.o_stride = a.o_stride;
  if (!(a.dropout >= 0.0f && a.dropout < 1.0f)) fail("dropout is %g, expected at least 0 and less than 1", (double)a.dropout);
  s.drops = a.dropout > 0.0f;
  s.seed = (uint32_t)a.seed, s.threshold = (uint32_t)((double)a.dropout * 4294967296.0), s.kept = 1.0f / (1.0f - a.dropout);
  return s;
}

// Whether the rows of every head start at 16 bytes and are whole chunks of 16 bytes, as the tensor-core kernels read them; they also take
// the largest score before it is scaled, so the scale must be positive.
template <class T, class... Tensors> bool fits_tensor_cores(const AttentionSizes& a, const Tensors&... tensors) {
  if (sizeof(T) != 2 || a.head_dim % 8 != 0 || !(a.scale > 0)) return false;
  if ((a.q_stride | a.k_stride | a.v_stride | a.o_stride) % 8 != 0) return false;
  return ((reinterpret_cast<uintptr_t>(tensors.data) % 16 == 0) && ...);
}

template <class T> ForwardArgs<T> forward_args(const attention_args& op, const AttentionSizes& a) {
  ForwardArgs<T> p;
  p.a = a;
  p.plan = TilePlan{};
  p.q = op.q.as<T>(), p.k = op.k.as<T>(), p.v = op.v.as<T>(), p.o = op.o.as<T>();
  p.lse = op.lse.f32();
  return p;
}

// o and lse of rows that no sequence owns.
template <class T> void zero_unowned_outputs(const ForwardArgs<T>& p) {
  UnownedRows rows{};
  rows.data[0] = p.o;
  rows.stride[0] = p.a.o_stride * (int64_t)sizeof(T);
  rows.width[0] = p.a.heads * p.a.head_dim * (int)sizeof(T);
  rows.lse = p.lse;
  rows.heads = p.a.heads, rows.rows = p.a.q_rows;
  rows.owner = p.plan.owner;
  zero_unowned(rows);
}

}  // namespace cuda
}  // namespace tunebook
