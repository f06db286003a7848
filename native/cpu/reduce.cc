// isa: portable avx2 avx512
// Reductions. Work is cut by shape alone and partial results are added in order: the same bits on any number of threads.
#include "axes.h"
#include "checks.h"
#include "op_checks.h"
#include "parallel.h"
#include "rows.h"

namespace tunebook {
namespace TB_ISA {
namespace {

constexpr int64_t kRun = 32768;    // elements of a contiguous row summed by one task
constexpr int64_t kDepth = 512;    // rows summed by one task where columns stay
constexpr int64_t kColumns = 256;  // columns of one task

struct Sum {
  static constexpr float start = 0.0f;
  static vf join(vf a, vf b) { return a + b; }
};
// Once NaN, always NaN.
struct Max {
  static constexpr float start = -kInf;
  static vf join(vf a, vf b) { return a == a ? vmax(a, b) : a; }
};
struct Min {
  static constexpr float start = kInf;
  static vf join(vf a, vf b) { return a == a ? vmin(a, b) : a; }
};

template <class K>
float join_lanes(vf v) {
  for (int step = W / 2; step > 0; step /= 2) {
    vf other = v;
    for (int i = 0; i < step; ++i) other[i] = v[i + step];
    v = K::join(v, other);
  }
  return v[0];
}

template <class K>
float run(const float* x, int64_t n) {
  if (K::start == 0.0f) return row_sum(x, n);
  vf acc = splat(K::start);
  int64_t i = 0;
  for (; i + W <= n; i += W) acc = K::join(acc, load(x + i));
  if (i < n) {
    vf last = splat(K::start);
    for (int64_t j = i; j < n; ++j) last[j - i] = x[j];
    acc = K::join(acc, last);
  }
  return join_lanes<K>(acc);
}

// y[o] over n contiguous elements
template <class K>
void reduce_rows(const float* x, float* y, int64_t outer, int64_t n, float scale) {
  const int64_t runs = n <= kRun ? 1 : (n + kRun - 1) / kRun;
  if (runs == 1) {
    parallel_pieces(outer, rows_of(kRun, n), [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) y[o] = run<K>(x + o * n, n) * scale;
    });
    return;
  }
  float* partial = scratch_f32(0, outer * runs);
  parallel_tasks(outer * runs, [&](int64_t t) {
    const int64_t at = t % runs * kRun;
    partial[t] = run<K>(x + t / runs * n + at, n - at < kRun ? n - at : kRun);
  });
  for (int64_t o = 0; o < outer; ++o) y[o] = run<K>(partial + o * runs, runs) * scale;
}

// to[c] = rows joined, columns [0, cols) of rows that stand `stride` apart
template <class K>
void join_block(const float* x, int64_t rows, int64_t stride, int64_t cols, float* to, float scale) {
  for_vectors(cols, [&](int64_t c, int64_t m) {
    vf a = splat(K::start), b = a;
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) {
      a = K::join(a, load_to(x + r * stride + c, m));
      b = K::join(b, load_to(x + (r + 1) * stride + c, m));
    }
    if (r < rows) a = K::join(a, load_to(x + r * stride + c, m));
    store_to(to + c, K::join(a, b) * scale, m);
  });
}

template <class K>
void reduce_columns(const float* x, float* y, int64_t outer, int64_t n, int64_t inner, float scale) {
  const int64_t blocks = (inner + kColumns - 1) / kColumns, depths = n <= kDepth ? 1 : (n + kDepth - 1) / kDepth;
  const auto block = [&](const float* from, int64_t rows, int64_t b, float* to, float s) {
    const int64_t c = b * kColumns;
    join_block<K>(from + c, rows, inner, inner - c < kColumns ? inner - c : kColumns, to + c, s);
  };
  if (depths == 1) {
    parallel_pieces(outer * blocks, rows_of(16384, n * (inner < kColumns ? inner : kColumns)), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t o = t / blocks;
        block(x + o * n * inner, n, t % blocks, y + o * inner, scale);
      }
    });
    return;
  }
  float* partial = scratch_f32(0, outer * depths * inner);
  parallel_tasks(outer * depths * blocks, [&](int64_t t) {
    const int64_t part = t / blocks, o = part / depths, r = part % depths * kDepth;
    block(x + (o * n + r) * inner, n - r < kDepth ? n - r : kDepth, t % blocks, partial + part * inner, 1.0f);
  });
  parallel_tasks(outer * blocks, [&](int64_t t) {
    const int64_t o = t / blocks;
    block(partial + o * depths * inner, depths, t % blocks, y + o * inner, scale);
  });
}

