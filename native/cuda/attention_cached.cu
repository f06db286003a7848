// Attention over a cache of keys and values that has another dtype than the queries: of 16 bits, or of 8 with a scale for each head and token.
#include "attention_decode.cuh"
#include "check.cuh"

namespace tunebook {
namespace cuda {
namespace {

AttentionSizes sizes_of(const attention_cached_args& a) {
  const struct { const char* name; int64_t value, least; } sizes[] = {
      {"sequences", a.sequences, 0}, {"q_rows", a.q_rows, 0}, {"k_rows", a.k_rows, 0}, {"heads", a.heads, 1},
      {"kv_heads", a.kv_heads, 1}, {"head_dim", a.head_dim, 1}, {"window", a.window, 0}};
  for (const auto& s : sizes)
    if (s.value < s.least || s.value > INT32_MAX / 2)
      fail("%s is %lld, expected %lld or more (and 30 bits)", s.name, (long long)s.value, (long long)s.least);
  if (a.head_dim > 256) fail("head_dim is %lld, expected at most 256", (long long)a.head_dim);
  if (a.heads % a.kv_heads != 0) fail("heads %lld is no multiple of kv_heads %lld", (long long)a.heads, (long long)a.kv_heads);
  const int64_t q_width = a.heads * a.head_dim, k_width = a.kv_heads * a.head_dim;
  if (q_width > INT32_MAX) fail("heads x head_dim is %lld, expected 31 bits", (long long)q_width);
  check_floats("q", a.q, product(a.q_rows, q_width));
  check_like("o", a.o, product(a.q_rows, q_width), "q", a.q);
  check_tensor("q_begin", a.q_begin, a.sequences, DType::Int32);
  check_tensor("q_len", a.q_len, a.sequences, DType::Int32);
  check_tensor("k_begin", a.k_begin, a.sequences, DType::Int32);
  check_tensor("k_len", a.k_len, a.sequences, DType::Int32);
  check_tensor("keys", a.keys, product(a.k_rows, k_width), a.keys.dtype);
  check_tensor("values", a.values, product(a.k_rows, k_width), a.keys.dtype);
  if (a.keys.dtype == DType::UInt8) {
    check_tensor("key_absmax", a.key_absmax, product(a.k_rows, a.kv_heads));
    check_tensor("value_absmax", a.value_absmax, product(a.k_rows, a.kv_heads));
  }
  AttentionSizes s{};
  s.q_begin = a.q_begin.i32(), s.q_len = a.q_len.i32(), s.k_begin = a.k_begin.i32(), s.k_len = a.k_len.i32();
  s.sequences = (int32_t)a.sequences, s.q_rows = (int32_t)a.q_rows, s.k_rows = (int32_t)a.k_rows;
  s.heads = (int32_t)a.heads, s.kv_heads = (int32_t)a.kv_heads, s.group = (int32_t)(a.heads / a.kv_heads);
  s.head_dim = (int32_t)a.head_dim, s.causal = 1;
  s.window = a.window >= a.k_rows ? 0 : (int32_t)a.window;
  s.scale = a.scale;
  s.q_stride = s.o_stride = q_width;
  s.k_stride = s.v_stride = k_width;
  return s;
}

template <class T, class C> void run(const attention_cached_args& op, const AttentionSizes& a) {
  decode::Args<T, C> p{};
  p.f.a = a;
  p.f.q = op.q.as<T>(), p.f.o = op.o.as<T>();
  p.k = op.keys.as<C>(), p.v = op.values.as<C>();
  p.k_absmax = op.key_absmax.f32(), p.v_absmax = op.value_absmax.f32();
  launch_decode("attention_cached", p);
}

void attention_cached(const attention_cached_args& op) {
  const AttentionSizes a = sizes_of(op);
  if (a.q_rows == 0) return;
  with_float_type(op.q.dtype, "q", [&](auto zero) {
    using T = decltype(zero);
    if (op.keys.dtype == DType::UInt8) return run<T, int8_t>(op, a);
    with_float_type(op.keys.dtype, "keys", [&](auto item) { run<T, decltype(item)>(op, a); });
  });
}

}  // namespace

void register_attention_cached(Backend& b) { b.attention_cached = attention_cached; }

}  // namespace cuda
}  // namespace tunebook
