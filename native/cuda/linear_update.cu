// Linear layers with a low-rank update: one product of all of it where there is a kernel. Else a layer's output gets its update last, by a kernel that does not lose it
// where it is small (rank_update.cu). With few rows it comes first, because their kernels round the sum once; and in the gradient of an input, whose direction does not hang
// on it.
#include "linear_update.h"

#include "frozen.h"
#include "nf4.cuh"

namespace tunebook {
namespace cuda {
namespace {

const Backend* table = nullptr;

// Elements of several weights of codes that are restored beside each other, so as not to need more scratch memory than the largest weight of a model does.
constexpr int64_t kMostTogether = int64_t{1} << 26;

void apart(const linear_update_args& g) {
  if (g.m <= kFewRows || !g.trans_w) return update_then_products(*table, g);
  add_products(*table, g, 0, 0);
  gemm_args update = update_of(g);
  update.beta = 1;
  table->gemm(update);
}

void linear_update(const linear_update_args& g) {
  check_linear_update(g);
  const bool trans = g.trans_w != 0, coded = g.q.count > 0;
  // The weights of the one product; those that are left over are added to it.
  const int count = coded && g.rows * g.cols > kMostTogether ? 1 : min(g.a.count, kMostParts - 1);
  const int64_t n = trans ? g.rows : g.cols;
  if (g.m <= 0 || n <= 0) return apart(g);
  const DType type = product_type(g.a[0].dtype, coded ? g.a[0].dtype : g.b[0].dtype, g.compute);
  Product p{g.m, n, 0};
  p.y = g.y, p.ldy = g.ldy, p.bias = g.bias;
  check_matrix("y", g.y, g.m, n, g.ldy);
  check_matrix("u", g.u, g.m, g.rank, g.ldu);
  const int64_t v_rows = trans ? g.rows : g.rank, v_cols = trans ? g.rank : g.cols;
  check_matrix("v", g.v, v_rows, v_cols, v_cols);
  if (g.bias) check_matrix("bias", g.bias, 1, n, n);
  Part parts[kMostParts];
  for (int i = 0; i < count; ++i) {
    const int64_t rows = rows_of(g, i), k = trans ? g.cols : rows;
    check_matrix("a", g.a[i], g.m, k, k);
    if (!coded) check_matrix("b", g.b[i], rows, g.cols, g.cols);
    parts[i] = {{g.a[i].data, g.a[i].dtype, k}, {coded ? nullptr : g.b[i].data, coded ? type : g.b[i].dtype, g.cols, trans}, k};
  }
  const Matrix v{g.v.data, g.v.dtype, v_cols, trans};
  const bool rounded = v.dtype != type || g.scale != 1.0f;  // then it will stand in scratch memory
  parts[count] = {{g.u.data, g.u.dtype, g.ldu}, rounded ? Matrix{nullptr, type, 8 * blocks_for(v_cols, 8), trans} : v, g.rank};
  if (!has_parts_kernel(p, parts, count + 1)) return apart(g);
  if (coded) {
    const int64_t item = (int64_t)size_of(type);
    int64_t elements = 0;
    for (int i = 0; i < count; ++i) elements += rows_of(g, i) * g.cols;
    char* at = static_cast<char*>(scratch(kWeights, elements * item));
    for (int i = 0; i < count; ++i) {
      const gemm_nf4_args c = codes_of(g, i);
      const int64_t size = c.rows * c.cols;
      dequantize(open_nf4(c.q, c.absmax, c.absmax2, c.offset, size, c.block, c.kind), size, Ref{at, size * item, type}, device.stream);
      parts[i].b.data = at;
      at += size * item;
    }
  }
  if (p.bias) {
    const Matrix bias = as_type({p.bias.data, p.bias.dtype, n}, 1, 1, n, type, kPartials2);
    p.bias = Ref{const_cast<void*>(bias.data), n * (int64_t)size_of(type), type};
  }
  parts[count].b = as_type(v, 1, v_rows, v_cols, type, kOperandB, g.scale);
  multiply_parts(p, parts, count + 1);
  add_products(*table, g, count);
}

}  // namespace

void register_linear_update(Backend& b) {
  b.linear_update = linear_update;
  table = &b;
}

}  // namespace cuda
}  // namespace tunebook
