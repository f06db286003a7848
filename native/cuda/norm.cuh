// The norms' backward passes stand in a file of their own.
#pragma once
#include "rows.cuh"

namespace tunebook {
namespace cuda {

void rms_norm_backward(const rms_norm_backward_args& a);
void layer_norm_backward(const layer_norm_backward_args& a);

}  // namespace cuda
}  // namespace tunebook
