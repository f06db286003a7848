#include "queue.h"

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ops.decode.gen.h"

namespace tunebook {

const char* const kOpNames[kOpCount] = {
#define OP(name) #name,
#include "ops.list.gen.h"
#undef OP
};

void fail(const char* format, ...) {
  OpError error;
  va_list args;
  va_start(args, format);
  vsnprintf(error.message, sizeof error.message, format, args);
  va_end(args);
  throw error;
}

namespace {

constexpr int64_t kRingBytes = int64_t{4} << 20;
constexpr uint64_t kDepth = 8192;
constexpr auto kSpin = std::chrono::microseconds(30);

uint64_t nanoseconds() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Reads a command: see ops.decode.gen.h.
struct Reader {
  const int32_t* at;
  const int32_t* end;
  const Allocator& memory;
  const char* op;
  char* lists;  // where the items of lists go: behind the struct
  char* lists_end;

  int32_t word() {
    if (at >= end) fail("%s: the command is longer than the shared buffer", op);
    return *at++;
  }
  int64_t integer() { return word(); }
  float real() {
    const int32_t bits = word();
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }
  Ref ref(const char* name, bool optional) {
    const int32_t handle = word();
    if (handle == 0) {
      if (!optional) fail("%s: tensor \"%s\" is missing", op, name);
      return Ref();
    }
    const Ref* found = memory.find(handle);
    if (found == nullptr) fail("%s: tensor \"%s\" has been freed (handle %d)", op, name, handle);
    return *found;
  }
  RefList list(const char* name, bool) {
    RefList result;
    result.count = word();
    if (result.count < 0 || lists + result.count * sizeof(Ref) > lists_end) fail("%s: list \"%s\" has %d tensors", op, name, result.count);
    Ref* items = reinterpret_cast<Ref*>(lists);
    for (int32_t i = 0; i < result.count; i++) items[i] = ref(name, false);
    lists += result.count * sizeof(Ref);
    result.items = items;
    return result;
  }
};

union AnyArgs {
  AnyArgs() {}
#define OP(name) name##_args name##_;
#include "ops.list.gen.h"
#undef OP
};

}  // namespace

Queue::Queue(const Backend& backend, void (*woken)(void*), void* context)
    : backend_(backend), woken_(woken), context_(context), ring_(kRingBytes) {
  thread_ = std::thread([this] { loop(); });
}

Queue::~Queue() {
  stop_.store(true);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    work_.notify_all();
  }
  thread_.join();
}

// Room for one entry at the head of the ring, waiting while the queue is full.
char* Queue::reserve(int64_t bytes) {
  if (bytes > kRingBytes / 2) fail("a command of %lld bytes is too long", (long long)bytes);
  const int64_t offset = static_cast<int64_t>(head_ % kRingBytes);
  int64_t skip = 0;
  if (offset + bytes > kRingBytes) skip = kRingBytes - offset;  // an entry stands in one piece
  auto full = [&] {
    return head_ + skip + bytes - consumed_.load() > static_cast<uint64_t>(kRingBytes) || pushed_ - executed_.load() >= kDepth;
  };
  if (full()) {
    std::unique_lock<std::mutex> lock(mutex_);
    producer_waits_.store(Wait::Room);
    progress_.wait(lock, [&] { return !full(); });
    producer_waits_.store(Wait::None);
  }
  if (skip > 0) {
    Entry* entry = reinterpret_cast<Entry*>(ring_.data() + offset);
    entry->size = static_cast<uint32_t>(skip);
    entry->kind = Kind::Skip;
    head_ += skip;
  }
  return ring_.data() + head_ % kRingBytes;
}

// Publishes the entry at the head.
void Queue::push(Kind kind, int opcode, int64_t bytes) {
  Entry* entry = reinterpret_cast<Entry*>(ring_.data() + head_ % kRingBytes);
  entry->size = static_cast<uint32_t>((bytes + 15) / 16 * 16);
  entry->kind = kind;
  entry->opcode = static_cast<uint16_t>(opcode);
  entry->sequence = sequence_;
  head_ += entry->size;
  pushed_++;
  published_.store(head_);
  if (asleep_.load()) {
    std::lock_guard<std::mutex> lock(mutex_);
    work_.notify_one();
  }
}

