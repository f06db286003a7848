// isa: portable avx2 avx512
// AdamW with 8-bit moments in blocks, as bitsandbytes' AdamW8bit computes it on CPUs.
#include "nf4_tables.h"
#include "optimizer.h"

namespace tunebook {
namespace TB_ISA {
namespace {

constexpr int64_t kBlock = 256;

// One moment of one tensor: codes, and what they mean.
struct Moment {
  uint8_t* q;
  float* absmax;
  const float* map;
  const uint8_t* codes;
};

void check_moment(const char* name, const char* absmax_name, const RefList& q, const RefList& absmax, const RefList& param) {
  if (q.count != param.count) fail("%s lists %d tensors, param %d", name, q.count, param.count);
  if (absmax.count != param.count) fail("%s lists %d tensors, param %d", absmax_name, absmax.count, param.count);
  for (int i = 0; i < param.count; ++i) {
    const int64_t n = param[i].bytes / 4;
    check_tensor(name, q[i], n, DType::UInt8);
    check_tensor(absmax_name, absmax[i], (n + kBlock - 1) / kBlock);
  }
}

TB_INLINE void restore(const Moment& s, int64_t at, int64_t n, float* out) {
  const float absmax = s.absmax[at / kBlock];
  for (int64_t i = 0; i < n; ++i) out[i] = s.map[s.q[at + i]] * absmax;
}

TB_INLINE void quantize(const Moment& s, int64_t at, int64_t n, const float* x) {
  vf most = {};
  for_vectors(n, [&](int64_t i, int64_t k) { most = vmax(vabs(load_to(x + i, k)), most); });
  const float absmax = hmax(most);
  s.absmax[at / kBlock] = absmax;
  if (absmax == 0.0f) {
    memset(s.q + at, 0, (size_t)n);
    return;
  }
  const float inverse = 1.0f / absmax;
  int32_t place[kBlock];
  for_vectors(n, [&](int64_t i, int64_t k) {
    const vf normed = rounded(load_to(x + i, k) * inverse);
    const vf place_at = rounded((normed + 1.0f) * 32767.5f) + 0.5f;
    const vi j = __builtin_convertvector(vmin(vmax(place_at, vf{}), splat(65535.0f)), vi);  // a denormal absmax has no finite reciprocal
    memcpy(place + i, &j, (size_t)k * 4);
  });
  for (int64_t i = 0; i < n; ++i) s.q[at + i] = s.codes[place[i]];
}

void adamw_8bit(const adamw_8bit_args& a) {
  check_size("step", a.step, 1);
  for (int i = 0; i < a.param.count; ++i) check_tensor("param", a.param[i], 0);
  check_list("grad", a.grad, a.param);
  check_moment("m", "absmax_m", a.m, a.absmax_m, a.param);
  check_moment("v", "absmax_v", a.v, a.absmax_v, a.param);
  float clip;
  if (!clip_factor(a.norm_squared, a.max_norm, &clip)) return;
  const AdamW o = adamw_of(a);
  each_piece(a.param, [&](int tensor, int64_t begin, int64_t end) {
    const Moment m{a.m[tensor].u8(), a.absmax_m[tensor].f32(), dynamic_map(), dynamic_codes()};
    const Moment v{a.v[tensor].u8(), a.absmax_v[tensor].f32(), dynamic_map_unsigned(), dynamic_codes_unsigned()};
    alignas(64) float first[kBlock], second[kBlock];
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t n = end - at < kBlock ? end - at : kBlock;
      float* p = a.param[tensor].f32() + at;
      const float* g = a.grad[tensor].f32() + at;
      restore(m, at, n, first);
      restore(v, at, n, second);
      for_vectors(n, [&](int64_t i, int64_t k) {
        const vf d = load_to(g + i, k) * clip;
        const vi finite = (vi)(vabs(d) < __builtin_inff());
        // Torch's roundings (one product rounded, the other fused with the sum): a code on a border must fall to the same side.
        const vf f = rounded(load_to(first + i, k) * o.beta1) + d * o.new1;
        const vf s = rounded(load_to(second + i, k) * o.beta2) + rounded(d * o.new2) * d;
        const vf f0 = from_bits(bits(f) & finite), s0 = from_bits(bits(s) & finite);
        store_to(first + i, f0, k);
        store_to(second + i, s0, k);
        store_to(p + i, load_to(p + i, k) * o.keep - o.rate * f0 / (vsqrt(s0) * o.root + o.eps), k);
      });
      quantize(m, at, n, first);
      quantize(v, at, n, second);
    }
  });
}

}  // namespace

void register_optimizer8(Backend& b) { b.adamw_8bit = adamw_8bit; }

}  // namespace TB_ISA
}  // namespace tunebook
