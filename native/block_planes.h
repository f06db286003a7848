// Blocks of llama.cpp's files, taken apart while they are read: the scale, the minimum and the codes of each to planes of their own.
#pragma once
#include <cstdint>

namespace tunebook {

enum class BlockKind : int { Q8_0 = 0, Q4_0 = 1, Q4_1 = 2 };

struct BlockPlanes {
  BlockKind kind = BlockKind::Q8_0;
  uint8_t* codes = nullptr;      // 32 bytes a block of Q8_0, else 16
  uint16_t* scale = nullptr;     // bits of halves
  uint16_t* minimum = nullptr;   // likewise; not for Q8_0
  int64_t row_blocks = 0;        // blocks of a row
  // Rows of a head, where the file holds them as 0, half, 1, half + 1, … (Q and K, for rotating neighbouring pairs) and 0, 1, 2, … are wanted; else 0.
  int64_t head_rows = 0;
};

int64_t bytes_of_block(BlockKind kind);
// How many rows of `columns` elements some bytes hold in blocks of `unit` bytes and `elements` elements. Throws OpError when they are no whole rows or heads.
int64_t rows_of_blocks(int64_t bytes, int64_t unit, int64_t elements, int64_t columns, int64_t head_rows);

// Where a row of the file belongs, by `head_rows` above.
inline int64_t row_place(int64_t row, int64_t head_rows) {
  if (head_rows == 0) return row;
  const int64_t in_head = row % head_rows;
  return row - in_head + in_head % 2 * (head_rows / 2) + in_head / 2;
}

// context: a BlockPlanes. `at` and `bytes` are whole blocks. (file_loader.h: PlacePiece)
void place_blocks(void* context, int64_t at, const char* piece, int64_t bytes);

}  // namespace tunebook
