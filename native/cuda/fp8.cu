// Weights in E4M3 codes with one scale a row: quantising, restoring (the same bytes as the CPU's), products, of codes alone where the GPU
// multiplies them.
#include "fp8.cuh"

#include <cstdlib>
#include <cstring>

#include "checks.h"
#include "cublaslt.h"
#include "fp8_checks.h"
#include "frozen.h"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

void check_codes(const Ref& q, const Ref& scale, int64_t rows, int64_t cols) {
  check_size("rows", rows);
  check_size("cols", cols);
  check_tensor("q", q, product(rows, cols), DType::UInt8);
  check_tensor("scale", scale, rows);
}

void quantize_fp8(const quantize_fp8_args& g) {
  check_codes(g.q, g.scale, g.rows, g.cols);
  check_count("x", g.x, product(g.rows, g.cols));
  encode_rows(g.x, g.cols, nullptr, g.rows, g.cols, g.q.u8(), g.scale.f32());
}

void dequantize_fp8(const dequantize_fp8_args& g) {
  check_codes(g.q, g.scale, g.rows, g.cols);
  check_count("y", g.y, product(g.rows, g.cols));
  decode_rows(g.q.u8(), g.scale.f32(), g.rows, g.cols, g.y);
}

// Whether the GPU and the library multiply E4M3 with a scale a row. TUNEBOOK_FP8=0: they are not asked.
bool multiplies_codes() {
  static const bool wanted = [] {
    const char* asked = getenv("TUNEBOOK_FP8");
    return asked == nullptr || strcmp(asked, "0") != 0;
  }();
  return wanted && device.major * 10 + device.minor >= 89 && lt::library().version() >= lt::kFirstWithScalesOfRows;
}

// TUNEBOOK_FP8_FAST=1: sums of the forward products lose digits on the way (the tensor cores' own instead of float32 between pieces of k).
// Some 5% faster; off, because the error grows with k.
bool fast_sums() {
  static const bool on = [] {
    const char* asked = getenv("TUNEBOOK_FP8_FAST");
    return asked != nullptr && strcmp(asked, "1") == 0;
  }();
  return on;
}

constexpr int64_t kAlignment = 256;
int64_t aligned_bytes(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// a's codes (m x k) and scales, and what is left to do with them.
struct Rounded {
  uint8_t* codes;
  float* scale;
};

Rounded round_a(const gemm_fp8_args& g, const Product& p) {
  if (g.a_scale) return {g.a.u8(), g.a_scale.f32()};
  const int64_t bytes = aligned_bytes(p.m * p.k);
  uint8_t* at = static_cast<uint8_t*>(scratch(kOperandA, bytes + p.m * 4));
  const Rounded r{at, reinterpret_cast<float*>(at + bytes)};
  encode_rows(g.a, g.lda, g.trans_w ? nullptr : g.scale.f32(), p.m, p.k, r.codes, r.scale);
  return r;
}

// The product of the codes as they are. False where the library has no kernel for it.
bool product_of_codes(Product p, const gemm_fp8_args& g, const Rounded& a) {
  // Rows of 16 codes at a time, and a y of which the library knows what it is.
  if (p.k % 16 != 0 || p.n % 16 != 0 || reinterpret_cast<uintptr_t>(g.q.data) % 16 != 0 || !multiplies_codes()) return false;
  const uint8_t* weight = g.q.u8();
  p.scale_b = g.scale.f32();
  if (!g.trans_w) {  // the library wants both operands along k
    const int64_t bytes = aligned_bytes(g.rows * g.cols);
    uint8_t* turned = static_cast<uint8_t*>(scratch(kWeights, bytes + g.cols * 4));
    float* ones = reinterpret_cast<float*>(turned + bytes);
    transpose_codes(weight, g.rows, g.cols, turned, ones);
    weight = turned;
    p.scale_b = ones;
  }
  p.a = {a.codes, DType::UInt8, p.k};
  p.scale_a = a.scale;
  p.b = {weight, DType::UInt8, p.k, true};
  p.fast = g.trans_w && fast_sums();
  if (p.bias) {
    const Matrix bias = as_type({p.bias.data, p.bias.dtype, p.n}, 1, 1, p.n, p.y.dtype, kPartials2);
    p.bias = Ref{const_cast<void*>(bias.data), p.n * (int64_t)size_of(bias.dtype), bias.dtype};
  }
  return matmul(p);
}

// Both operands restored to the product's type: the same numbers, but for that type's rounding of codes times scales.
void product_of_restored(Product p, const gemm_fp8_args& g, const Rounded& a) {
  const DType type = g.a_scale ? product_type(g.y.dtype, g.y.dtype, g.compute) : type_of(g);
  auto room = [&](Slot slot, int64_t count) {
    const int64_t bytes = count * (int64_t)size_of(type);
    return Ref{scratch(slot, bytes), bytes, type};
  };
  const Ref left = room(kOperandB, p.m * p.k), weight = room(kWeights, g.rows * g.cols);
  decode_rows(a.codes, a.scale, p.m, p.k, left);
  decode_rows(g.q.u8(), g.trans_w ? g.scale.f32() : nullptr, g.rows, g.cols, weight);
  p.a = {left.data, type, p.k};
  p.b = {weight.data, type, g.cols, g.trans_w != 0};
  multiply(p);
}

void gemm_fp8(const gemm_fp8_args& g) {
  check_codes(g.q, g.scale, g.rows, g.cols);
  check_rounding(g);
  const Product p = open_product(g, !g.a_scale);
  if (p.m <= 0 || p.n <= 0) return;
  if (g.round_a && p.k > 0) {
    const Rounded a = round_a(g, p);
    if (!product_of_codes(p, g, a)) product_of_restored(p, g, a);
    return;
  }
  const Matrix codes{g.q.data, DType::UInt8, g.cols, true};
  if (g.trans_w && gemv(p.m, p.n, p.k, p.a, codes, {g.scale.f32(), true}, g.y, g.ldy, g.alpha, g.beta, g.bias)) return;
  multiply_restored(p, g, [&](const Ref& to) { decode_rows(g.q.u8(), g.scale.f32(), g.rows, g.cols, to); });
}

}  // namespace

void register_fp8(Backend& b) {
  b.gemm_fp8 = gemm_fp8;
  b.quantize_fp8 = quantize_fp8;
  b.dequantize_fp8 = dequantize_fp8;
}

}  // namespace cuda
}  // namespace tunebook
