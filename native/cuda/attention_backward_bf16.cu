// Attention backward on tensor cores for bfloat16.
#include "attention_backward_wgmma.cuh"

namespace tunebook {
namespace cuda {

template <> void attention_backward_tensor_cores<__nv_bfloat16>(const attention_backward_args& op, const AttentionSizes& a) {
  BackwardArgs<__nv_bfloat16> p = backward_args<__nv_bfloat16>(op, a);
  if (warpgroups::has_width(a)) warpgroups::with_width(a, [&](auto width) { warpgroups::run_backward<__nv_bfloat16, width.value>(p); });
  else tensor_cores::with_width(a, [&](auto width) { tensor_cores::run_backward<__nv_bfloat16, width.value>(p); });
}

}  // namespace cuda
}  // namespace tunebook
