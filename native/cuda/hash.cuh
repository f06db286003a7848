// A number that looks random, of another number: every bit of one depends on every bit of the other (the 32-bit mixer of ops.def's dropout in attention).
#pragma once
#include "device.cuh"

namespace tunebook {
namespace cuda {

__device__ inline uint32_t mix(uint32_t h) {
  h = (h ^ (h >> 16)) * 0x7feb352du;
  h = (h ^ (h >> 15)) * 0x846ca68bu;
  return h ^ (h >> 16);
}

}  // namespace cuda
}  // namespace tunebook
