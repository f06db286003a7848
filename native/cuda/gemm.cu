// Matrix products of float32, bfloat16 and float16 operands: what stands around cuBLASLt (types, biases, groups, empty sums).
#include "gemm.h"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

// ---- operands of another type -------------------------------------------------------------

// Thread (x, y) of a block: 8 elements of a row. A row of `to` has `ld` elements, a multiple of 8: those past the columns are zero.
template <class From, class To>
__global__ void convert_rows(const From* x, To* to, int64_t count, int64_t rows, int64_t cols, int64_t from_ld, int64_t from_stride, int64_t ld, bool wide,
                             float scale) {
  for (int64_t r = blockIdx.y * (int64_t)blockDim.y + threadIdx.y; r < count * rows; r += (int64_t)gridDim.y * blockDim.y) {
    const From* row = x + r / rows * from_stride + r % rows * from_ld;
    for (int64_t c = 8 * (blockIdx.x * (int64_t)blockDim.x + threadIdx.x); c < ld; c += 8 * (int64_t)gridDim.x * blockDim.x) {
      float v[8];
      if (wide && c + 8 <= cols) {
        constexpr int kEach = Pack<From>::kCount;
#pragma unroll
        for (int p = 0; p < 8 / kEach; p++) {
          const Pack<From> from = load_pack(row + c + p * kEach);
#pragma unroll
          for (int i = 0; i < kEach; i++) v[p * kEach + i] = to_float(from.v[i]);
        }
      } else {
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = c + i < cols ? to_float(row[c + i]) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] *= scale;
      store_floats<8>(to + r * ld + c, v);
    }
  }
}

// y = sum + beta * y + bias, for what cuBLASLt cannot write itself: another type, an empty sum (sum absent), a bias it has no kernel for.
template <class T>
__global__ void finish_rows(T* y, const float* sum, const float* bias, int64_t batch, int64_t m, int64_t n, int64_t ldy, int64_t stride_y, float beta) {
  for (int64_t r = blockIdx.y; r < batch * m; r += gridDim.y) {
    T* row = y + r / m * stride_y + r % m * ldy;
    for (int64_t j = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; j < n; j += (int64_t)gridDim.x * blockDim.x) {
      float v = sum ? sum[r * n + j] : 0.0f;
      if (beta != 0.0f) v += beta * to_float(row[j]);
      if (bias) v += bias[j];
      row[j] = from_float<T>(v);
    }
  }
}

void finish(const Product& p, const float* sum, const Ref& bias, float beta) {
  const float* b = bias ? static_cast<const float*>(as_type({bias.data, bias.dtype, p.n}, 1, 1, p.n, DType::Float32, kPartials2).data) : nullptr;
  const dim3 grid((unsigned)min(blocks_for(p.n, 256), (int64_t)1024), (unsigned)min(p.batch * p.m, (int64_t)65535));
  with_float_type(p.y.dtype, "y", [&](auto of) {
    using T = decltype(of);
    finish_rows<T><<<grid, 256, 0, device.stream>>>(p.y.as<T>(), sum, b, p.batch, p.m, p.n, p.ldy, p.stride_y, beta);
  });
  launched("gemm");
}

}  // namespace

DType product_type(DType a, DType b, int64_t compute) {
  if (a == b && a != DType::Float32) return a;
  if (a == DType::Float32 && b == DType::Float32) return compute == 1 ? DType::BFloat16 : DType::Float32;
  if (a == DType::Float32) return b;
  if (b == DType::Float32) return a;
  return DType::BFloat16;  // the two 16-bit types meet in the one with the greater range
}

