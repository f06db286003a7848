// The queue between the JavaScript thread and the device: first in, first out, one producer, one dispatcher thread.
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "allocator.h"
#include "backend.h"

namespace tunebook {

enum Opcode : int {
#define OP(name) op_##name,
#include "ops.list.gen.h"
#undef OP
  kOpCount
};
extern const char* const kOpNames[kOpCount];

enum class QueueState : int { Running, Failed, Interrupted };

// A read that waits for its place in the queue. Made by the JavaScript thread, filled by the dispatcher, taken back by the JavaScript thread.
struct Pending {
  void* staging = nullptr;  // malloc; nullptr when nothing is read (settle)
  int64_t bytes = 0;
  QueueState outcome = QueueState::Running;  // Running: it went well
  void* owner = nullptr;                     // what the binding needs to settle the promise
};

struct Failure {
  int opcode = -1;
  uint64_t sequence = 0;
  std::string message;  // names the op and its integers
};

class Queue {
 public:
  // `woken` is called (from the dispatcher thread) when finished() has something new.
  Queue(const Backend& backend, void (*woken)(void*), void* context);
  ~Queue();  // drops what is queued and waits for the op that is running

  // Decodes I[0] = opcode, handles, integers, floats and enqueues; throws OpError when a handle is not alive or an input is absent.
  // Returns the op's number, counted from 1.
  uint64_t run(const int32_t* words, int64_t word_count, const Allocator& memory);
  void upload(void* to, const void* from, int64_t bytes);
  void download(Pending* pending, const void* from);
  void release(void* data, int64_t bytes);

  bool idle() const { return executed_.load(std::memory_order_acquire) == pushed_; }
  int64_t queued() const { return static_cast<int64_t>(pushed_ - executed_.load(std::memory_order_acquire)); }
  void wait_idle();
  void recover();
  QueueState state() const { return state_.load(std::memory_order_acquire); }
  Failure failure();
  std::vector<Pending*> finished();
  void set_interrupt(const std::atomic<int32_t>* flag) { interrupt_.store(flag, std::memory_order_release); }

  double busy_seconds() const { return busy_.load(std::memory_order_relaxed) * 1e-9; }
  // Calls and nanoseconds an op, written by the dispatcher.
  std::atomic<uint64_t> op_calls[kOpCount] = {};
  std::atomic<uint64_t> op_nanoseconds[kOpCount] = {};

 private:
  enum class Kind : uint16_t { Op, Upload, Download, Release, Skip };
  struct Entry {
    uint32_t size;  // of the whole entry, a multiple of 16
    Kind kind;
    uint16_t opcode;
    uint64_t sequence;
  };
  struct Transfer {
    void* to;
    void* from;
    int64_t bytes;
    Pending* pending;
  };
  char* reserve(int64_t bytes);
  void push(Kind kind, int opcode, int64_t payload);
  void transfer(Kind kind, const Transfer& t);
  void loop();
  void execute(Entry* entry);
  void run_op(Entry* entry);

  const Backend& backend_;
  void (*woken_)(void*);
  void* context_;
  std::vector<char> ring_;
  uint64_t head_ = 0;  // of the producer
  alignas(64) std::atomic<uint64_t> published_{0};
  alignas(64) std::atomic<uint64_t> consumed_{0};
  std::atomic<uint64_t> executed_{0};
  uint64_t pushed_ = 0;
  uint64_t sequence_ = 0;
  std::atomic<bool> asleep_{false}, stop_{false}, dropping_{false};
  enum class Wait : int { None, Room, Idle };
  std::atomic<Wait> producer_waits_{Wait::None};
  std::mutex mutex_;
  std::condition_variable work_, progress_;
  std::atomic<QueueState> state_{QueueState::Running};
  std::atomic<const std::atomic<int32_t>*> interrupt_{nullptr};
  std::mutex result_mutex_;
  std::vector<Pending*> results_;
  Failure failure_;
  std::atomic<uint64_t> busy_{0};
  std::thread thread_;
};

}  // namespace tunebook
