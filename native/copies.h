// Copies into a device's memory that other threads than the queue's dispatcher may start: beside the ops and in no order with them. The caller sees to it that
// nothing queued uses the memory, and waits before it queues what does.
#pragma once
#include <cstdint>

namespace tunebook {

constexpr int kLanes = 32;

struct Copies {
  // Starts a copy from pinned host memory, which must stay as it is until `sent`. A lane holds one copy at a time and belongs to one thread. Throws OpError.
  void (*send)(int lane, void* to, const void* from, int64_t bytes);
  // Until the lane's copy has been done. Throws OpError.
  void (*sent)(int lane);
};

}  // namespace tunebook
