// isa: portable avx2 avx512
// What a step of decoding does beside the model: keys and values into their cache, and the state of each sequence to its next token.
#include <cstring>

#include "checks.h"
#include "op_checks.h"
#include "parallel.h"

namespace tunebook {
namespace TB_ISA {
namespace {

void cache_append(const cache_append_args& a) {
  check_size("rows", a.rows);
  check_size("width", a.width);
  check_size("places", a.places);
  const DType type = a.k.dtype;
  check_tensor("k", a.k, product(a.rows, a.width), type);
  check_tensor("v", a.v, product(a.rows, a.width), type);
  check_tensor("slots", a.slots, a.rows, DType::Int32);
  check_tensor("keys", a.keys, product(a.places, a.width), type);
  check_tensor("values", a.values, product(a.places, a.width), type);
  const int64_t bytes = a.width * (int64_t)size_of(type);
  for (int64_t r = 0; r < a.rows; ++r) {
    const int64_t place = a.slots.i32()[r];
    if (place >= a.places) fail("place %lld in row %lld, but the cache has %lld", (long long)place, (long long)r, (long long)a.places);
    if (place < 0) continue;
    memcpy(a.keys.u8() + place * bytes, a.k.u8() + r * bytes, (size_t)bytes);
    memcpy(a.values.u8() + place * bytes, a.v.u8() + r * bytes, (size_t)bytes);
  }
}

// One head's elements as codes; the scale is given back.
float encode_head(const float* x, int64_t dim, int8_t* q) {
  float most = 0;
  for (int64_t d = 0; d < dim; ++d) {
    const float v = __builtin_fabsf(x[d]);
    if (!(v <= most)) most = v;  // a NaN stays
    if (v != v) break;
  }
  const float scale = most == 0 ? 0.0f : 127.0f / most;
  for (int64_t d = 0; d < dim; ++d) {
    const float v = __builtin_rintf(x[d] * scale);
    q[d] = v == v ? (int8_t)v : (int8_t)0;
  }
  return most;
}

void cache_append_8(const cache_append_8_args& a) {
  check_size("rows", a.rows);
  check_size("kv_heads", a.kv_heads);
  check_size("head_dim", a.head_dim);
  check_size("places", a.places);
  const int64_t heads = a.kv_heads, dim = a.head_dim;
  check_tensor("k", a.k, product(a.rows, heads, dim));
  check_tensor("v", a.v, product(a.rows, heads, dim));
  check_tensor("slots", a.slots, a.rows, DType::Int32);
  check_tensor("keys", a.keys, product(a.places, heads, dim), DType::UInt8);
  check_tensor("values", a.values, product(a.places, heads, dim), DType::UInt8);
  check_tensor("key_absmax", a.key_absmax, product(a.places, heads));
  check_tensor("value_absmax", a.value_absmax, product(a.places, heads));
  for (int64_t r = 0; r < a.rows; ++r) {
    const int64_t place = a.slots.i32()[r];
    if (place >= a.places) fail("place %lld in row %lld, but the cache has %lld", (long long)place, (long long)r, (long long)a.places);
  }
  for (int64_t r = 0; r < a.rows; ++r) {
    const int64_t place = a.slots.i32()[r];
    if (place < 0) continue;
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t from = (r * heads + h) * dim, to = place * heads + h;
      a.key_absmax.f32()[to] = encode_head(a.k.f32() + from, dim, a.keys.as<int8_t>() + to * dim);
      a.value_absmax.f32()[to] = encode_head(a.v.f32() + from, dim, a.values.as<int8_t>() + to * dim);
    }
  }
}

void decode_advance(const decode_advance_args& a) {
  check_decode_advance(a);
  for (int64_t r = 0; r < a.rows; ++r) {
    int32_t& slot = a.slots.i32()[r];
    if (slot < 0) continue;
    const int32_t next = a.positions.i32()[r] + 1;
    a.ids.i32()[r] = a.chosen.i32()[r];
    if (a.seen && next < a.seen_width) a.seen.i32()[r * a.seen_width + next] = a.chosen.i32()[r];
    if (a.draws) a.draws.i32()[2 * r + 1]++;
    if (next >= a.limit) {
      slot = -1;
      continue;
    }
    a.positions.i32()[r] = next;
    a.lengths.i32()[r] = next + 1;
    slot++;
  }
}

}  // namespace

void register_decoding(Backend& b) {
  b.cache_append = cache_append;
  b.cache_append_8 = cache_append_8;
  b.decode_advance = decode_advance;
}

}  // namespace TB_ISA
}  // namespace tunebook
