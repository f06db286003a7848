// Attention backward on tensor cores for float16.
#include "attention_backward_wgmma.cuh"

namespace tunebook {
namespace cuda {

template <> void attention_backward_tensor_cores<__half>(const attention_backward_args& op, const AttentionSizes& a) {
  BackwardArgs<__half> p = backward_args<__half>(op, a);
  if (warpgroups::has_width(a)) warpgroups::with_width(a, [&](auto width) { warpgroups::run_backward<__half, width.value>(p); });
  else tensor_cores::with_width(a, [&](auto width) { tensor_cores::run_backward<__half, width.value>(p); });
}

}  // namespace cuda
}  // namespace tunebook
