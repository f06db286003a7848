// The queue between the JavaScript thread and the device: first in, first out, one producer, one dispatcher thread.
#pragma once
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "allocator.h"
#include "backend.h"
#include "completions.h"
#include "opcodes.h"

namespace tunebook {

extern const char* const kOpNames[kOpCount];

struct Failure {
  int opcode = -1;
  uint64_t sequence = 0;
  std::string message;  // names the op and its integers
  bool lost = false, memory = false;
};

// Throws for a tensor whose op was dropped: `why` as lost_work() gives it.
[[noreturn]] void never_computed(const char* call, const char* tensor, const char* why);

// The device of a command's first tensor.
int place_of_command(const int32_t* words, int64_t word_count);

class Queue {
 public:
  // `woken` is called (from the dispatcher thread) when finished() has something new.
  Queue(const Backend& backend, void (*woken)(void*), void* context);
  ~Queue() { end(); }
  // Drops what is queued and waits for what is running.
  void end();

  // What is enqueued between them changes a model's state as one: an interrupt comes before all of it or after. Nothing of it is begun until
  // its end has been enqueued, unless it fills the queue; without `keep`, and by recover() when no end came, it is dropped as a whole.
  void update_begin();
  void update_end(bool keep);

  // Decodes I[0] = opcode, handles, integers, floats and enqueues; throws OpError when a handle is not alive or an input is absent.
  // Returns the op's number, counted from 1.
  uint64_t run(const int32_t* words, int64_t word_count, Allocator& memory);
  void upload(void* to, const void* from, int64_t bytes);
  void download(Pending* pending, const void* from);
  void release(void* data, int64_t bytes);
  // From begin to end what is enqueued is kept in the graph too.
  void record_begin(Graph* graph) { recording_ = graph; }
  void record_end() { recording_ = nullptr; }
  // Runs a recording once more, as one launch where the device can.
  void launch(Graph* graph) { transfer(Kind::Launch, {graph, nullptr, 0, nullptr}); }
  // Deletes it, after everything that is queued.
  void drop(Graph* graph) { transfer(Kind::Drop, {graph, nullptr, 0, nullptr}); }
  // How many launches of recordings went as one, and why the last capture failed ("": none did).
  uint64_t whole_launches() const { return whole_launches_.load(std::memory_order_relaxed); }
  std::string capture_error();

  bool idle() const { return executed_.load(std::memory_order_acquire) == pushed_; }
  int64_t queued() const { return static_cast<int64_t>(pushed_ - executed_.load(std::memory_order_acquire)) + (behind_ ? behind_->ahead() : 0); }
  void wait_idle();  // until everything enqueued has been run, which a device may still be working on
  void wait_done();  // until the device has done it too
  void recover();
  // Why a tensor holds nothing of use: an op that it was made by was dropped. nullptr: none was.
  const char* lost_work(const Block& block) const;
  // Takes note that the next op to be enqueued writes to it.
  void written(Block& block) const;
  // Gives the ops' working memory back, in queue order.
  void trim();
  // Whether the device cannot be used any more; failure() says why.
  bool lost() const { return lost_.load(std::memory_order_acquire); }
  QueueState state() const { return state_.load(std::memory_order_acquire); }
  // The device was found to be unusable by a call outside the queue.
  void lose(const OpError& error) { fail_at(-1, sequence_, error, error.message); }
  Failure failure();
  std::vector<Pending*> finished();
  // Hands a read, or what began at its place in the queue, to finished(). Any thread.
  void deliver(Pending* pending, QueueState outcome);
  void set_interrupt(std::atomic<int32_t>* flag) { interrupt_.store(flag, std::memory_order_release); }
  // For tests: raises the flag once the op of this number has been run (or, on a device behind the dispatcher, launched).
  void strike_after(uint64_t sequence) { strike_.store(sequence, std::memory_order_relaxed); }

