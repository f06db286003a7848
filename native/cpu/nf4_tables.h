// The numbers of NF4 and of the 8-bit dynamic map (QLoRA, https://arxiv.org/abs/2305.14314; bitsandbytes).
#pragma once

namespace tunebook {

extern const float kNf4Codes[16];
// Borders between neighbouring codes; the sixteenth never lies below a number.
extern const float kNf4Borders[16];
// The signed dynamic map of 256 ascending values that double quantisation uses.
const float* dynamic_map();

}  // namespace tunebook
