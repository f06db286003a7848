// The CUDA backend: its table, filled by the op families of this folder, and copies through pinned memory.
#include "backend.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "cuda.families.gen.h"
#include "device.cuh"
#include "layout.gen.h"

#ifndef TUNEBOOK_CUDA_ARCHS
#define TUNEBOOK_CUDA_ARCHS "90a"
#endif

namespace tunebook {
namespace cuda {

void close_copies();  // copies.cu

namespace {

constexpr int64_t kReserve = int64_t{512} << 20;  // for the driver, kernels that are loaded later and working memory that must grow

// ---- uploads ------------------------------------------------------------------------------

// A ring of pinned sections: an upload is copied into it and goes on its way, and a section is used again when its copies have passed.
constexpr int kSections = 8;
constexpr int64_t kSection = int64_t{4} << 20;
struct {
  char* memory = nullptr;
  cudaEvent_t passed[kSections] = {};
  int current = 0;
  int64_t at = 0;
} ring;

void next_section() {
  check(cudaEventRecord(ring.passed[ring.current], device.stream), "cudaEventRecord");
  ring.current = (ring.current + 1) % kSections;
  ring.at = 0;
  check(cudaEventSynchronize(ring.passed[ring.current]), "uploading");  // an event that was never recorded has passed
}

void upload(void* to, const void* from, int64_t bytes) {
  bind_thread();
  if (ring.memory == nullptr) {
    void* pinned = nullptr;
    check(cudaHostAlloc(&pinned, kSections * kSection, cudaHostAllocPortable), "pinned memory for uploads");
    ring.memory = static_cast<char*>(pinned);
    for (cudaEvent_t& e : ring.passed) check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "cudaEventCreate");
  }
  for (int64_t done = 0; done < bytes;) {
    if (ring.at >= kSection) next_section();
    const int64_t n = bytes - done < kSection - ring.at ? bytes - done : kSection - ring.at;
    char* place = ring.memory + ring.current * kSection + ring.at;
    memcpy(place, static_cast<const char*>(from) + done, static_cast<size_t>(n));
    check(cudaMemcpyAsync(static_cast<char*>(to) + done, place, static_cast<size_t>(n), cudaMemcpyDefault, device.stream), "uploading");  // or a tensor in host memory
    ring.at += (n + 63) / 64 * 64;
    done += n;
  }
}

// ---- downloads ----------------------------------------------------------------------------

// Reads of up to this size land in pinned memory and hold nothing up; larger ones (whole weights) wait for their place in the stream.
constexpr int64_t kPinned = int64_t{4} << 20;
struct {
  std::mutex mutex;
  std::map<int64_t, std::vector<void*>> free;
} host;

int64_t host_class(int64_t bytes) {
  int64_t size = 4096;
  while (size < bytes) size *= 2;
  return size;
}

void* alloc_host(int64_t bytes) {
  if (bytes > kPinned) return malloc(static_cast<size_t>(bytes));
  const int64_t size = host_class(bytes);
  {
    std::lock_guard<std::mutex> lock(host.mutex);
    std::vector<void*>& list = host.free[size];
    if (!list.empty()) {
      void* data = list.back();
      list.pop_back();
      return data;
    }
  }
  bind_thread();
  void* data = nullptr;
  if (cudaHostAlloc(&data, static_cast<size_t>(size), cudaHostAllocPortable) == cudaSuccess) return data;
  cudaGetLastError();
  return nullptr;
}

void free_host(void* data, int64_t bytes) {
  if (data == nullptr) return;
  if (bytes > kPinned) {
    ::free(data);
    return;
  }
  std::lock_guard<std::mutex> lock(host.mutex);
  host.free[host_class(bytes)].push_back(data);
}

void download(void* to, const void* from, int64_t bytes) {
  bind_thread();
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, device.stream), "downloading");
}

// ---- memory -------------------------------------------------------------------------------

void* alloc(int64_t bytes) {
  bind_thread();
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(error, "allocating memory");
  return data;
}

void rest() {
  bind_thread();
  cudaStreamSynchronize(device.copies);
  cudaStreamSynchronize(device.stream);
}

void free_memory(void* data, int64_t) {
  rest();
  cudaFree(data);
}

// Host memory of tensors. It is mapped too (unified addressing): an op that is given it reads it over the bus.
void* alloc_pinned(int64_t bytes) {
  bind_thread();
  void* data = nullptr;
  if (cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocPortable) == cudaSuccess) return data;
  cudaGetLastError();
  return nullptr;
}

void free_pinned(void* data, int64_t) {
  rest();
  cudaFreeHost(data);
}

void sync() {
  bind_thread();
  check(cudaStreamSynchronize(device.stream), "waiting for the GPU");
  check(cudaStreamSynchronize(device.copies), "waiting for the GPU's copies");
}

void trim() {
  bind_thread();
  release_scratch();
}

void begin(int opcode, uint64_t sequence) {
  bind_thread();
  begin_op(opcode, sequence);
}