  double busy_seconds() const { return (busy_.load(std::memory_order_relaxed) + (behind_ ? behind_->busy_nanoseconds() : 0)) * 1e-9; }
  // Calls and nanoseconds an op. On a device behind the dispatcher these are the seconds of launching, and with TUNEBOOK_PROFILE=1 the
  // device's own.
  std::atomic<uint64_t> op_calls[kOpCount] = {};
  std::atomic<uint64_t> op_nanoseconds[kOpCount] = {};

 private:
  enum class Kind : uint16_t { Op, Upload, Download, Release, Trim, Mark, Skip, Launch, Drop, UpdateBegin, UpdateEnd };
  struct Entry {
    uint32_t size;  // of the whole entry, a multiple of 16
    Kind kind;
    uint16_t opcode;
    uint64_t sequence;
    uint64_t cost;  // estimated nanoseconds on a device
    uint64_t unused;
  };
  static_assert(sizeof(Entry) % 16 == 0);
  // Ops that were dropped, by their numbers, in their order. Of the JavaScript thread.
  struct Dropped {
    uint64_t from, to;
    std::string why;
  };
  const Dropped* dropped(uint64_t sequence) const;
  struct Transfer {
    void* to;
    void* from;
    int64_t bytes;
    Pending* pending;
  };
  bool has_room(int64_t bytes, uint64_t entries) const;
  void wait_for_room(int64_t bytes, uint64_t entries);
  char* reserve(int64_t bytes);
  void publish();
  void push(Kind kind, int opcode, int64_t payload, uint64_t cost = 0);
  void transfer(Kind kind, const Transfer& t);
  void loop();
  void execute(Entry* entry);
  void run_op(Entry* entry);
  void dispatch(const Entry* entry);
  bool alive();
  void raise_flag();
  void replay(Graph& graph);
  void capture(Graph& graph);
  void discard(Graph& graph);
  void read(Entry* entry, const Transfer& t, bool alive);
  void finish(Completions::Item& item, const OpError* error);
  void fail_at(int opcode, uint64_t sequence, const OpError& error, const std::string& message);

  const Backend& backend_;
  void (*woken_)(void*);
  void* context_;
  std::vector<char> ring_;
  uint64_t head_ = 0;  // of the producer
  bool updating_ = false, held_ = false;  // between update_begin and update_end; without having published anything of it
  Transfer* begun_ = nullptr;             // of the begin, while it is held
  uint64_t update_from_ = 0;             // the number of its first op
  alignas(64) std::atomic<uint64_t> published_{0};
  alignas(64) std::atomic<uint64_t> consumed_{0};
  std::atomic<uint64_t> executed_{0};
  uint64_t pushed_ = 0;
  uint64_t sequence_ = 0;
  uint64_t looked_ = 0;  // the newest op when JavaScript last asked for a result
  std::vector<Dropped> dropped_;
  std::atomic<uint64_t> first_dropped_{0};  // since the last recover(); 0: none
  std::atomic<uint64_t> completed_{0};      // the last op that is known to have been done
  Graph* recording_ = nullptr;
  std::atomic<uint64_t> whole_launches_{0};
  std::string capture_error_;
  std::atomic<bool> asleep_{false}, stop_{false}, dropping_{false};
  enum class Wait : int { None, Room, Idle };
  std::atomic<Wait> producer_waits_{Wait::None};
  std::mutex mutex_;
  std::condition_variable work_, progress_;
  std::atomic<QueueState> state_{QueueState::Running};
  std::atomic<std::atomic<int32_t>*> interrupt_{nullptr};
  std::atomic<uint64_t> strike_{0};
  // Of the dispatcher: what becomes of the update that it is in.
  enum class Update : int { None, Whole, Forgotten } update_ = Update::None;
  std::mutex result_mutex_;
  std::vector<Pending*> results_;
  Failure failure_;
  std::atomic<uint64_t> busy_{0};
  std::atomic<bool> lost_{false};
  const bool trace_;  // wait for every op, so that a device's errors name the one that caused them
  std::unique_ptr<Completions> behind_;  // of a device that runs behind the dispatcher
  std::thread thread_;
};

}  // namespace tunebook
