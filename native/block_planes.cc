#include "block_planes.h"

#include <algorithm>
#include <cstring>

#include "backend.h"

namespace tunebook {
namespace {

// -8 times a half: exact unless it is among the very largest, which become infinite.
uint16_t times_minus_8(uint16_t h) {
  const uint16_t sign = static_cast<uint16_t>((h & 0x8000) ^ 0x8000);
  int exponent = h >> 10 & 31, digits = h & 1023;
  if (exponent == 31) return static_cast<uint16_t>(sign | 0x7c00 | (digits != 0 ? 0x200 : 0));
  if (exponent != 0) return static_cast<uint16_t>(exponent + 3 >= 31 ? sign | 0x7c00 : sign | (exponent + 3) << 10 | digits);
  digits <<= 3;  // a subnormal one: digits * 2^-24
  if (digits < 1024) return static_cast<uint16_t>(sign | digits);
  for (exponent = 1; digits >= 2048; exponent++) digits >>= 1;  // the bits that leave are zero
  return static_cast<uint16_t>(sign | exponent << 10 | (digits - 1024));
}

template <BlockKind kKind>
void split(const BlockPlanes& p, const char* from, int64_t first, int64_t count) {
  constexpr int64_t kCodes = kKind == BlockKind::Q8_0 ? 32 : 16;
  constexpr int64_t kBlock = kCodes + (kKind == BlockKind::Q4_1 ? 4 : 2);
  for (int64_t b = first; b < first + count; b++, from += kBlock) {
    uint16_t scale;
    memcpy(&scale, from, 2);
    p.scale[b] = scale;
    if (kKind == BlockKind::Q4_1) memcpy(p.minimum + b, from + 2, 2);
    if (kKind == BlockKind::Q4_0) p.minimum[b] = times_minus_8(scale);  // scale * (q - 8)
    memcpy(p.codes + b * kCodes, from + kBlock - kCodes, kCodes);
  }
}

}  // namespace

int64_t bytes_of_block(BlockKind kind) { return kind == BlockKind::Q8_0 ? 34 : kind == BlockKind::Q4_0 ? 18 : 20; }

int64_t rows_of_blocks(int64_t bytes, int64_t unit, int64_t elements, int64_t columns, int64_t head_rows) {
  if (columns < elements || columns % elements != 0) fail("rows of %lld are no blocks of %lld", (long long)columns, (long long)elements);
  const int64_t row_blocks = columns / elements, blocks = bytes / unit, rows = blocks / row_blocks;
  if (bytes < 0 || blocks * unit != bytes || rows * row_blocks != blocks || head_rows < 0 ||
      (head_rows > 0 && (head_rows % 2 != 0 || rows % head_rows != 0))) {
    fail("%lld bytes are no rows of %lld in such blocks, or no heads of %lld rows", (long long)bytes, (long long)columns, (long long)head_rows);
  }
  return rows;
}

void place_blocks(void* context, int64_t at, const char* piece, int64_t bytes) {
  const BlockPlanes& p = *static_cast<const BlockPlanes*>(context);
  const int64_t each = bytes_of_block(p.kind), end = (at + bytes) / each;
  for (int64_t b = at / each; b < end;) {
    // As many as stand together: up to the end of the row where rows change places.
    const int64_t row = b / p.row_blocks, inside = b % p.row_blocks;
    int64_t count = end - b, to = b;
    if (p.head_rows > 0) {
      count = std::min(count, p.row_blocks - inside);
      to = row_place(row, p.head_rows) * p.row_blocks + inside;
    }
    switch (p.kind) {
      case BlockKind::Q8_0: split<BlockKind::Q8_0>(p, piece, to, count); break;
      case BlockKind::Q4_0: split<BlockKind::Q4_0>(p, piece, to, count); break;
      case BlockKind::Q4_1: split<BlockKind::Q4_1>(p, piece, to, count); break;
    }
    piece += count * each;
    b += count;
  }
}

}  // namespace tunebook
