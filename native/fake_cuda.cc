// A stand-in for the GPU: the CPU's ops on a thread of their own that runs behind its launches, with what a device adds to them: fences,
// faults that are found later, an error that ends it, memory that is exhausted. Tests of the queue and of the layers above need no GPU then.
//   TUNEBOOK_FAKE_CUDA_DELAY    microseconds that each op takes longer
//   TUNEBOOK_FAKE_CUDA_LOST     the op of this name ends the device
//   TUNEBOOK_FAKE_CUDA_CAPTURE  0: no graph can be captured
//   TUNEBOOK_CUDA_MEMORY_LIMIT  as on a GPU
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "clock.h"
#include "cpu/halves.h"
#include "cpu/system.h"
#include "library.h"
#include "opcodes.h"
#include "ops.decode.gen.h"

namespace tunebook {
namespace {

const Backend* cpu = nullptr;
Backend table;
DeviceInfo info;
std::atomic<int64_t> reserved{0};

// A stream: closures that a thread runs in order.
struct Stream {
  std::mutex mutex;
  std::condition_variable work, progress;
  std::deque<std::function<void()>> queue;
  uint64_t pushed = 0, done = 0;
  bool stop = false;
  std::atomic<bool> failed{false}, lost{false};  // as found by the thread, reported by a wait
  OpError error;
  std::thread thread;
  std::vector<std::function<void()>>* captured = nullptr;  // instead of the queue

  void push(std::function<void()> f) {
    std::lock_guard<std::mutex> lock(mutex);
    if (captured != nullptr) {
      captured->push_back(std::move(f));
      return;
    }
    queue.push_back(std::move(f));
    pushed++;
    work.notify_one();
  }
  void wait(uint64_t until) {
    std::unique_lock<std::mutex> lock(mutex);
    progress.wait(lock, [&] { return done >= until || done == pushed; });
    if (!failed) return;
    if (!lost) failed = false;  // a fault is reported once, a lost device always
    throw error;
  }
  void loop() {
    run_alone();
    for (;;) {
      std::function<void()> f;
      {
        std::unique_lock<std::mutex> lock(mutex);
        work.wait(lock, [&] { return stop || !queue.empty(); });
        if (queue.empty()) return;
        f = std::move(queue.front());
        queue.pop_front();
      }
      if (!lost) f();
      std::lock_guard<std::mutex> lock(mutex);
      done++;
      progress.notify_all();
    }
  }
};
Stream* stream = nullptr;
int opcode_now = 0;
uint64_t sequence_now = 0;
int delay = 0;
std::string lost_op;

const char* const kNames[] = {
#define OP(name) #name,
#include "ops.list.gen.h"
#undef OP
};

// Copies of an op's lists: what it was called with stands in the queue's ring or in a recording, and either may be gone when the op runs.
struct Lists {
  std::vector<std::vector<Ref>> kept;
  void ref(Ref&, bool) {}
  void list(RefList& l, bool) {
    kept.emplace_back(l.items, l.items + l.count);
    l.items = kept.back().data();
  }
};

template <class Args>
void launch(void (*op)(const Args&), const Args& args, std::shared_ptr<Lists> lists) {
  auto call = [op, args, lists, opcode = opcode_now, sequence = sequence_now] {
    if (delay > 0) std::this_thread::sleep_for(std::chrono::microseconds(delay));
    if (stream->failed) return;
    try {
      if (lost_op == kNames[opcode]) {
        stream->lost = true;
        fail("the GPU reports \"an illegal memory access was encountered\" (stand-in). This process cannot use the GPU any more: start it again");
      }
      op(args);
    } catch (const OpError& caught) {
      std::lock_guard<std::mutex> lock(stream->mutex);
      stream->error = caught;
      stream->error.opcode = stream->lost ? -1 : opcode;
      stream->error.sequence = sequence;
      stream->error.lost = stream->lost;
      stream->failed = true;
    }
  };
  stream->push(call);
}

#define OP(name) \
  void fake_##name(const name##_args& given) { \
    name##_args a = given; \
    auto lists = std::make_shared<Lists>(); \
    visit_##name(*lists, a); \
    launch(cpu->name, a, std::move(lists)); \
  }
#include "ops.list.gen.h"
#undef OP

void sync() { stream->wait(~uint64_t{0}); }

void* alloc(int64_t bytes) {
  if (reserved + bytes > info.total_bytes) return nullptr;
  void* data = cpu->alloc(bytes);
  if (data != nullptr) reserved += bytes;
  return data;
}

void rest() {
  std::unique_lock<std::mutex> lock(stream->mutex);
  stream->progress.wait(lock, [] { return stream->done == stream->pushed; });
}

void free_memory(void* data, int64_t bytes) {
  rest();
  reserved -= bytes;
  cpu->free(data, bytes);
}

void* alloc_pinned(int64_t bytes) { return cpu->alloc(bytes); }

void free_pinned(void* data, int64_t bytes) {
  rest();
  cpu->free(data, bytes);
}

void upload(void* to, const void* from, int64_t bytes) {
  std::string held(static_cast<const char*>(from), static_cast<size_t>(bytes));
  stream->push([to, held = std::move(held)] { memcpy(to, held.data(), held.size()); });
}

void download(void* to, const void* from, int64_t bytes) {
  stream->push([to, from, bytes] { memcpy(to, from, static_cast<size_t>(bytes)); });
}

// A copy happens when it is waited for: what does not wait finds nothing.
struct Sending {
  void* to;
  const void* from;
  int64_t bytes;
} sending[kLanes] = {};

void send(int lane, void* to, const void* from, int64_t bytes) { sending[lane] = {to, from, bytes}; }

void sent(int lane) {
  const Sending s = sending[lane];
  memcpy(s.to, s.from, static_cast<size_t>(s.bytes));
}

const Copies copies = {send, sent};

void begin(int opcode, uint64_t sequence) {
  opcode_now = opcode;
  sequence_now = sequence;
}

uint64_t fence(bool) {
  std::lock_guard<std::mutex> lock(stream->mutex);
  return stream->pushed > 0 ? stream->pushed : 1;  // 0 stands for no fence
}

// A graph is the closures that its ops pushed. Trimming makes it invalid, as on a GPU, whose working memory has moved then.
using Captured = std::vector<std::function<void()>>;
uint64_t generation = 0;

void capture_begin() { stream->captured = new Captured; }

void* capture_end(bool keep) {
  Captured* captured = stream->captured;
  stream->captured = nullptr;
  const char* refuses = getenv("TUNEBOOK_FAKE_CUDA_CAPTURE");
  const bool refused = refuses != nullptr && strcmp(refuses, "0") == 0;
  if (keep && !refused) return captured;
  delete captured;
  if (keep) fail("capturing a graph: it cannot be captured (stand-in)");
  return nullptr;
}

void graph_launch(void* graph) {
  for (const auto& f : *static_cast<Captured*>(graph)) stream->push(f);
}

void graph_free(void* graph) { delete static_cast<Captured*>(graph); }

uint64_t capture_generation() { return generation; }
void trim() { generation++; }

void wait(uint64_t number) { stream->wait(number); }

void close() {
  {
    std::lock_guard<std::mutex> lock(stream->mutex);
    stream->stop = true;
    stream->work.notify_all();
  }
  stream->thread.join();
  delete stream;
  stream = nullptr;
}

}  // namespace

