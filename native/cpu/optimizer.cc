// isa: portable avx2 avx512
// AdamW and SGD over all tensors of a step at once.
#include "check.h"
#include "simd.h"

namespace tunebook {
namespace TB_ISA {
namespace {

constexpr int64_t kPiece = 16384;

void check_list(const char* name, const RefList& list, const RefList& param) {
  if (list.count != param.count) fail("%s lists %d tensors, param %d", name, list.count, param.count);
  for (int i = 0; i < list.count; ++i) check_tensor(name, list[i], param[i].bytes / 4);
}

// f(tensor, begin, end) over pieces of all tensors
template <class F>
void each_piece(const RefList& param, F f) {
  struct Piece {
    int32_t tensor;
    int64_t begin;
  };
  int64_t count = 0;
  for (int i = 0; i < param.count; ++i) count += (param[i].bytes / 4 + kPiece - 1) / kPiece;
  Piece* pieces = static_cast<Piece*>(scratch(0, (count + 1) * (int64_t)sizeof(Piece)));
  int64_t k = 0;
  for (int i = 0; i < param.count; ++i)
    for (int64_t at = 0; at < param[i].bytes / 4; at += kPiece) pieces[k++] = {i, at};
  parallel_tasks(count, [&](int64_t t) {
    const int64_t n = param[pieces[t].tensor].bytes / 4, begin = pieces[t].begin;
    f(pieces[t].tensor, begin, n - begin < kPiece ? n : begin + kPiece);
  });
}

// The factor of the gradients; false: they are not finite and nothing may change.
bool clip_factor(const Ref& norm_squared, float max_norm, float* factor) {
  *factor = 1.0f;
  if (!norm_squared) return true;
  check_tensor("norm_squared", norm_squared, 1);
  const float squared = *norm_squared.f32();
  if (!__builtin_isfinite(squared)) return false;
  if (max_norm > 0.0f) {
    const float f = max_norm / (__builtin_sqrtf(squared) + 1e-6f);
    if (f < 1.0f) *factor = f;
  }
  return true;
}

void adamw(const adamw_args& a) {
  check_size("step", a.step, 1);
  for (int i = 0; i < a.param.count; ++i) check_tensor("param", a.param[i], 0);
  check_list("grad", a.grad, a.param);
  check_list("m", a.m, a.param);
  check_list("v", a.v, a.param);
  float clip;
  if (!clip_factor(a.norm_squared, a.max_norm, &clip)) return;
  // Scalars in double, as Python computes them. float32 betas stand for the decimal number that was meant: 1 - 0.999f is off by 1e-5.
  const double b1 = __builtin_round((double)a.beta1 * 1e7) / 1e7, b2 = __builtin_round((double)a.beta2 * 1e7) / 1e7;
  const float keep = (float)(1.0 - (double)a.lr * (double)a.weight_decay), beta1 = a.beta1, beta2 = a.beta2;
  const float new1 = (float)(1.0 - b1), new2 = (float)(1.0 - b2), eps = a.eps;
  const float rate = (float)((double)a.lr / (1.0 - __builtin_pow(b1, (double)a.step)));
  const float root = (float)(1.0 / __builtin_sqrt(1.0 - __builtin_pow(b2, (double)a.step)));
  each_piece(a.param, [&](int tensor, int64_t begin, int64_t end) {
    float *p = a.param[tensor].f32() + begin, *m = a.m[tensor].f32() + begin, *v = a.v[tensor].f32() + begin;
    const float* g = a.grad[tensor].f32() + begin;
    for_vectors(end - begin, [=](int64_t i, int64_t k) {
      const vf d = load_to(g + i, k) * clip;
      const vf first = load_to(m + i, k) * beta1 + d * new1;
      const vf second = load_to(v + i, k) * beta2 + d * d * new2;
      store_to(m + i, first, k);
      store_to(v + i, second, k);
      store_to(p + i, load_to(p + i, k) * keep - rate * first / (vsqrt(second) * root + eps), k);
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
  const float keep = (float)(1.0 - (double)a.lr * (double)a.weight_decay), lr = a.lr, factor = a.momentum_factor;
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
