#include "super_blocks.h"

#include <cstring>

#include "block_planes.h"

namespace tunebook {
namespace {

// A half as float32, exactly.
float widen(const uint8_t* from) {
  const uint32_t h = from[0] | static_cast<uint32_t>(from[1]) << 8, sign = (h & 0x8000) << 16;
  const uint32_t exponent = h >> 10 & 31, digits = h & 1023;
  float value;
  if (exponent == 0) {  // digits * 2^-24
    value = static_cast<float>(digits) * 5.9604644775390625e-8f;
    return sign != 0 ? -value : value;
  }
  const uint32_t word = sign | (exponent == 31 ? 255u << 23 : (exponent + 112) << 23) | digits << 13;
  memcpy(&value, &word, 4);
  return value;
}

// The eight pairs of a scale and a minimum, 6 bits each, in 12 bytes: the upper bits of the last four stand above those of the first four.
void unpack_scales(const uint8_t* s, uint8_t* scale, uint8_t* minimum) {
  for (int i = 0; i < 4; i++) {
    scale[i] = s[i] & 63;
    minimum[i] = s[i + 4] & 63;
    scale[i + 4] = static_cast<uint8_t>((s[i + 8] & 15) | s[i] >> 6 << 4);
    minimum[i + 4] = static_cast<uint8_t>(s[i + 8] >> 4 | s[i + 4] >> 6 << 4);
  }
}

// A half scale, 32 signed bytes: scale * q.
void restore_q8_0(const uint8_t* from, float* to) {
  const float d = widen(from);
  const int8_t* q = reinterpret_cast<const int8_t*>(from + 2);
  for (int i = 0; i < 32; i++) to[i] = d * static_cast<float>(q[i]);
}

// A half scale, 16 bytes of nibbles: scale * (q - 8).
void restore_q4_0(const uint8_t* from, float* to) {
  const float d = widen(from);
  for (int i = 0; i < 16; i++) {
    to[i] = d * static_cast<float>((from[2 + i] & 15) - 8);
    to[i + 16] = d * static_cast<float>((from[2 + i] >> 4) - 8);
  }
}

// A half scale, a half minimum, 16 bytes of nibbles: scale * q + minimum. The product has 15 bits, so only the sum is rounded.
void restore_q4_1(const uint8_t* from, float* to) {
  const float d = widen(from), least = widen(from + 2);
  for (int i = 0; i < 16; i++) {
    to[i] = d * static_cast<float>(from[4 + i] & 15) + least;
    to[i + 16] = d * static_cast<float>(from[4 + i] >> 4) + least;
  }
}

// A half scale, 4 bytes with the fifth bits, 16 bytes of nibbles: scale * (q - 16).
void restore_q5_0(const uint8_t* from, float* to) {
  const float d = widen(from);
  const uint32_t high = from[2] | from[3] << 8 | from[4] << 16 | static_cast<uint32_t>(from[5]) << 24;
  for (int i = 0; i < 16; i++) {
    const int byte = from[6 + i];
    to[i] = d * static_cast<float>(((byte & 15) | static_cast<int>(high >> i & 1) << 4) - 16);
    to[i + 16] = d * static_cast<float>((byte >> 4 | static_cast<int>(high >> (i + 16) & 1) << 4) - 16);
  }
}

// Scale and minimum of the scales, the 6-bit pairs, for Q5_K 32 bytes with a fifth bit for each of the eight parts, then nibbles: two parts in 32 bytes.
template <bool kFifth>
void restore_pairs(const uint8_t* from, float* to) {
  const float d = widen(from), least = widen(from + 2);
  uint8_t scale[8], minimum[8];
  unpack_scales(from + 4, scale, minimum);
  const uint8_t* high = from + 16;
  const uint8_t* q = from + (kFifth ? 48 : 16);
  for (int part = 0; part < 8; part++) {
    const float by = d * scale[part], less = least * minimum[part];
    const uint8_t* codes = q + part / 2 * 32;
    for (int i = 0; i < 32; i++) {
      int code = part % 2 != 0 ? codes[i] >> 4 : codes[i] & 15;
      if (kFifth) code |= (high[i] >> part & 1) << 4;
      // Two roundings, as the peers have: the file is compiled for processors without a fused form.
      const float product = by * static_cast<float>(code);
      to[part * 32 + i] = product - less;
    }
  }
}

// 128 bytes of low nibbles, 64 bytes with the two upper bits, 16 signed scales, the half scale of the scales: scale * (q - 32).
void restore_q6_k(const uint8_t* from, float* to) {
  const float d = widen(from + 208);
  const int8_t* scales = reinterpret_cast<const int8_t*>(from + 192);
  for (int half = 0; half < 2; half++) {
    const uint8_t* low = from + half * 64;
    const uint8_t* high = from + 128 + half * 32;
    for (int quarter = 0; quarter < 4; quarter++) {
      for (int i = 0; i < 32; i++) {
        const int byte = low[quarter % 2 * 32 + i];
        const int code = (quarter < 2 ? byte & 15 : byte >> 4) | (high[i] >> (2 * quarter) & 3) << 4;
        const float by = d * scales[half * 8 + quarter * 2 + i / 16];
        *to++ = by * static_cast<float>(code - 32);
      }
    }
  }
}

}  // namespace

int64_t bytes_of_super(SuperKind kind) {
  constexpr int64_t kBytes[kSuperKinds] = {22, 144, 176, 210, 34, 18, 20};
  return kBytes[static_cast<int>(kind)];
}

int64_t elements_of_super(SuperKind kind) {
  return kind == SuperKind::Q4_K || kind == SuperKind::Q5_K || kind == SuperKind::Q6_K ? 256 : 32;
}

void place_restored(void* context, int64_t at, const char* piece, int64_t bytes) {
  const Restored& r = *static_cast<const Restored*>(context);
  const int64_t each = bytes_of_super(r.kind), elements = elements_of_super(r.kind);
  const uint8_t* from = reinterpret_cast<const uint8_t*>(piece);
  for (int64_t b = at / each, end = (at + bytes) / each; b < end; b++, from += each) {
    float* to = r.to + (row_place(b / r.row_blocks, r.head_rows) * r.row_blocks + b % r.row_blocks) * elements;
    switch (r.kind) {
      case SuperKind::Q5_0: restore_q5_0(from, to); break;
      case SuperKind::Q4_K: restore_pairs<false>(from, to); break;
      case SuperKind::Q5_K: restore_pairs<true>(from, to); break;
      case SuperKind::Q6_K: restore_q6_k(from, to); break;
      case SuperKind::Q8_0: restore_q8_0(from, to); break;
      case SuperKind::Q4_0: restore_q4_0(from, to); break;
      case SuperKind::Q4_1: restore_q4_1(from, to); break;
    }
  }
}

}  // namespace tunebook
