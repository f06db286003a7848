// The device: errors in plain words, scratch memory, fault records and fences.
#include "device.cuh"

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "opcodes.h"

namespace tunebook {

void fail(const char* format, ...) {
  OpError error;
  va_list args;
  va_start(args, format);
  vsnprintf(error.message, sizeof error.message, format, args);
  va_end(args);
  throw error;
}

namespace cuda {

Device device;

namespace {

constexpr int64_t kPage = int64_t{2} << 20;
constexpr uint64_t kFences = 4096, kFaults = 16384;  // more than can be on their way: the queue runs at most a thousand ops ahead

struct Scratch {
  void* data = nullptr;
  int64_t bytes = 0;
};
Scratch pieces[kSlotCount];
std::atomic<int64_t> scratch_total{0};
std::atomic<uint64_t> generation{0};

// After one of these every further call of the process fails with the same words.
bool ends_context(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
#if CUDART_VERSION >= 13000
    case cudaErrorTensorMemoryLeak:
#endif
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorExternalDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorUnknown: return true;
    default: return false;
  }
}

bool capturing() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return device.stream != nullptr && cudaStreamIsCapturing(device.stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone;
}

// ---- faults -------------------------------------------------------------------------------

// Records stand in pinned memory: a ring with one record an op, and behind it one for each kind of op for captured graphs, which keep the
// address that they were captured with.
Fault* records = nullptr;
uint64_t sequences[kFaults];
uint64_t taken = 0;                // by the dispatcher
std::atomic<uint64_t> scanned{0};  // by who waits for fences
int opcode_now = 0;
uint64_t sequence_now = 0, sequence_of_last = ~uint64_t{0};

void fault_words(const Fault& f, char* to, size_t size) {
  switch (f.kind) {
    case kBadId: snprintf(to, size, "id %d in row %d, but the vocabulary has %d", f.value, f.row, f.limit); break;
    case kBadIndex: snprintf(to, size, "index %d in row %d, expected 0..%d (or -100)", f.value, f.row, f.limit - 1); break;
    case kBadLabel:
      snprintf(to, size, "label %d in row %d, but the vocabulary has %d (-100 stands for none)", f.value, f.row, f.limit);
      break;
    case kBadPosition: snprintf(to, size, "position %d in row %d, but the table has %d positions", f.value, f.row, f.limit); break;
    case kBadSequence: snprintf(to, size, "sequence %d reaches to row %d, but there are %d rows", f.row, f.value, f.limit); break;
    case kSharedRow: snprintf(to, size, "sequence %d: row %d belongs to another sequence too", f.row, f.value); break;
    case kNoProbability: snprintf(to, size, "the logits of row %d hold NaN or are all -infinity", f.row); break;
    default: snprintf(to, size, "fault %d in row %d: %d (limit %d)", f.kind, f.row, f.value, f.limit);
  }
}

void take_fault(Fault& f, uint64_t sequence) {
  OpError error;
  fault_words(f, error.message, sizeof error.message);
  error.opcode = f.opcode;
  error.sequence = sequence;
  f.kind = kNoFault;
  throw error;
}

void scan(uint64_t end) {
  while (scanned.load() < end) {
    const uint64_t i = scanned.fetch_add(1) % kFaults;
    if (*static_cast<volatile int*>(&records[i].kind) != kNoFault) {
      const Fault first = records[i];
      // What follows comes of the first one: its records are not reported again.
      while (scanned.load() < end) records[scanned.fetch_add(1) % kFaults].kind = kNoFault;
      Fault copy = first;
      records[i].kind = kNoFault;
      take_fault(copy, sequences[i]);
    }
  }
  for (int op = 0; op < kOpCount; op++) {
    Fault& f = records[kFaults + op];
    if (*static_cast<volatile int*>(&f.kind) > kNoFault) take_fault(f, 0);  // below: a later launch is writing it
  }
}

// ---- fences -------------------------------------------------------------------------------

struct FenceEvent {
  cudaEvent_t sleeping = nullptr, spinning = nullptr;
  bool soon = false;
  uint64_t faults = 0;  // taken when the fence was set
};
FenceEvent events[kFences];
std::atomic<uint64_t> last_fence{0};
bool timed = false;

cudaEvent_t event_of(uint64_t fence) {
  const FenceEvent& e = events[fence % kFences];
  return e.soon ? e.spinning : e.sleeping;
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  OpError thrown;
  const char* words = cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    thrown.memory = true;
    snprintf(thrown.message, sizeof thrown.message, "%s: the GPU's memory is exhausted (%zu MiB free of %zu MiB)", what, free >> 20, total >> 20);
  } else if (ends_context(error)) {
    thrown.lost = true;
    snprintf(thrown.message, sizeof thrown.message,
             "the GPU reports \"%s\" (%s), seen at %s; an earlier operation may be the cause (TUNEBOOK_TRACE=1 waits for each one and names it). "
             "This process cannot use the GPU any more: start it again",
             words, cudaGetErrorName(error), what);
  } else {
    cudaGetLastError();
    snprintf(thrown.message, sizeof thrown.message, "%s: %s (%s)", what, words, cudaGetErrorName(error));
  }
  throw thrown;
}

void bind_thread() {
  thread_local int bound = -1;
  if (bound == device.index) return;
  check(cudaSetDevice(device.index), "cudaSetDevice");
  bound = device.index;
}

// ---- scratch ------------------------------------------------------------------------------

namespace {

void release(Scratch& s) {
  if (s.data == nullptr) return;
  cudaFree(s.data);
  scratch_total -= s.bytes;
  s = Scratch();
  generation++;
}

}  // namespace

void* scratch(Slot slot, int64_t bytes) {
  Scratch& s = pieces[slot];
  if (bytes <= s.bytes) return s.data;
  if (capturing()) fail("working memory of %lld bytes is needed while a graph is captured: run the same work once before", (long long)bytes);
  int64_t size = kPage;
  if (bytes > kPage / 2) {
    size = (bytes + kPage - 1) / kPage * kPage;
  } else {
    while (size / 2 >= bytes && size > (int64_t{64} << 10)) size /= 2;
  }
  if (s.data != nullptr) {  // kernels on their way still use it
    check(cudaStreamSynchronize(device.stream), "growing working memory");
    release(s);
  }
  void* data = nullptr;
  check(cudaMalloc(&data, static_cast<size_t>(size)), "working memory");
  s.data = data;
  s.bytes = size;
  scratch_total += size;
  generation++;
  return data;
}

int64_t scratch_bytes() { return scratch_total.load(); }
uint64_t scratch_generation() { return generation.load(); }

void release_scratch() {
  if (scratch_total.load() == 0) return;
  cudaStreamSynchronize(device.stream);
  for (Scratch& s : pieces) release(s);
}

// ---- faults and fences --------------------------------------------------------------------

void begin_op(int opcode, uint64_t sequence) {
  opcode_now = opcode;
  sequence_now = sequence;
}

Fault* faults() {
  if (capturing()) return &records[kFaults + opcode_now];
  if (sequence_of_last == sequence_now && taken > 0) return &records[(taken - 1) % kFaults];
  if (taken - scanned.load() >= kFaults - 1) fail("too many operations are on their way");
  const uint64_t i = taken++ % kFaults;
  sequence_of_last = sequence_now;
  sequences[i] = sequence_now;
  records[i] = Fault{kNoFault, opcode_now, 0, 0, 0};
  return &records[i];
}

uint64_t fence(bool soon) {
  const uint64_t number = last_fence.load() + 1;
  FenceEvent& e = events[number % kFences];
  e.soon = soon;
  e.faults = taken;
  cudaEvent_t& event = soon ? e.spinning : e.sleeping;
  if (event == nullptr) {
    const unsigned flags = (soon ? cudaEventDefault : cudaEventBlockingSync) | (timed ? 0u : cudaEventDisableTiming);
    check(cudaEventCreateWithFlags(&event, flags), "cudaEventCreate");
  }
  check(cudaEventRecord(event, device.stream), "cudaEventRecord");
  last_fence.store(number);
  return number;
}

void wait_fence(uint64_t number) {
  bind_thread();
  check(cudaEventSynchronize(event_of(number)), "waiting for the GPU");
  scan(events[number % kFences].faults);
}

double elapsed(uint64_t from, uint64_t to) {
  float milliseconds = 0;
  if (cudaEventElapsedTime(&milliseconds, event_of(from), event_of(to)) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return milliseconds * 1e-3;
}

// ---- opening and closing ------------------------------------------------------------------

void open_device(int index) {
  device = Device();
  device.index = index;
  bind_thread();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  device.multiprocessors = properties.multiProcessorCount;
  device.major = properties.major;
  device.minor = properties.minor;
  const char* profile = getenv("TUNEBOOK_PROFILE");
  timed = profile != nullptr && strcmp(profile, "1") == 0;
  check(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking), "cudaStreamCreate");
  check(cudaStreamCreateWithFlags(&device.copies, cudaStreamNonBlocking), "cudaStreamCreate");
  void* pinned = nullptr;
  check(cudaHostAlloc(&pinned, (kFaults + kOpCount) * sizeof(Fault), cudaHostAllocPortable | cudaHostAllocMapped), "pinned memory");
  records = static_cast<Fault*>(pinned);
  for (uint64_t i = 0; i < kFaults + kOpCount; i++) records[i] = Fault{kNoFault, i < kFaults ? 0 : int(i - kFaults), 0, 0, 0};
  taken = 0;
  scanned = 0;
  sequence_of_last = ~uint64_t{0};
}

void close_device() {
  release_scratch();
  for (FenceEvent& e : events) {
    if (e.sleeping != nullptr) cudaEventDestroy(e.sleeping);
    if (e.spinning != nullptr) cudaEventDestroy(e.spinning);
    e = FenceEvent();
  }
  if (records != nullptr) cudaFreeHost(records);
  records = nullptr;
  if (device.copies != nullptr) cudaStreamDestroy(device.copies);
  if (device.stream != nullptr) cudaStreamDestroy(device.stream);
  device.copies = device.stream = nullptr;
}

}  // namespace cuda
}  // namespace tunebook
