// Ops over lists of tensors: a launch takes some of them by value, cut into pieces of one size, a block a piece.
#pragma once
#include <type_traits>

#include "check.cuh"

namespace tunebook {
namespace cuda {

constexpr int kTensors = 96;  // of one launch: their pointers travel as the kernel's argument

template <int kLists> struct Chunk {
  void* data[kLists][kTensors];
  int64_t n[kTensors];          // elements
  int32_t first[kTensors + 1];  // number of each tensor's first piece among the launch's
  int32_t count;

  // The tensor that a piece belongs to.
  __device__ int find(int piece) const {
    int low = 0, high = count - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (first[middle] <= piece) low = middle;
      else high = middle - 1;
    }
    return low;
  }
};

// f(chunk, pieces, done) for all tensors of the lists: `done` pieces belong to earlier launches. Tensors without elements are left out; n
// counts elements of the first list. A chunk is closed early when its pieces would not fit one grid.
template <int kLists, class F> void each_chunk(const RefList* const (&lists)[kLists], int64_t piece, F&& f) {
  constexpr int64_t kMost = (int64_t)1 << 30;
  Chunk<kLists> chunk;
  chunk.count = 0;
  int64_t pieces = 0, done = 0;
  const auto flush = [&] {
    if (chunk.count == 0) return;
    chunk.first[chunk.count] = (int32_t)pieces;
    f(chunk, pieces, done);
    done += pieces, pieces = 0, chunk.count = 0;
  };
  for (int i = 0; i < lists[0]->count; ++i) {
    const Ref& t = (*lists[0])[i];
    const int64_t n = t.bytes / (int64_t)size_of(t.dtype), own = blocks_for(n, piece);
    if (n == 0) continue;
    if (own > kMost) fail("a tensor of %lld elements is too large", (long long)n);
    if (chunk.count == kTensors || pieces + own > kMost) flush();
    for (int k = 0; k < kLists; ++k) chunk.data[k][chunk.count] = lists[k]->count > i ? (*lists[k])[i].data : nullptr;
    chunk.n[chunk.count] = n;
    chunk.first[chunk.count++] = (int32_t)pieces;
    pieces += own;
  }
  flush();
}

}  // namespace cuda
}  // namespace tunebook
