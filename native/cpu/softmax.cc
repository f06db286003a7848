// isa: portable avx2 avx512
// Softmax and its logarithm over rows.
#include "checks.h"
#include "parallel.h"
#include "rows.h"

namespace tunebook {
namespace TB_ISA {
namespace {

template <class Args>
void check_rows(const Args& a, const Ref& in, const char* in_name, const Ref& out, const char* out_name) {
  check_size("rows", a.rows);
  check_size("cols", a.cols);
  check_tensor(in_name, in, product(a.rows, a.cols));
  check_tensor(out_name, out, product(a.rows, a.cols));
}

template <class F>
void each_row(int64_t rows, int64_t cols, F f) {
  if (cols == 0) return;
  parallel_pieces(rows, rows_of(8192, cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r * cols);
  });
}

void softmax(const softmax_args& a) {
  check_rows(a, a.x, "x", a.y, "y");
  each_row(a.rows, a.cols, [&](int64_t at) {
    const float* x = a.x.f32() + at;
    float* y = a.y.f32() + at;
    const float shift = row_max(x, a.cols);
    const float total = sum_of(a.cols, [=](int64_t i, int64_t m) {
      const vf e = exp_v(load_to(x + i, m) - shift);
      store_to(y + i, e, m);
      return zero_past(e, m);
    });
    const float scale = 1.0f / total;
    for_vectors(a.cols, [=](int64_t i, int64_t m) { store_to(y + i, load_to(y + i, m) * scale, m); });
  });
}

void softmax_backward(const softmax_backward_args& a) {
  check_rows(a, a.y, "y", a.dx, "dx");
  check_tensor("dy", a.dy, a.rows * a.cols);
  each_row(a.rows, a.cols, [&](int64_t at) {
    const float *y = a.y.f32() + at, *dy = a.dy.f32() + at;
    float* dx = a.dx.f32() + at;
    const float dot = row_dot(y, dy, a.cols);
    for_vectors(a.cols, [=](int64_t i, int64_t m) { store_to(dx + i, load_to(y + i, m) * (load_to(dy + i, m) - dot), m); });
  });
}

void log_softmax(const log_softmax_args& a) {
  check_rows(a, a.x, "x", a.y, "y");
  each_row(a.rows, a.cols, [&](int64_t at) {
    const float* x = a.x.f32() + at;
    float* y = a.y.f32() + at;
    const float shift = row_max(x, a.cols);
    const float log_total = __builtin_logf(row_sum_exp(x, a.cols, shift));
    for_vectors(a.cols, [=](int64_t i, int64_t m) { store_to(y + i, (load_to(x + i, m) - shift) - log_total, m); });
  });
}

void log_softmax_backward(const log_softmax_backward_args& a) {
  check_rows(a, a.y, "y", a.dx, "dx");
  check_tensor("dy", a.dy, a.rows * a.cols);
  each_row(a.rows, a.cols, [&](int64_t at) {
    const float *y = a.y.f32() + at, *dy = a.dy.f32() + at;
    float* dx = a.dx.f32() + at;
    const float total = row_sum(dy, a.cols);
    for_vectors(a.cols, [=](int64_t i, int64_t m) { store_to(dx + i, load_to(dy + i, m) - exp_v(load_to(y + i, m)) * total, m); });
  });
}

}  // namespace

void register_softmax(Backend& b) {
  b.softmax = softmax;
  b.softmax_backward = softmax_backward;
  b.log_softmax = log_softmax;
  b.log_softmax_backward = log_softmax_backward;
}

}  // namespace TB_ISA
}  // namespace tunebook