Matrix as_type(const Matrix& x, int64_t count, int64_t rows, int64_t cols, DType to, Slot slot, float scale) {
  if (x.dtype == to && scale == 1.0f) return x;
  if (count > 1 && x.stride == 0) count = 1;  // one matrix for all items
  const int64_t ld = blocks_for(cols, 8) * 8;
  Matrix out{scratch(slot, count * rows * ld * (int64_t)size_of(to)), to, ld, x.transposed, count > 1 ? rows * ld : 0};
  int tx = 1;
  while (tx < 256 && tx * 8 < ld) tx *= 2;
  const dim3 block(tx, 256 / tx);
  const dim3 grid((unsigned)min(blocks_for(ld, 8 * tx), (int64_t)64), (unsigned)min(blocks_for(count * rows, block.y), (int64_t)65535));
  with_float_type(x.dtype, "an operand", [&](auto from) {
    using From = decltype(from);
    const bool wide = packed<From>(x.data, x.ld) && (count == 1 || x.stride % Pack<From>::kCount == 0);
    with_float_type(to, "an operand", [&](auto into) {
      using To = decltype(into);
      convert_rows<<<grid, block, 0, device.stream>>>(static_cast<const From*>(x.data), static_cast<To*>(const_cast<void*>(out.data)), count, rows, cols, x.ld, x.stride,
                                                      ld, wide, scale);
    });
  });
  launched("rounding an operand");
  return out;
}

void multiply(const Product& given) {
  if (given.m <= 0 || given.n <= 0 || given.batch <= 0) return;
  if (given.k <= 0) return finish(given, nullptr, given.bias, given.beta);
  Product p = given;
  if (p.y.dtype != DType::Float32 && p.y.dtype != p.a.dtype) {  // such as a 16-bit y of a float32 product
    float* sum = scratch_of<float>(kPartials, p.batch * p.m * p.n);
    p.y = Ref{sum, p.batch * p.m * p.n * 4, DType::Float32};
    p.ldy = p.n;
    p.stride_y = p.m * p.n;
    p.beta = 0;
    p.bias = Ref{};
    matmul(p);
    return finish(given, sum, given.bias, given.beta);
  }
  if (p.bias) {
    const Matrix bias = as_type({p.bias.data, p.bias.dtype, p.n}, 1, 1, p.n, p.y.dtype, kPartials2);
    p.bias = Ref{const_cast<void*>(bias.data), p.n * (int64_t)size_of(bias.dtype), bias.dtype};
  }
  if (matmul(p)) return;
  p.bias = Ref{};
  matmul(p);
  finish(given, nullptr, given.bias, 1.0f);
}

void check_compute(int64_t compute) {
  if (compute != 0 && compute != 1) fail("compute must be 0 (float32) or 1 (bfloat16), but is %lld", (long long)compute);
}

void check_matrix(const char* name, const Ref& x, int64_t rows, int64_t cols, int64_t ld, int64_t before) {
  if (rows <= 0 || cols <= 0) return;
  if (ld < cols && rows > 1) fail("%s has rows of %lld elements, but a row stride of %lld", name, (long long)cols, (long long)ld);
  if (x.dtype != DType::Float32 && x.dtype != DType::BFloat16 && x.dtype != DType::Float16) fail("%s must be float32, bfloat16 or float16", name);
  const int64_t last = before + (rows - 1) * ld + cols, have = x.bytes / (int64_t)size_of(x.dtype);
  if (last > have) fail("%s has %lld elements, but %lld are needed", name, (long long)have, (long long)last);
}

