// Attention of few queries over many keys of their own type.
#include "attention_decode.cuh"

namespace tunebook {
namespace cuda {

template <class T> void attention_decode(const attention_args& op, const AttentionSizes& a) {
  decode::Args<T, T> p{};
  p.f = forward_args<T>(op, a);
  p.k = p.f.k, p.v = p.f.v;
  launch_decode("attention", p);
}

template void attention_decode<float>(const attention_args& op, const AttentionSizes& a);
template void attention_decode<__nv_bfloat16>(const attention_args& op, const AttentionSizes& a);
template void attention_decode<__half>(const attention_args& op, const AttentionSizes& a);

}  // namespace cuda
}  // namespace tunebook