template <class K>
void reduce_as(const float* x, float* y, int64_t outer, int64_t n, int64_t inner, float scale) {
  if (inner == 1) reduce_rows<K>(x, y, outer, n, scale);
  else reduce_columns<K>(x, y, outer, n, inner, scale);
}

void reduce(const reduce_args& a) {
  check_size("outer", a.outer);
  check_size("n", a.n, a.kind >= 2 ? 1 : 0);
  check_size("inner", a.inner);
  check_tensor("x", a.x, product(a.outer, a.n, a.inner));
  check_tensor("y", a.y, product(a.outer, a.inner));
  if (a.outer == 0 || a.inner == 0) return;
  const float* x = a.x.f32();
  float* y = a.y.f32();
  switch (a.kind) {
    case 0: return reduce_as<Sum>(x, y, a.outer, a.n, a.inner, 1.0f);
    case 1: return reduce_as<Sum>(x, y, a.outer, a.n, a.inner, 1.0f / (float)a.n);
    case 2: return reduce_as<Max>(x, y, a.outer, a.n, a.inner, 1.0f);
    case 3: return reduce_as<Min>(x, y, a.outer, a.n, a.inner, 1.0f);
  }
  fail("kind %lld of reduce is unknown", (long long)a.kind);
}

void sum_to(const sum_to_args& a) {
  const int64_t dims[4] = {a.d0, a.d1, a.d2, a.d3}, strides[4] = {a.ys0, a.ys1, a.ys2, a.ys3};
  const int64_t n = check_sum_to(a, dims, strides);
  check_tensor("x", a.x, n);
  check_tensor("y", a.y, a.y_count);
  const float* x = a.x.f32();
  float* y = a.y.f32();
  if (n == 0) {
    memset(y, 0, (size_t)a.y_count * 4);
    return;
  }
  const SumAxes axes = sum_axes(dims, strides, a.y_count);
  if (axes.plain) return reduce_as<Sum>(x, y, axes.outer, axes.depth, axes.inner, 1.0f);
  const int64_t *d = axes.d, *s = axes.s;
  const int count = axes.count;
  // Anything else, one element of y at a time.
  memset(y, 0, (size_t)a.y_count * 4);
  int64_t kept[4], summed[4];
  int kept_count = 0, summed_count = 0;
  int64_t xs[4] = {1, 1, 1, 1}, outputs = 1, terms = 1;
  for (int j = count - 2; j >= 0; --j) xs[j] = xs[j + 1] * d[j + 1];
  for (int j = 0; j < count; ++j) {
    if (s[j] != 0) kept[kept_count++] = j, outputs *= d[j];
    else summed[summed_count++] = j, terms *= d[j];
  }
  parallel_pieces(outputs, rows_of(8192, terms), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      int64_t rest = o, from = 0, to = 0;
      for (int k = kept_count - 1; k >= 0; --k) {
        const int j = (int)kept[k];
        from += rest % d[j] * xs[j], to += rest % d[j] * s[j], rest /= d[j];
      }
      double total = 0;
      for (int64_t t = 0; t < terms; ++t) {
        int64_t left = t, offset = from;
        for (int k = summed_count - 1; k >= 0; --k) {
          const int j = (int)summed[k];
          offset += left % d[j] * xs[j], left /= d[j];
        }
        total += x[offset];
      }
      y[to] = (float)total;
    }
  });
}