namespace {

void gemm(const gemm_args& g) {
  check_compute(g.compute);
  check_matrix("a", g.a, g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, g.lda);
  check_matrix("b", g.b, g.trans_b ? g.n : g.k, g.trans_b ? g.k : g.n, g.ldb);
  check_matrix("y", g.y, g.m, g.n, g.ldy);
  if (g.bias) check_matrix("bias", g.bias, 1, g.n, g.n);
  const DType type = product_type(g.a.dtype, g.b.dtype, g.compute);
  Product p{g.m, g.n, g.k};
  const Matrix a{g.a.data, g.a.dtype, g.lda, g.trans_a != 0}, b{g.b.data, g.b.dtype, g.ldb, g.trans_b != 0};
  if (gemv(g.m, g.n, g.k, a, b, {}, g.y, g.ldy, g.alpha, g.beta, g.bias)) return;
  if (!g.bias && rank_update(g.m, g.n, g.k, a, b, g.y, g.ldy, g.alpha, g.beta)) return;
  if (g.m > 0 && g.n > 0 && g.k > 0) {
    p.a = as_type(a, 1, g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, type, kOperandA);
    p.b = as_type(b, 1, g.trans_b ? g.n : g.k, g.trans_b ? g.k : g.n, type, kOperandB);
  }
  p.y = g.y;
  p.ldy = g.ldy;
  p.alpha = g.alpha;
  p.beta = g.beta;
  p.bias = g.bias;
  multiply(p);
}

char* at(const Matrix& x, int64_t item) { return static_cast<char*>(const_cast<void*>(x.data)) + item * x.stride * (int64_t)size_of(x.dtype); }

// Items [first, first + count * step) by `step`, whose b are consecutive from item `first_b` on.
void part(const Product& all, int64_t first, int64_t step, int64_t count, int64_t first_b) {
  Product p = all;
  p.batch = count;
  p.a.data = at(all.a, first);
  p.a.stride = step * all.a.stride;
  p.b.data = at(all.b, first_b);
  p.y.data = all.y.u8() + first * all.stride_y * (int64_t)size_of(all.y.dtype);
  p.stride_y = step * all.stride_y;
  multiply(p);
}

void gemm_batched(const gemm_batched_args& g) {
  check_compute(g.compute);
  if (g.batch <= 0 || g.m <= 0 || g.n <= 0) return;
  const int64_t group = g.b_group > 1 ? g.b_group : 1, last = g.batch - 1, count_b = last / group + 1;
  const int64_t rows_a = g.trans_a ? g.k : g.m, cols_a = g.trans_a ? g.m : g.k, rows_b = g.trans_b ? g.n : g.k, cols_b = g.trans_b ? g.k : g.n;
  check_matrix("a", g.a, rows_a, cols_a, g.lda, last * g.stride_a);
  check_matrix("b", g.b, rows_b, cols_b, g.ldb, (count_b - 1) * g.stride_b);
  check_matrix("y", g.y, g.m, g.n, g.ldy, last * g.stride_y);
  const DType type = product_type(g.a.dtype, g.b.dtype, g.compute);
  Product p{g.m, g.n, g.k};
  p.a = {g.a.data, g.a.dtype, g.lda, g.trans_a != 0, g.stride_a};
  p.b = {g.b.data, g.b.dtype, g.ldb, g.trans_b != 0, g.stride_b};
  if (g.k > 0) {
    p.a = as_type(p.a, g.batch, rows_a, cols_a, type, kOperandA);
    p.b = as_type(p.b, count_b, rows_b, cols_b, type, kOperandB);
  }
  p.y = g.y;
  p.ldy = g.ldy;
  p.stride_y = g.stride_y;
  p.alpha = g.alpha;
  p.beta = g.beta;
  p.batch = g.batch;
  if (group == 1) return multiply(p);
  const int64_t whole = g.batch / group;
  const bool stacked = !p.a.transposed && p.a.stride == g.m * p.a.ld && p.stride_y == g.m * p.ldy;
  if (stacked) {  // the rows of a group lie below each other: one product
    Product q = p;
    q.m = group * g.m;
    q.batch = whole;
    q.a.stride = group * p.a.stride;
    q.stride_y = group * p.stride_y;
    multiply(q);
  } else if (whole > 0) {
    for (int64_t j = 0; j < group; j++) part(p, j, group, whole, 0);
  }
  for (int64_t i = whole * group; i < g.batch; i++) part(p, i, 1, 1, whole);
}

}  // namespace

void register_gemm(Backend& b) {
  b.gemm = gemm;
  b.gemm_batched = gemm_batched;
}

}  // namespace cuda
}  // namespace tunebook
