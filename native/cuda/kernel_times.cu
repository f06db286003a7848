// TUNEBOOK_KERNEL_TIMES=1: what each kernel that launch() starts takes on the device, summed by name and written to stderr when the process
// ends. Every kernel is waited for, so that only the kernels' own times mean something. An op's whole time is in the profile (device.cu);
// this tells the kernels of one op apart.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "launch.cuh"

namespace tunebook {
namespace cuda {
namespace {

struct Total {
  double ms = 0;
  int64_t count = 0;
};

struct Times {
  std::map<std::string, Total> sums;
  cudaEvent_t begun = nullptr, ended = nullptr;
  ~Times() {
    for (const auto& [name, sum] : sums)
      fprintf(stderr, "%-28s %8lld times %12.3f ms, one %10.4f ms\n", name.c_str(), (long long)sum.count, sum.ms,
              sum.ms / (double)sum.count);
  }
};
Times times;

}  // namespace

bool kernels_are_timed() {
  static const bool timed = [] {
    const char* asked = getenv("TUNEBOOK_KERNEL_TIMES");
    return asked != nullptr && strcmp(asked, "1") == 0;
  }();
  return timed;
}

void kernel_begins() {
  if (times.begun == nullptr) {
    check(cudaEventCreate(&times.begun), "an event");
    check(cudaEventCreate(&times.ended), "an event");
  }
  check(cudaEventRecord(times.begun, device.stream), "an event");
}

void kernel_ends(const char* name) {
  check(cudaEventRecord(times.ended, device.stream), "an event");
  check(cudaEventSynchronize(times.ended), name);
  float ms = 0;
  check(cudaEventElapsedTime(&ms, times.begun, times.ended), "an event");
  Total& sum = times.sums[name];
  sum.ms += ms;
  ++sum.count;
}

}  // namespace cuda
}  // namespace tunebook
