// What the optimizers share: their lists and the clipping factor.
#pragma once
#include "adamw.h"
#include "checks.h"
#include "parallel.h"
#include "simd.h"

namespace tunebook {
namespace TB_ISA {

constexpr int64_t kPiece = 16384;  // a multiple of the 8-bit moments' block

static inline void check_list(const char* name, const RefList& list, const RefList& param) {
  if (list.count != param.count) fail("%s lists %d tensors, param %d", name, list.count, param.count);
  for (int i = 0; i < list.count; ++i) check_tensor(name, list[i], param[i].bytes / 4);
}

// f(tensor, begin, end) over pieces of all tensors
template <class F>
inline void each_piece(const RefList& param, F f) {
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
static inline bool clip_factor(const Ref& norm_squared, float max_norm, float* factor) {
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

}  // namespace TB_ISA
}  // namespace tunebook
