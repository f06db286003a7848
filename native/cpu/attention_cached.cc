// isa: portable avx2 avx512
// Attention over a cache of keys and values that has another dtype than the queries: of 16 bits, or of 8 with a scale for each head and token.
#include "attention_few.h"

namespace tunebook {
namespace TB_ISA {
namespace {

void check_cache(const char* name, const Ref& t, const char* scales, const Ref& absmax, const attention_cached_args& a) {
  const int64_t heads = product(a.k_rows, a.kv_heads);
  if (t.dtype == DType::Int32) fail("%s is int32, expected a float dtype or uint8", name);
  check_tensor(name, t, product(heads, a.head_dim), t.dtype);
  if (t.dtype == DType::UInt8) check_tensor(scales, absmax, heads);
}

void attention_cached(const attention_cached_args& a) {
  check_sequences(a);
  check_tensor("q", a.q, product(a.q_rows, a.heads, a.head_dim));
  check_tensor("o", a.o, product(a.q_rows, a.heads, a.head_dim));
  check_cache("keys", a.keys, "key_absmax", a.key_absmax, a);
  check_cache("values", a.values, "value_absmax", a.value_absmax, a);
  const int64_t group = a.heads / a.kv_heads, width = a.head_dim + 2;
  uint8_t* owned = static_cast<uint8_t*>(scratch(0, a.q_rows + 1));
  memset(owned, 0, (size_t)a.q_rows);
  int64_t count = 0, partials = 0;
  for (int64_t i = 0; i < a.sequences; ++i) {
    const Sequence s = sequence_of(a, i);
    if (s.k_begin < 0 || s.k_len < 0 || s.k_begin + s.k_len > a.k_rows)
      fail("sequence %lld: key rows %lld..%lld are outside the %lld rows", (long long)i, (long long)s.k_begin, (long long)(s.k_begin + s.k_len),
           (long long)a.k_rows);
    if (s.k_len == 0 || s.q_len == 0) continue;  // its rows stay zero
    claim_rows("query", owned, a.q_rows, s.q_begin, s.q_len, i);
    count += a.kv_heads * pieces_of(s);
    if (pieces_of(s) > 1) partials += a.kv_heads * pieces_of(s) * s.q_len * group * width;
  }
  for (int64_t r = 0; r < a.q_rows; ++r)
    if (!owned[r]) memset(a.o.f32() + r * a.heads * a.head_dim, 0, (size_t)(a.heads * a.head_dim) * 4);
  Task* tasks = static_cast<Task*>(scratch(2, (count + 1) * (int64_t)sizeof(Task)));
  float* partial = scratch_f32(3, partials + 1);
  int64_t n = 0;
  for (int64_t i = 0; i < a.sequences; ++i) {
    const Sequence s = sequence_of(a, i);
    if (s.k_len == 0 || s.q_len == 0) continue;
    for (int64_t kv = 0; kv < a.kv_heads; ++kv)
      for (int64_t p = 0; p < pieces_of(s); ++p) {
        tasks[n++] = {(int32_t)i, (int32_t)kv, p * kDecodeKeys, pieces_of(s) > 1 ? partial : nullptr};
        if (pieces_of(s) > 1) partial += s.q_len * group * width;
      }
  }
  parallel_tasks(n, [&](int64_t t) { attend_few(a, sequence_of(a, tasks[t].sequence), tasks[t]); });
  for (int64_t t = 0; t < n; ++t)
    if (tasks[t].partial && tasks[t].begin == 0) {
      const Sequence s = sequence_of(a, tasks[t].sequence);
      combine(a, s, tasks[t].head, tasks[t].partial, pieces_of(s));
    }
}

}  // namespace

void register_attention_cached(Backend& b) { b.attention_cached = attention_cached; }

}  // namespace TB_ISA
}  // namespace tunebook