void argmax(const argmax_args& a) {
  check_size("rows", a.rows);
  check_size("cols", a.cols, 1);
  check_tensor("x", a.x, product(a.rows, a.cols));
  check_tensor("y", a.y, a.rows, DType::Int32);
  const int64_t cols = a.cols;
  parallel_pieces(a.rows, rows_of(16384, cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = a.x.f32() + r * cols;
      const float m = run<Max>(x, cols);
      int64_t i = 0;
      while (i < cols - 1 && !(x[i] == m || x[i] != x[i])) ++i;  // NaN counts as the largest
      a.y.i32()[r] = (int32_t)i;
    }
  });
}

void sum_squares(const sum_squares_args& a) {
  check_tensor("y", a.y, 1);
  constexpr int64_t kTask = 65536;
  int64_t tasks = 0;
  for (int i = 0; i < a.x.count; ++i) {
    check_tensor("x", a.x[i], 0);
    tasks += (a.x[i].bytes / 4 + kTask - 1) / kTask;
  }
  // One entry a task: its tensor and its place in it, then its result.
  struct Task {
    const float* x;
    int64_t n;
    double sum;
  };
  Task* task = static_cast<Task*>(scratch(0, (tasks + 1) * (int64_t)sizeof(Task)));
  int64_t k = 0;
  for (int i = 0; i < a.x.count; ++i) {
    const int64_t n = a.x[i].bytes / 4;
    for (int64_t at = 0; at < n; at += kTask) task[k++] = {a.x[i].f32() + at, n - at < kTask ? n - at : kTask, 0.0};
  }
  parallel_tasks(tasks, [&](int64_t t) {
    const float* x = task[t].x;
    const int64_t n = task[t].n;
    double s[16] = {};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
      for (int j = 0; j < 16; ++j) s[j] += (double)x[i + j] * (double)x[i + j];
    for (; i < n; ++i) s[0] += (double)x[i] * (double)x[i];
    double total = 0;
    for (double v : s) total += v;
    task[t].sum = total;
  });
  double total = 0;
  for (int64_t t = 0; t < tasks; ++t) total += task[t].sum;
  *a.y.f32() = (float)total;
}

void check_pick(int64_t rows, int64_t cols, const Ref& index) {
  check_size("rows", rows);
  check_size("cols", cols);
  check_tensor("index", index, rows, DType::Int32);
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t i = index.i32()[r];
    if (i != -100 && (i < 0 || i >= cols)) fail("index %d at row %lld is outside 0..%lld (or -100)", i, (long long)r, (long long)cols - 1);
  }
}

void pick(const pick_args& a) {
  check_pick(a.rows, a.cols, a.index);
  check_tensor("x", a.x, product(a.rows, a.cols));
  check_tensor("y", a.y, a.rows);
  for (int64_t r = 0; r < a.rows; ++r) {
    const int32_t i = a.index.i32()[r];
    a.y.f32()[r] = i == -100 ? 0.0f : a.x.f32()[r * a.cols + i];
  }
}

void pick_backward(const pick_backward_args& a) {
  check_pick(a.rows, a.cols, a.index);
  check_tensor("dy", a.dy, a.rows);
  check_tensor("dx", a.dx, product(a.rows, a.cols));
  parallel_pieces(a.rows, rows_of(65536, a.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* dx = a.dx.f32() + r * a.cols;
      memset(dx, 0, (size_t)a.cols * 4);
      const int32_t i = a.index.i32()[r];
      if (i != -100) dx[i] = a.dy.f32()[r];
    }
  });
}

}  // namespace

void register_reduce(Backend& b) {
  b.reduce = reduce;
  b.sum_to = sum_to;
  b.argmax = argmax;
  b.sum_squares = sum_squares;
  b.pick = pick;
  b.pick_backward = pick_backward;
}

}  // namespace TB_ISA
}  // namespace tunebook
