// isa: portable avx2 avx512
// AdamW and SGD over all tensors of a step at once.
#include "optimizer.h"

namespace tunebook {
namespace TB_ISA {
namespace {

void adamw(const adamw_args& a) {
  check_size("step", a.step, 1);
  for (int i = 0; i < a.param.count; ++i) check_tensor("param", a.param[i], 0);
  check_list("grad", a.grad, a.param);
  check_list("m", a.m, a.param);
  check_list("v", a.v, a.param);
  float clip;
  if (!clip_factor(a.norm_squared, a.max_norm, &clip)) return;
  const AdamW o = adamw_of(a);
  each_piece(a.param, [&](int tensor, int64_t begin, int64_t end) {
    float *p = a.param[tensor].f32() + begin, *m = a.m[tensor].f32() + begin, *v = a.v[tensor].f32() + begin;
    const float* g = a.grad[tensor].f32() + begin;
    for_vectors(end - begin, [=](int64_t i, int64_t k) {
      const vf d = load_to(g + i, k) * clip;
      const vf first = load_to(m + i, k) * o.beta1 + d * o.new1;
      const vf second = load_to(v + i, k) * o.beta2 + d * d * o.new2;
      store_to(m + i, first, k);
      store_to(v + i, second, k);
      store_to(p + i, load_to(p + i, k) * o.keep - o.rate * first / (vsqrt(second) * o.root + o.eps), k);
    });
  });
}

void sgd(const sgd_args& a) {
  for (int i = 0; i < a.param.count; ++i) check_tensor("param", a.param[i], 0);
  check_list("grad", a.grad, a.param);
  const bool has_momentum = a.momentum.count > 0;
  if (has_momentum) check_list("momentum", a.momentum, a.param);
  float clip;
  if (!clip_factor(a.norm_squared, a.max_norm, &clip)) return;
  const float keep = kept_of(a.lr, a.weight_decay), lr = a.lr, factor = a.momentum_factor;
  each_piece(a.param, [&](int tensor, int64_t begin, int64_t end) {
    float *p = a.param[tensor].f32() + begin, *b = has_momentum ? a.momentum[tensor].f32() + begin : nullptr;
    const float* g = a.grad[tensor].f32() + begin;
    for_vectors(end - begin, [=](int64_t i, int64_t k) {
      vf d = load_to(g + i, k) * clip;
      if (b) {
        d += load_to(b + i, k) * factor;
        store_to(b + i, d, k);
      }
      store_to(p + i, load_to(p + i, k) * keep - lr * d, k);
    });
  });
}

}  // namespace

void register_optimizer(Backend& b) {
  b.adamw = adamw;
  b.sgd = sgd;
}

}  // namespace TB_ISA
}  // namespace tunebook
