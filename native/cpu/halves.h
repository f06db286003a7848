// The CPU's ops on 16-bit activations, for the stand-in of a GPU.
#pragma once
#include "backend.h"

namespace tunebook {

// The same backend with ops that widen 16-bit tensors before they run and round them after.
const Backend& with_halves(const Backend& cpu);

}  // namespace tunebook
