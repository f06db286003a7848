// Blocks of llama.cpp's files that are restored to 32 bits while they are read: those of 32 elements, and the K-quants, whose 256 elements share a scale of scales.
#pragma once
#include <cstdint>

namespace tunebook {

enum class SuperKind : int { Q5_0 = 0, Q4_K = 1, Q5_K = 2, Q6_K = 3, Q8_0 = 4, Q4_0 = 5, Q4_1 = 6 };
constexpr int kSuperKinds = 7;

struct Restored {
  SuperKind kind = SuperKind::Q4_K;
  float* to = nullptr;     // the whole matrix
  int64_t row_blocks = 0;  // blocks of a row
  int64_t head_rows = 0;   // as in BlockPlanes (block_planes.h)
};

int64_t bytes_of_super(SuperKind kind);
int64_t elements_of_super(SuperKind kind);
// context: a Restored. `at` and `bytes` are whole blocks. (file_loader.h: PlacePiece)
void place_restored(void* context, int64_t at, const char* piece, int64_t bytes);

}  // namespace tunebook
