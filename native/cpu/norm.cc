// isa: portable avx2 avx512
// RMSNorm (with the residual addition before it) and LayerNorm, forward and backward.
#include "checks.h"
#include "parallel.h"
#include "random.h"
#include "rows.h"

namespace tunebook {
namespace TB_ISA {
namespace {

constexpr int64_t kElements = 8192;  // of one task
constexpr int64_t kParts = 32;       // partial sums of a weight's gradient, at most

void rms_norm(const rms_norm_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  const int64_t n = product(a.rows, a.cols), cols = a.cols;
  check_tensor("x", a.x, n);
  if (a.residual) check_tensor("residual", a.residual, n);
  check_tensor("weight", a.weight, cols);
  check_tensor("y", a.y, n);
  if (a.h) check_tensor("h", a.h, n);
  check_tensor("rstd", a.rstd, a.rows);
  const float* w = a.weight.f32();
  parallel_pieces(a.rows, rows_of(kElements, cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = a.x.f32() + r * cols;
      float* y = a.y.f32() + r * cols;
      float squares;
      if (a.residual) {  // h, or where nobody wants it y, holds the sum between the two passes
        const float* residual = a.residual.f32() + r * cols;
        float* h = a.h ? a.h.f32() + r * cols : y;
        squares = sum_of(cols, [=](int64_t i, int64_t m) {
          const vf v = load_to(x + i, m) + load_to(residual + i, m);
          store_to(h + i, v, m);
          return v * v;
        });
        x = h;
      } else {
        squares = row_dot(x, x, cols);
        if (a.h && a.h.f32() != a.x.f32()) memcpy(a.h.f32() + r * cols, x, (size_t)cols * 4);
      }
      const float rstd = 1.0f / __builtin_sqrtf(squares / (float)cols + a.eps);
      a.rstd.f32()[r] = rstd;
      for_vectors(cols, [=](int64_t i, int64_t m) { store_to(y + i, load_to(x + i, m) * rstd * load_to(w + i, m), m); });
    }
  });
}

// Rows are cut into at most kParts parts by their number alone; a part sums its rows' share of the weight's gradient by itself.
struct Parts {
  int64_t rows, count;
  explicit Parts(int64_t total) {
    rows = (total + kParts - 1) / kParts;
    if (rows < 8) rows = 8;
    count = (total + rows - 1) / rows;
  }
};

// to[c] += sum over parts of partial[part][c]
void add_parts(const float* partial, int64_t count, int64_t stride, int64_t cols, float* to) {
  parallel_pieces(cols, 1024, [&](int64_t begin, int64_t end) {
    for_vectors(end - begin, [&](int64_t i, int64_t m) {
      vf total = {};
      for (int64_t p = 0; p < count; ++p) total += load_to(partial + p * stride + begin + i, m);
      store_to(to + begin + i, load_to(to + begin + i, m) + total, m);
    });
  });
}

void rms_norm_backward(const rms_norm_backward_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  const int64_t n = product(a.rows, a.cols), cols = a.cols;
  check_tensor("dy", a.dy, n);
  check_tensor("h", a.h, n);
  check_tensor("weight", a.weight, cols);
  check_tensor("rstd", a.rstd, a.rows);
  if (a.dh_extra) check_tensor("dh_extra", a.dh_extra, n);
  check_tensor("dx", a.dx, n);
  if (a.dweight) check_tensor("dweight", a.dweight, cols);
  const float* w = a.weight.f32();
  const Parts parts(a.rows);
  float* partial = a.dweight ? scratch_f32(0, parts.count * cols) : nullptr;
  parallel_tasks(parts.count, [&](int64_t part) {
    const int64_t begin = part * parts.rows, end = begin + parts.rows < a.rows ? begin + parts.rows : a.rows;
    float* dw = partial ? partial + part * cols : nullptr;
    if (dw) memset(dw, 0, (size_t)cols * 4);
    for (int64_t r = begin; r < end; ++r) {
      const float *dy = a.dy.f32() + r * cols, *h = a.h.f32() + r * cols, rstd = a.rstd.f32()[r];
      float* dx = a.dx.f32() + r * cols;
      const float* extra = a.dh_extra ? a.dh_extra.f32() + r * cols : nullptr;
      const float dot = sum_of(cols, [=](int64_t i, int64_t m) {
        const vf g = load_to(dy + i, m), v = load_to(h + i, m);
        if (dw) store_to(dw + i, load_to(dw + i, m) + g * v * rstd, m);
        return g * v * load_to(w + i, m);
      });
      // d/dh: rstd * (w dy - h * rstd^2 * mean(w dy h))
      const float k = dot / (float)cols * rstd * rstd * rstd;
      for_vectors(cols, [=](int64_t i, int64_t m) {
        vf d = load_to(dy + i, m) * load_to(w + i, m) * rstd - load_to(h + i, m) * k;
        if (extra) d += load_to(extra + i, m);
        store_to(dx + i, d, m);
      });
    }
  });
  if (a.dweight) add_parts(partial, parts.count, cols, cols, a.dweight.f32());
}

void layer_norm(const layer_norm_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  const int64_t n = product(a.rows, a.cols), cols = a.cols;
  check_tensor("x", a.x, n);
  if (a.residual) check_tensor("residual", a.residual, n);
  if (a.weight) check_tensor("weight", a.weight, cols);
  if (a.bias) check_tensor("bias", a.bias, cols);
  check_tensor("y", a.y, n);
  if (a.h) check_tensor("h", a.h, n);
  check_share(a.p, a.h);
  check_tensor("mean", a.mean, a.rows);
  check_tensor("rstd", a.rstd, a.rows);
  const float *w = a.weight ? a.weight.f32() : nullptr, *b = a.bias ? a.bias.f32() : nullptr;
  const float* from = a.x.f32();
  if (a.p > 0.0f) {
    drop(from, a.h.f32(), n, a.seed, a.offset, a.p);
    from = a.h.f32();
  }
  parallel_pieces(a.rows, rows_of(kElements, cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = from + r * cols;
      float* y = a.y.f32() + r * cols;
      if (a.residual) {  // h, or where nobody wants it y, holds the sum
        const float* residual = a.residual.f32() + r * cols;
        float* h = a.h ? a.h.f32() + r * cols : y;
        for_vectors(cols, [=](int64_t i, int64_t m) { store_to(h + i, load_to(x + i, m) + load_to(residual + i, m), m); });
        x = h;
      } else if (a.h && a.h.f32() != from) {
        memcpy(a.h.f32() + r * cols, x, (size_t)cols * 4);
      }
      const float mean = row_sum(x, cols) / (float)cols;
      const float squares = sum_of(cols, [=](int64_t i, int64_t m) {  // of the centred row: no cancellation
        const vf d = zero_past(load_to(x + i, m) - mean, m);
        return d * d;
      });
      const float rstd = 1.0f / __builtin_sqrtf(squares / (float)cols + a.eps);
      a.mean.f32()[r] = mean;
      a.rstd.f32()[r] = rstd;
      for_vectors(cols, [=](int64_t i, int64_t m) {
        vf v = (load_to(x + i, m) - mean) * rstd;
        if (w) v *= load_to(w + i, m);
        if (b) v += load_to(b + i, m);
        store_to(y + i, v, m);
      });
    }
  });
}

void layer_norm_backward(const layer_norm_backward_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  const int64_t n = product(a.rows, a.cols), cols = a.cols;
  check_tensor("dy", a.dy, n);
  check_tensor("x", a.x, n);
  if (a.weight) check_tensor("weight", a.weight, cols);
  check_tensor("mean", a.mean, a.rows);
  check_tensor("rstd", a.rstd, a.rows);
  if (a.dh_extra) check_tensor("dh_extra", a.dh_extra, n);
  check_tensor("dx", a.dx, n);
  if (a.dropped) check_tensor("dropped", a.dropped, n);
  check_share(a.p, a.dropped);
  if (a.dweight) check_tensor("dweight", a.dweight, cols);
  if (a.dbias) check_tensor("dbias", a.dbias, cols);
  const float* w = a.weight ? a.weight.f32() : nullptr;
  const Parts parts(a.rows);
  const bool wants = a.dweight || a.dbias;
  float* partial = wants ? scratch_f32(0, parts.count * cols * 2) : nullptr;  // a part: the weight's share, then the bias's
  parallel_tasks(parts.count, [&](int64_t part) {
    const int64_t begin = part * parts.rows, end = begin + parts.rows < a.rows ? begin + parts.rows : a.rows;
    float* dw = partial ? partial + part * cols * 2 : nullptr;
    float* db = dw + cols;
    if (dw) memset(dw, 0, (size_t)cols * 8);
    for (int64_t r = begin; r < end; ++r) {
      const float *dy = a.dy.f32() + r * cols, *x = a.x.f32() + r * cols, mean = a.mean.f32()[r], rstd = a.rstd.f32()[r];
      float* dx = a.dx.f32() + r * cols;
      const float* extra = a.dh_extra ? a.dh_extra.f32() + r * cols : nullptr;
      const float sum = w ? row_dot(dy, w, cols) : row_sum(dy, cols);
      const float dot = sum_of(cols, [=](int64_t i, int64_t m) {
        const vf g = load_to(dy + i, m), xhat = (load_to(x + i, m) - mean) * rstd;
        if (dw) {
          store_to(dw + i, load_to(dw + i, m) + g * xhat, m);
          store_to(db + i, load_to(db + i, m) + g, m);
        }
        return (w ? g * load_to(w + i, m) : g) * xhat;  // g is zero past the row
      });
      const float c1 = sum / (float)cols, c2 = dot / (float)cols;
      for_vectors(cols, [=](int64_t i, int64_t m) {
        const vf g = w ? load_to(dy + i, m) * load_to(w + i, m) : load_to(dy + i, m);
        vf d = rstd * (g - c1 - (load_to(x + i, m) - mean) * rstd * c2);
        if (extra) d += load_to(extra + i, m);
        store_to(dx + i, d, m);
      });
    }
  });
  if (a.dropped) drop(a.dx.f32(), a.dropped.f32(), n, a.seed, a.offset, a.p);
  if (a.dweight) add_parts(partial, parts.count, cols * 2, cols, a.dweight.f32());
  if (a.dbias) add_parts(partial + cols, parts.count, cols * 2, cols, a.dbias.f32());
}

}  // namespace

void register_norm(Backend& b) {
  b.rms_norm = rms_norm;
  b.rms_norm_backward = rms_norm_backward;
  b.layer_norm = layer_norm;
  b.layer_norm_backward = layer_norm_backward;
}

}  // namespace TB_ISA
}  // namespace tunebook
