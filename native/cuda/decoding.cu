// What a step of decoding does beside the model: keys and values into their cache, and the state of each sequence to its next token. Everything that
// changes from step to step is in device memory, so that a captured step can be launched again.
#include "check.cuh"
#include "op_checks.h"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// A block a row: first its words of k, then those of v.
template <class W>
__global__ void __launch_bounds__(kThreads)
    append_kernel(const W* k, const W* v, const int32_t* slots, W* keys, W* values, int64_t words, int32_t places, Fault* fault) {
  const int64_t row = blockIdx.x;
  const int32_t place = slots[row];
  if (place < 0) return;
  if (place >= places) {
    if (threadIdx.x == 0) raise(fault, kBadIndex, (int)row, place, places);
    return;
  }
  for (int64_t i = threadIdx.x; i < 2 * words; i += blockDim.x) {
    if (i < words) keys[place * words + i] = k[row * words + i];
    else values[place * words + i - words] = v[row * words + i - words];
  }
}

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
  if (a.places > INT32_MAX) fail("%lld places are too many", (long long)a.places);
  if (a.rows == 0 || a.width == 0) return;
  const int64_t bytes = a.width * (int64_t)size_of(type);
  const auto run = [&](auto word) {
    using W = decltype(word);
    const int64_t words = bytes / (int64_t)sizeof(W), threads = (2 * words + 31) / 32 * 32;
    append_kernel<W><<<grid_of(a.rows, 1), (unsigned)(threads < kThreads ? threads : kThreads), 0, device.stream>>>(
        a.k.as<const W>(), a.v.as<const W>(), a.slots.i32(), a.keys.as<W>(), a.values.as<W>(), words, (int32_t)a.places, faults());
  };
  if (bytes % 16 == 0 && aligned(16, a.k.data, a.v.data, a.keys.data, a.values.data)) run(uint4{});
  else if (size_of(type) == 4) run(uint32_t{});
  else if (size_of(type) == 2) run(uint16_t{});
  else run(uint8_t{});
  launched("cache_append");
}

// A block a row, a warp a head of k or v: the largest magnitude, then the codes.
template <class T>
__global__ void __launch_bounds__(kThreads) append_codes_kernel(const T* k, const T* v, const int32_t* slots, int8_t* keys, int8_t* values,
                                                                float* key_absmax, float* value_absmax, int heads, int dim, int32_t places, Fault* fault) {
  const int64_t row = blockIdx.x;
  const int32_t place = slots[row];
  if (place < 0) return;
  if (place >= places) {
    if (threadIdx.x == 0) raise(fault, kBadIndex, (int)row, place, places);
    return;
  }
  const int lane = threadIdx.x & 31, warps = (int)blockDim.x >> 5;
  for (int n = (int)threadIdx.x >> 5; n < 2 * heads; n += warps) {
    const bool of_values = n >= heads;
    const int h = of_values ? n - heads : n;
    const T* x = (of_values ? v : k) + (row * heads + h) * dim;
    const int64_t to = (int64_t)place * heads + h;
    int8_t* q = (of_values ? values : keys) + to * dim;
    uint32_t most = 0;  // the bits of the largest magnitude: NaN lies above infinity
    for (int d = lane; d < dim; d += 32) most = max(most, __float_as_uint(to_float(x[d])) & 0x7fffffffu);
    most = __reduce_max_sync(0xffffffffu, most);
    const float absmax = __uint_as_float(most), scale = most == 0 ? 0.0f : __fdiv_rn(127.0f, absmax);
    for (int d = lane; d < dim; d += 32) {
      const float y = rintf(__fmul_rn(to_float(x[d]), scale));
      q[d] = y == y ? (int8_t)(int)y : (int8_t)0;
    }
    if (lane == 0) (of_values ? value_absmax : key_absmax)[to] = absmax;
  }
}

void cache_append_8(const cache_append_8_args& a) {
  check_size("rows", a.rows);
  check_size("kv_heads", a.kv_heads);
  check_size("head_dim", a.head_dim);
  check_size("places", a.places);
  check_floats("k", a.k, product(a.rows, a.kv_heads, a.head_dim));
  check_like("v", a.v, product(a.rows, a.kv_heads, a.head_dim), "k", a.k);
  check_tensor("slots", a.slots, a.rows, DType::Int32);
  check_tensor("keys", a.keys, product(a.places, a.kv_heads, a.head_dim), DType::UInt8);
  check_tensor("values", a.values, product(a.places, a.kv_heads, a.head_dim), DType::UInt8);
  check_tensor("key_absmax", a.key_absmax, product(a.places, a.kv_heads));
  check_tensor("value_absmax", a.value_absmax, product(a.places, a.kv_heads));
  if (a.places > INT32_MAX || a.kv_heads > INT32_MAX / 2 || a.head_dim > INT32_MAX) fail("%lld places are too many", (long long)a.places);
  if (a.rows == 0 || a.kv_heads == 0 || a.head_dim == 0) return;
  const int64_t threads = 2 * a.kv_heads * 32;
  with_float_type(a.k.dtype, "k", [&](auto zero) {
    using T = decltype(zero);
    append_codes_kernel<T><<<grid_of(a.rows, 1), (unsigned)(threads < kThreads ? threads : kThreads), 0, device.stream>>>(
        a.k.as<const T>(), a.v.as<const T>(), a.slots.i32(), a.keys.as<int8_t>(), a.values.as<int8_t>(), a.key_absmax.f32(), a.value_absmax.f32(),
        (int)a.kv_heads, (int)a.head_dim, (int32_t)a.places, faults());
  });
  launched("cache_append_8");
}

__global__ void advance_kernel(const int32_t* chosen, int32_t* ids, int32_t* positions, int32_t* lengths, int32_t* slots, int32_t* draws, int32_t* seen,
                               int64_t rows, int64_t limit, int64_t seen_width) {
  const int64_t r = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (r >= rows || slots[r] < 0) return;
  const int32_t next = positions[r] + 1;
  ids[r] = chosen[r];
  if (seen != nullptr && next < seen_width) seen[r * seen_width + next] = chosen[r];
  if (draws != nullptr) draws[2 * r + 1]++;
  if (next >= limit) {
    slots[r] = -1;
    return;
  }
  positions[r] = next;
  lengths[r] = next + 1;
  slots[r]++;
}

void decode_advance(const decode_advance_args& a) {
  check_decode_advance(a);
  if (a.rows == 0) return;
  advance_kernel<<<grid_of(a.rows, 64), 64, 0, device.stream>>>(a.chosen.i32(), a.ids.i32(), a.positions.i32(), a.lengths.i32(), a.slots.i32(),
                                                               a.draws.i32(), a.seen.i32(), a.rows, a.limit, a.seen_width);
  launched("decode_advance");
}

}  // namespace

void register_decoding(Backend& b) {
  b.cache_append = cache_append;
  b.cache_append_8 = cache_append_8;
  b.decode_advance = decode_advance;
}

}  // namespace cuda
}  // namespace tunebook
