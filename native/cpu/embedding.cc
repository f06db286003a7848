// isa: portable avx2 avx512
// Rows of a table by id, and the sum of gradients back into it.
#include "checks.h"
#include "half.h"
#include "parallel.h"

namespace tunebook {
namespace TB_ISA {
namespace {

void check_ids(const Ref& ids, int64_t rows, int64_t dim, int64_t vocab) {
  check_size("rows", rows);
  check_size("dim", dim);
  check_size("vocab", vocab);
  check_tensor("ids", ids, rows, DType::Int32);
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t id = ids.i32()[r];
    if (id < 0 || id >= vocab)
      fail("id %d at row %lld is outside the vocabulary of %lld (0..%lld)", id, (long long)r, (long long)vocab, (long long)vocab - 1);
  }
}

void embedding(const embedding_args& a) {
  check_ids(a.ids, a.rows, a.dim, a.vocab);
  check_tensor("weight", a.weight, product(a.vocab, a.dim), a.weight.dtype);
  check_tensor("y", a.y, product(a.rows, a.dim));
  with_float_dtype(a.weight.dtype, [&](auto* of) {
    const auto* table = static_cast<decltype(of)>(a.weight.data);
    parallel_pieces(a.rows, rows_of(16384, a.dim), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const auto* from = table + a.ids.i32()[r] * a.dim;
        float* to = a.y.f32() + r * a.dim;
        for_vectors(a.dim, [=](int64_t i, int64_t m) { store_to(to + i, load_as(from + i, m), m); });
      }
    });
  });
}

void embedding_backward(const embedding_backward_args& a) {
  check_ids(a.ids, a.rows, a.dim, a.vocab);
  check_tensor("dy", a.dy, product(a.rows, a.dim));
  check_tensor("dweight", a.dweight, product(a.vocab, a.dim));
  // A task owns columns, not rows: an id that occurs twice is summed in the order of the rows, by one thread.
  parallel_pieces(a.dim, 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < a.rows; ++r) {
      const float* dy = a.dy.f32() + r * a.dim + begin;
      float* dw = a.dweight.f32() + a.ids.i32()[r] * a.dim + begin;
      for_vectors(end - begin, [=](int64_t i, int64_t m) { store_to(dw + i, load_to(dw + i, m) + load_to(dy + i, m), m); });
    }
  });
}

}  // namespace

void register_embedding(Backend& b) {
  b.embedding = embedding;
  b.embedding_backward = embedding_backward;
}

}  // namespace TB_ISA
}  // namespace tunebook
