// Attention forward on tensor cores for bfloat16.
#include "attention_forward_wgmma.cuh"

namespace tunebook {
namespace cuda {

template <> void attention_tensor_cores<__nv_bfloat16>(const attention_args& op, const AttentionSizes& a) {
  ForwardArgs<__nv_bfloat16> p = forward_args<__nv_bfloat16>(op, a);
  if (warpgroups::has_width(a)) warpgroups::with_width(a, [&](auto width) { warpgroups::run_forward<__nv_bfloat16, width.value>(p); });
  else tensor_cores::with_width(a, [&](auto width) { tensor_cores::run_forward<__nv_bfloat16, width.value>(p); });
  zero_unowned_outputs(p);
}

}  // namespace cuda
}  // namespace tunebook
