// The numbers of NF4, of FP4 and of the 8-bit dynamic map (QLoRA, https://arxiv.org/abs/2305.14314; bitsandbytes).
#pragma once

namespace tunebook {

extern const float kNf4Codes[16];
// Borders between neighbouring codes; the sixteenth never lies below a number.
extern const float kNf4Borders[16];
// FP4: bit 3 is the sign, the other bits index eight magnitudes.
extern const float kFp4Codes[16];
// Borders between neighbours among its ascending values, and the code of each rank.
extern const float kFp4Borders[16];
extern const unsigned char kFp4Order[16];
// The signed dynamic map of 256 ascending values that double quantisation uses.
const float* dynamic_map();
// The unsigned one, of values from 0 to 1, for what is never negative.
const float* dynamic_map_unsigned();
// The codes of the 65,536 values -1 + 2j/65535 on a map: bitsandbytes quantises through such a table on CPUs.
const unsigned char* dynamic_codes();
const unsigned char* dynamic_codes_unsigned();

}  // namespace tunebook
