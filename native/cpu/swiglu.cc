// isa: portable avx2 avx512
// y = silu(gate) * up, the activation of the gated MLP.
#include "checks.h"
#include "parallel.h"
#include "vmath.h"

namespace tunebook {
namespace TB_ISA {
namespace {

constexpr int64_t kElements = 8192;

void check_part(const char* name, const char* stride_name, const Ref& t, int64_t rows, int64_t cols, int64_t stride) {
  check_stride(stride_name, stride, cols, rows);
  check_tensor(name, t, span(rows, cols, stride));
}

void swiglu(const swiglu_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols);
  check_part("gate", "gate_stride", a.gate, a.rows, a.cols, a.gate_stride);
  check_part("up", "up_stride", a.up, a.rows, a.cols, a.up_stride);
  check_part("y", "y_stride", a.y, a.rows, a.cols, a.y_stride);
  parallel_pieces(a.rows, rows_of(kElements, a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float *gate = a.gate.f32() + r * a.gate_stride, *up = a.up.f32() + r * a.up_stride;
      float* y = a.y.f32() + r * a.y_stride;
      for_vectors(a.cols, [=](int64_t i, int64_t m) {
        const vf g = load_to(gate + i, m);
        store_to(y + i, g * sigmoid_v(g) * load_to(up + i, m), m);
      });
    }
  });
}

void swiglu_backward(const swiglu_backward_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols);
  check_part("gate", "gate_stride", a.gate, a.rows, a.cols, a.gate_stride);
  check_part("up", "up_stride", a.up, a.rows, a.cols, a.up_stride);
  check_part("dy", "dy_stride", a.dy, a.rows, a.cols, a.dy_stride);
  check_part("dgate", "dgate_stride", a.dgate, a.rows, a.cols, a.dgate_stride);
  check_part("dup", "dup_stride", a.dup, a.rows, a.cols, a.dup_stride);
  if (a.y) check_part("y", "dy_stride", a.y, a.rows, a.cols, a.dy_stride);
  parallel_pieces(a.rows, rows_of(kElements, a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float *gate = a.gate.f32() + r * a.gate_stride, *up = a.up.f32() + r * a.up_stride, *dy = a.dy.f32() + r * a.dy_stride;
      float *dgate = a.dgate.f32() + r * a.dgate_stride, *dup = a.dup.f32() + r * a.dup_stride;
      float* y = a.y ? a.y.f32() + r * a.dy_stride : nullptr;
      for_vectors(a.cols, [=](int64_t i, int64_t m) {
        const vf g = load_to(gate + i, m), u = load_to(up + i, m), d = load_to(dy + i, m);
        const vf s = sigmoid_v(g), silu = g * s;
        store_to(dgate + i, d * u * (s + silu * (1.0f - s)), m);
        store_to(dup + i, d * silu, m);
        if (y != nullptr) store_to(y + i, silu * u, m);
      });
    }
  });
}

}  // namespace

void register_swiglu(Backend& b) {
  b.swiglu = swiglu;
  b.swiglu_backward = swiglu_backward;
}

}  // namespace TB_ISA
}  // namespace tunebook
