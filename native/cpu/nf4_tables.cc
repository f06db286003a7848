// isa: none
#include "nf4_tables.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tunebook {

alignas(64) const float kNf4Codes[16] = {-1.0f,
                                         -0.6961928009986877f,
                                         -0.5250730514526367f,
                                         -0.39491748809814453f,
                                         -0.28444138169288635f,
                                         -0.18477343022823334f,
                                         -0.09105003625154495f,
                                         0.0f,
                                         0.07958029955625534f,
                                         0.16093020141124725f,
                                         0.24611230194568634f,
                                         0.33791524171829224f,
                                         0.44070982933044434f,
                                         0.5626170039176941f,
                                         0.7229568362236023f,
                                         1.0f};

alignas(64) const float kNf4Borders[16] = {-0.8480964004993439f,
                                           -0.6106329262256622f,
                                           -0.4599952697753906f,
                                           -0.33967943489551544f,
                                           -0.23460740596055984f,
                                           -0.13791173323988914f,
                                           -0.045525018125772476f,
                                           0.03979014977812767f,
                                           0.1202552504837513f,
                                           0.2035212516784668f,
                                           0.2920137718319893f,
                                           0.3893125355243683f,
                                           0.5016634166240692f,
                                           0.6427869200706482f,
                                           0.8614784178118011f,
                                           std::numeric_limits<float>::infinity()};

alignas(64) const float kFp4Codes[16] = {0.0f,  0.0052083334885537624f,  0.6666666865348816f,  1.0f,  0.3333333432674408f,  0.5f,  0.1666666716337204f,  0.25f,
                                         0.0f, -0.0052083334885537624f, -0.6666666865348816f, -1.0f, -0.3333333432674408f, -0.5f, -0.1666666716337204f, -0.25f};

alignas(64) const float kFp4Borders[16] = {-0.8333333730697632f,
                                           -0.5833333730697632f,
                                           -0.4166666865348816f,
                                           -0.2916666865348816f,
                                           -0.2083333432674408f,
                                           -0.0859375f,
                                           -0.0026041667442768812f,
                                           0.0f,
                                           0.0026041667442768812f,
                                           0.0859375f,
                                           0.2083333432674408f,
                                           0.2916666865348816f,
                                           0.4166666865348816f,
                                           0.5833333730697632f,
                                           0.8333333730697632f,
                                           std::numeric_limits<float>::infinity()};

const unsigned char kFp4Order[16] = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

namespace {

// Decade i of seven has 2^i (signed) or 2^(i+1) equal intervals of [0.1, 1]; their midpoints, scaled and mirrored when signed, and 0 and 1. The
// roundings are those of torch.linspace in float32 (fused, from both ends towards the middle), so that the values equal the files'.
struct DynamicMap {
  alignas(64) float values[256];
  unsigned char codes[65536];

  explicit DynamicMap(bool mirrored) {
    const double scales[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
    int count = 0;
    for (int i = 0; i < 7; i++) {
      const int intervals = mirrored ? 1 << i : 2 << i;
      const float step = (1.0f - 0.1f) / static_cast<float>(intervals);
      auto border = [&](int j) {
        const int half = (intervals + 1) / 2;
        return j < half ? std::fma(step, static_cast<float>(j), 0.1f) : std::fma(-step, static_cast<float>(intervals - j), 1.0f);
      };
      for (int j = 0; j < intervals; j++) {
        const float middle = (border(j) + border(j + 1)) / 2.0f;
        const float value = static_cast<float>(scales[i]) * middle;
        values[count++] = value;
        if (mirrored) values[count++] = -value;
      }
    }
    values[count++] = 0.0f;
    values[count++] = 1.0f;
    std::sort(values, values + 256);
    int code = 0;
    for (int j = 0; j < 65536; j++) {
      const float x = static_cast<float>(j) * (2.0f / 65535.0f) - 1.0f;
      while (code < 255 && values[code + 1] - x < x - values[code]) code++;
      codes[j] = static_cast<unsigned char>(code);
    }
  }
};

const DynamicMap& signed_map() {
  static const DynamicMap map(true);
  return map;
}

const DynamicMap& unsigned_map() {
  static const DynamicMap map(false);
  return map;
}

}  // namespace

const float* dynamic_map() { return signed_map().values; }
const float* dynamic_map_unsigned() { return unsigned_map().values; }
const unsigned char* dynamic_codes() { return signed_map().codes; }
const unsigned char* dynamic_codes_unsigned() { return unsigned_map().codes; }

}  // namespace tunebook