bool fake_cuda_asked() { return asked_for("TUNEBOOK_FAKE_CUDA"); }

const Copies* copies_of_fake_cuda() { return &copies; }

const Backend& open_fake_cuda(const Backend& backend) {
  cpu = &with_halves(backend);
  if (const char* d = getenv("TUNEBOOK_FAKE_CUDA_DELAY")) delay = atoi(d);
  if (const char* l = getenv("TUNEBOOK_FAKE_CUDA_LOST")) lost_op = l;
  info = DeviceInfo();
  strcpy(info.name, "stand-in for a GPU");
  info.multiprocessors = 1;
  const char* limit = getenv("TUNEBOOK_CUDA_MEMORY_LIMIT");
  info.total_bytes = info.free_bytes = limit != nullptr ? static_cast<int64_t>(atof(limit)) : memory_limit();
  table = Backend();
  table.name = "cuda:0";
  table.isa = "fake";
  table.threads = 1;
  table.alloc = alloc;
  table.free = free_memory;
  table.upload = upload;
  table.download = download;
  table.sync = sync;
  table.close = close;
  table.info = &info;
  table.memory = info.total_bytes;
  table.begin = begin;
  table.fence = fence;
  table.wait = wait;
  table.trim = trim;
  table.capture_begin = capture_begin;
  table.capture_end = capture_end;
  table.graph_launch = graph_launch;
  table.graph_free = graph_free;
  table.capture_generation = capture_generation;
  table.alloc_pinned = alloc_pinned;
  table.free_pinned = free_pinned;
#define OP(name) table.name = fake_##name;
#include "ops.list.gen.h"
#undef OP
  stream = new Stream;
  stream->thread = std::thread([] { stream->loop(); });
  return table;
}

}  // namespace tunebook
