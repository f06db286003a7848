// Copies into the GPU's memory that the threads which read files start (copies.h): on a stream of their own, in no order with the ops.
//
// No event ties this stream to that of the ops, in either direction. A load begins when a fence says that the ops queued before it have passed, so nothing
// on its way reads or writes the memory that it fills; and it is reported as done when `sent` has seen the events behind all of its copies, so whatever is
// launched afterwards finds the bytes there. What the host has seen completed is visible to every later launch.
#include "copies.h"

#include <mutex>

#include "device.cuh"

namespace tunebook {
namespace cuda {
namespace {

std::mutex opening;
cudaStream_t stream = nullptr;
// A lane's event is recorded and waited for by one thread. Other lanes' copies may slip in between a copy and its event, which then comes a little late.
// The threads that wait should sleep: others read meanwhile.
cudaEvent_t events[kLanes] = {};

void send(int lane, void* to, const void* from, int64_t bytes) {
  bind_thread();
  if (lane < 0 || lane >= kLanes) fail("lane is %d, expected 0..%d", lane, kLanes - 1);
  {
    std::lock_guard<std::mutex> lock(opening);
    if (stream == nullptr) check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    if (events[lane] == nullptr) {
      check(cudaEventCreateWithFlags(&events[lane], cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreate");
    }
  }
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream), "loading");
  check(cudaEventRecord(events[lane], stream), "cudaEventRecord");
}

void sent(int lane) {
  bind_thread();
  check(cudaEventSynchronize(events[lane]), "loading");
}

const Copies copies = {send, sent};

}  // namespace

// The threads that used it have ended.
void close_copies() {
  for (cudaEvent_t& e : events) {
    if (e != nullptr) cudaEventDestroy(e);
    e = nullptr;
  }
  if (stream != nullptr) cudaStreamDestroy(stream);
  stream = nullptr;
}

}  // namespace cuda
}  // namespace tunebook

extern "C" __attribute__((visibility("default"))) const tunebook::Copies* tunebook_cuda_copies() { return &tunebook::cuda::copies; }
