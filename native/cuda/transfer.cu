// Copies between device and host memory that run beside the ops, on a stream of their own.
#include "check.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kSlots = 64;

// Each slot has two events: the copies wait until the ops have come to `begin`, the ops until the copies have come to `end`.
struct Slot {
  cudaEvent_t begin = nullptr, end = nullptr;
};
Slot slots[kSlots];

Slot& slot_of(int64_t i) {
  if (i < 0 || i >= kSlots) fail("slot is %lld, expected 0..%d", (long long)i, kSlots - 1);
  return slots[i];
}

void transfer_start(const transfer_start_args& a) {
  check_size("n", a.n);
  check_tensor("x", a.x, a.n, a.x.dtype);
  check_tensor("y", a.y, a.n, a.x.dtype);
  Slot& s = slot_of(a.slot);
  if (s.begin == nullptr) {
    check(cudaEventCreateWithFlags(&s.begin, cudaEventDisableTiming), "cudaEventCreate");
    check(cudaEventCreateWithFlags(&s.end, cudaEventDisableTiming), "cudaEventCreate");
  }
  check(cudaEventRecord(s.begin, device.stream), "cudaEventRecord");
  check(cudaStreamWaitEvent(device.copies, s.begin, 0), "cudaStreamWaitEvent");
  if (a.n > 0) {
    check(cudaMemcpyAsync(a.y.data, a.x.data, (size_t)a.n * size_of(a.x.dtype), cudaMemcpyDefault, device.copies), "copying between device and host");
  }
  check(cudaEventRecord(s.end, device.copies), "cudaEventRecord");
}

void transfer_wait(const transfer_wait_args& a) {
  Slot& s = slot_of(a.slot);
  if (s.end != nullptr) check(cudaStreamWaitEvent(device.stream, s.end, 0), "cudaStreamWaitEvent");
}

}  // namespace

void register_transfer(Backend& b) {
  b.transfer_start = transfer_start;
  b.transfer_wait = transfer_wait;
}

}  // namespace cuda
}  // namespace tunebook
