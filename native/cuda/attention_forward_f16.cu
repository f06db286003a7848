// Attention forward on tensor cores for float16.
#include "attention_forward_wgmma.cuh"

namespace tunebook {
namespace cuda {

template <> void attention_tensor_cores<__half>(const attention_args& op, const AttentionSizes& a) {
  ForwardArgs<__half> p = forward_args<__half>(op, a);
  if (warpgroups::has_width(a)) warpgroups::with_width(a, [&](auto width) { warpgroups::run_forward<__half, width.value>(p); });
  else tensor_cores::with_width(a, [&](auto width) { tensor_cores::run_forward<__half, width.value>(p); });
  zero_unowned_outputs(p);
}

}  // namespace cuda
}  // namespace tunebook