uint64_t Queue::run(const int32_t* words, int64_t word_count, const Allocator& memory) {
  const int opcode = words[0];
  if (opcode < 0 || opcode >= kOpCount) fail("there is no op %d", opcode);
  constexpr int64_t kFixed = sizeof(Entry) + sizeof(AnyArgs) + 16;
  int64_t list_bytes = 0;  // lists stand first in a command: their lengths tell how much room they need
  for (int64_t i = 0, at = 1; i < leading_lists(opcode); i++) {
    if (at >= word_count || words[at] < 0 || words[at] > word_count) fail("%s: a list has a broken length", kOpNames[opcode]);
    list_bytes += words[at] * static_cast<int64_t>(sizeof(Ref));
    at += 1 + words[at];
  }
  char* place = reserve((kFixed + list_bytes + 15) / 16 * 16);
  char* args = place + sizeof(Entry);
  int64_t used = kFixed;
  Reader in{words + 1, words + word_count, memory, kOpNames[opcode], nullptr, nullptr};
  switch (opcode) {
#define OP(name)                                                               \
  case op_##name: {                                                          \
    constexpr int64_t size = sizeof(Entry) + (sizeof(name##_args) + 15) / 16 * 16; \
    in.lists = place + size;                                                   \
    in.lists_end = in.lists + list_bytes;                                      \
    decode_##name(in, *reinterpret_cast<name##_args*>(args));                  \
    used = size + list_bytes;                                                  \
    break;                                                                     \
  }
#include "ops.list.gen.h"
#undef OP
  }
  sequence_++;
  push(Kind::Op, opcode, used);
  return sequence_;
}

void Queue::transfer(Kind kind, const Transfer& t) {
  char* place = reserve(sizeof(Entry) + sizeof(Transfer));
  memcpy(place + sizeof(Entry), &t, sizeof t);
  push(kind, 0, sizeof(Entry) + sizeof(Transfer));
}

void Queue::upload(void* to, const void* from, int64_t bytes) {
  constexpr int64_t kStaged = int64_t{64} << 20;
  if (bytes > kStaged) wait_idle();  // rather wait than hold much memory twice
  if (idle()) {
    backend_.upload(to, from, bytes);
    return;
  }
  void* staging = malloc(bytes > 0 ? bytes : 1);
  if (staging == nullptr) {
    wait_idle();
    backend_.upload(to, from, bytes);
    return;
  }
  memcpy(staging, from, bytes);
  transfer(Kind::Upload, {to, staging, bytes, nullptr});
}

void Queue::download(Pending* pending, const void* from) {
  transfer(Kind::Download, {nullptr, const_cast<void*>(from), pending->bytes, pending});
}

void Queue::release(void* data, int64_t bytes) {
  if (idle()) {
    backend_.free(data, bytes);
    return;
  }
  transfer(Kind::Release, {data, nullptr, bytes, nullptr});
}

void Queue::wait_idle() {
  if (idle()) return;
  std::unique_lock<std::mutex> lock(mutex_);
  producer_waits_.store(Wait::Idle);
  progress_.wait(lock, [&] { return idle(); });
  producer_waits_.store(Wait::None);
}

void Queue::recover() {
  dropping_.store(true);
  wait_idle();
  std::lock_guard<std::mutex> lock(result_mutex_);
  failure_ = Failure();
  state_.store(QueueState::Running);
  dropping_.store(false);
}

Failure Queue::failure() {
  std::lock_guard<std::mutex> lock(result_mutex_);
  return failure_;
}

std::vector<Pending*> Queue::finished() {
  std::lock_guard<std::mutex> lock(result_mutex_);
  std::vector<Pending*> taken;
  taken.swap(results_);
  return taken;
}

void Queue::run_op(Entry* entry) {
  const char* args = reinterpret_cast<const char*>(entry) + sizeof(Entry);
  try {
    switch (entry->opcode) {
#define OP(name)                                                \
  case op_##name:                                               \
    backend_.name(*reinterpret_cast<const name##_args*>(args)); \
    break;
#include "ops.list.gen.h"
#undef OP
    }
  } catch (const OpError& error) {
    char numbers[512] = "";
    switch (entry->opcode) {
#define OP(name)                                                                           \
  case op_##name:                                                                          \
    describe_##name(*reinterpret_cast<const name##_args*>(args), numbers, sizeof numbers); \
    break;
#include "ops.list.gen.h"
#undef OP
    }
    std::lock_guard<std::mutex> lock(result_mutex_);
    failure_.opcode = entry->opcode;
    failure_.sequence = entry->sequence;
    failure_.message = std::string(kOpNames[entry->opcode]) + ": " + error.message + " (" + numbers + ")";
    state_.store(QueueState::Failed);
  }
}

void Queue::execute(Entry* entry) {
  const std::atomic<int32_t>* flag = interrupt_.load(std::memory_order_acquire);
  const bool interrupted = (flag != nullptr && flag->load(std::memory_order_relaxed) != 0) || dropping_.load(std::memory_order_relaxed);
  if (interrupted && state_.load() == QueueState::Running) state_.store(QueueState::Interrupted);
  const bool alive = state_.load(std::memory_order_relaxed) == QueueState::Running && !stop_.load(std::memory_order_relaxed);
  if (entry->kind == Kind::Op) {
    if (alive) run_op(entry);
    return;
  }
  Transfer t;
  memcpy(&t, reinterpret_cast<char*>(entry) + sizeof(Entry), sizeof t);
  switch (entry->kind) {
    case Kind::Upload:  // done in any case: it does not depend on what was dropped
      backend_.upload(t.to, t.from, t.bytes);
      ::free(t.from);
      break;
    case Kind::Release:
      backend_.free(t.to, t.bytes);
      break;
    case Kind::Download: {
      if (alive && t.bytes > 0) backend_.download(t.pending->staging, t.from, t.bytes);
      backend_.sync();
      t.pending->outcome = stop_.load() ? QueueState::Interrupted : state_.load();
      bool first;
      {
        std::lock_guard<std::mutex> lock(result_mutex_);
        first = results_.empty();
        results_.push_back(t.pending);
      }
      if (first && !stop_.load()) woken_(context_);
      break;
    }
    default: break;
  }
}

void Queue::loop() {
  uint64_t tail = 0;
  for (;;) {
    if (published_.load(std::memory_order_acquire) == tail) {
      const auto until = std::chrono::steady_clock::now() + kSpin;
      while (published_.load(std::memory_order_acquire) == tail && !stop_.load(std::memory_order_relaxed)) {
        for (int i = 0; i < 16; i++) pause();
        if (std::chrono::steady_clock::now() < until) continue;
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.store(true);
        work_.wait(lock, [&] { return published_.load() != tail || stop_.load(); });
        asleep_.store(false);
      }
      if (published_.load(std::memory_order_acquire) == tail) return;  // stopped, and nothing is left
    }
    uint64_t before = nanoseconds();
    while (published_.load(std::memory_order_acquire) != tail) {
      Entry* entry = reinterpret_cast<Entry*>(ring_.data() + tail % kRingBytes);
      const Kind kind = entry->kind;
      const int opcode = entry->opcode;
      const uint32_t size = entry->size;
      if (kind != Kind::Skip) execute(entry);
      tail += size;
      const uint64_t now = nanoseconds();
      busy_.store(busy_.load(std::memory_order_relaxed) + now - before, std::memory_order_relaxed);
      if (kind == Kind::Op) {
        op_calls[opcode].store(op_calls[opcode].load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        op_nanoseconds[opcode].store(op_nanoseconds[opcode].load(std::memory_order_relaxed) + now - before, std::memory_order_relaxed);
      }
      before = now;
      consumed_.store(tail);
      if (kind != Kind::Skip) executed_.store(executed_.load(std::memory_order_relaxed) + 1);
      const Wait waits = producer_waits_.load();
      if (waits != Wait::None) {
        // Waking at every op would make the two threads take turns: a producer that waits for room is let in when most of the ring is free.
        const uint64_t left = published_.load() - tail;
        if (left == 0 || (waits == Wait::Room && left < static_cast<uint64_t>(kRingBytes) / 16)) {
          std::lock_guard<std::mutex> lock(mutex_);
          progress_.notify_all();
        }
      }
    }
  }
}

}  // namespace tunebook