uint64_t set_fence(bool soon) {
  bind_thread();
  return fence(soon);
}

void close() {
  bind_thread();
  close_copies();
  close_device();
  if (ring.memory != nullptr) {
    for (cudaEvent_t& e : ring.passed) cudaEventDestroy(e);
    cudaFreeHost(ring.memory);
    ring.memory = nullptr;
    ring.current = 0;
    ring.at = 0;
  }
  std::lock_guard<std::mutex> lock(host.mutex);
  for (auto& list : host.free) {
    for (void* data : list.second) cudaFreeHost(data);
  }
  host.free.clear();
}

// ---- opening ------------------------------------------------------------------------------

#define OP(name) \
  void missing_##name(const name##_args&) { fail("not implemented on CUDA"); }
#include "ops.list.gen.h"
#undef OP

__global__ void probe() {}

DeviceInfo info;
Backend table;
char name[16], architecture[16];

// Why there is no device to open, in plain words.
void require_device(int index) {
  int driver = 0, runtime = 0, count = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (driver == 0) fail("no NVIDIA driver was found (libcuda.so.1)");
  if (error == cudaErrorInsufficientDriver || error == cudaErrorCompatNotSupportedOnDevice) {
    fail("the NVIDIA driver is too old: it runs CUDA up to %d.%d, this build needs %d.%d", driver / 1000, driver % 1000 / 10, runtime / 1000,
         runtime % 1000 / 10);
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    const char* visible = getenv("CUDA_VISIBLE_DEVICES");
    fail("an NVIDIA driver is there, but no GPU is visible%s%s%s", visible != nullptr ? " (CUDA_VISIBLE_DEVICES is \"" : "",
         visible != nullptr ? visible : "", visible != nullptr ? "\")" : "");
  }
  check(error, "looking for GPUs");
  if (index < 0 || index >= count) fail("there is no GPU %d: %d visible", index, count);
  info = DeviceInfo();
  info.driver = driver;
  info.runtime = runtime;
}

// Bytes for tensors and working memory: what is free now less a reserve, or TUNEBOOK_CUDA_MEMORY_LIMIT.
int64_t memory_of_device() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  info.free_bytes = static_cast<int64_t>(free);
  info.total_bytes = static_cast<int64_t>(total);
  if (const char* asked = getenv("TUNEBOOK_CUDA_MEMORY_LIMIT")) {
    const double bytes = atof(asked);
    if (!(bytes > 0)) fail("TUNEBOOK_CUDA_MEMORY_LIMIT must be a number of bytes, but is \"%s\"", asked);
    return static_cast<int64_t>(bytes);
  }
  return info.free_bytes > 2 * kReserve ? info.free_bytes - kReserve : info.free_bytes / 2;
}

void open(int index) {
  require_device(index);
  open_device(index);
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  snprintf(info.name, sizeof info.name, "%s", properties.name);
  info.major = device.major;
  info.minor = device.minor;
  info.multiprocessors = device.multiprocessors;
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, probe) != cudaSuccess) {
    cudaGetLastError();
    fail("%s has compute capability %d.%d, and this build holds code for " TUNEBOOK_CUDA_ARCHS
         ": build it on this machine with TUNEBOOK_CUDA_ARCHS=%d%d",
         info.name, info.major, info.minor, info.major, info.minor);
  }
  table = Backend();
  snprintf(name, sizeof name, "cuda:%d", index);
  snprintf(architecture, sizeof architecture, "sm_%d%d", info.major, info.minor);
  table.name = name;
  table.isa = architecture;
  table.threads = info.multiprocessors;
  table.alloc = alloc;
  table.free = free_memory;
  table.upload = upload;
  table.download = download;
  table.sync = sync;
  table.close = close;
  table.info = &info;
  table.memory = memory_of_device();
  table.begin = begin;
  table.fence = set_fence;
  table.wait = wait_fence;
  table.elapsed = elapsed;
  table.alloc_host = alloc_host;
  table.free_host = free_host;
  table.alloc_pinned = alloc_pinned;
  table.free_pinned = free_pinned;
  table.scratch_bytes = scratch_bytes;
  table.trim = trim;
#define OP(name) table.name = missing_##name;
#include "ops.list.gen.h"
#undef OP
  register_all(table);
}

}  // namespace
}  // namespace cuda
}  // namespace tunebook

#define TUNEBOOK_EXPORT extern "C" __attribute__((visibility("default")))

// What the library was built from: compared before anything else is called.
TUNEBOOK_EXPORT const char* tunebook_cuda_layout() { return TUNEBOOK_LAYOUT; }

// The table of device `index`, or nullptr and why not.
TUNEBOOK_EXPORT const tunebook::Backend* tunebook_open_cuda(int index, char* message, int message_bytes) {
  try {
    tunebook::cuda::open(index);
    return &tunebook::cuda::table;
  } catch (const tunebook::OpError& error) {
    snprintf(message, static_cast<size_t>(message_bytes), "%s", error.message);
    tunebook::cuda::close_device();
    return nullptr;
  }
}
