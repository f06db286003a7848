// Restoring the 4-bit weight that the next product is likely to need while the product before it is under way.
#pragma once
#include "nf4.cuh"

namespace tunebook {
namespace cuda {

// A weight of n elements restored in `type`, for a product that is launched next; `transposed` as in the product's arguments. It is one that
// was restored ahead, if the guess was right and nothing has touched the weight since; and the weight that followed this one last time is
// restored beside what is launched next.
Ref restored_weight(const Nf4& w, int64_t n, DType type, bool transposed);

// Dispatcher, before an op reads or writes a tensor, or one is uploaded: what was restored ahead of it is not used.
void touch_weights(const Ref& tensor);
bool weights_ahead();  // whether anything is restored ahead now, so that touch_weights() must be called
// Dispatcher, before work of unknown tensors is launched: what was restored ahead is not used, and the device's stream waits for it.
void leave_weights();
// The same for one place of restored weights, which another op takes.
void leave_weights(Slot place);
// Memory of tensors was freed for good, or written by others than the ops. Any thread.
void forget_weights();
void close_weights();

// device.cu
bool capturing();                  // a graph
int64_t scratch_bytes(Slot slot);  // that a slot has now

}  // namespace cuda
}  // namespace tunebook
