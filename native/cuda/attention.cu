// Attention over packed rows: which kernels an op takes, decided by the host's integers alone.
#include "attention.cuh"

namespace tunebook {
namespace cuda {
namespace {

// Few queries a sequence over memory for many keys, as in decoding: the keys are split among blocks, not the queries.
constexpr int64_t kFewQueries = 8, kManyKeys = 4;
bool decodes(const AttentionSizes& a) {
  return a.q_rows <= kFewQueries * a.sequences && a.k_rows >= kManyKeys * a.q_rows && !a.drops;
}

template <class T> constexpr bool kIs16Bit = sizeof(T) == 2;

void attention(const attention_args& op) {
  const AttentionSizes a = checked_sizes(op);
  if (a.q_rows == 0) return;
  with_float_type(op.q.dtype, "q", [&](auto zero) {
    using T = decltype(zero);
    if (decodes(a)) return attention_decode<T>(op, a);
    if constexpr (kIs16Bit<T>) {
      if (fits_tensor_cores<T>(a, op.q, op.k, op.v, op.o)) return attention_tensor_cores<T>(op, a);
    }
    attention_plain<T>(op, a);
  });
}

void attention_backward(const attention_backward_args& op) {
  const AttentionSizes a = checked_sizes(op);
  const int64_t q_width = (int64_t)a.heads * a.head_dim, k_width = (int64_t)a.kv_heads * a.head_dim;
  check_operand("do", op.do_, span_of(a.q_rows, q_width, a.o_stride), op.q.dtype);
  check_operand("dq", op.dq, span_of(a.q_rows, q_width, a.q_stride), op.q.dtype);
  check_operand("dk", op.dk, span_of(a.k_rows, k_width, a.k_stride), op.q.dtype);
  check_operand("dv", op.dv, span_of(a.k_rows, k_width, a.v_stride), op.q.dtype);
  with_float_type(op.q.dtype, "q", [&](auto zero) {
    using T = decltype(zero);
    if constexpr (kIs16Bit<T>) {
      if (fits_tensor_cores<T>(a, op.q, op.k, op.v, op.o, op.do_, op.dq, op.dk, op.dv)) return attention_backward_tensor_cores<T>(op, a);
    }
    attention_backward_plain<T>(op, a);
  });
}

}  // namespace

void register_attention(Backend& b) {
  b.attention = attention;
  b.attention_backward = attention_backward;
}

}  // namespace cuda
}  // namespace tunebook
