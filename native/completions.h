// What a device that runs behind the dispatcher has still to do: marks in its stream that a thread waits for in order. It finds faults,
// delivers reads, measures, and bounds how far the dispatcher runs ahead, so that an interrupt has little launched work to wait for.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "backend.h"

namespace tunebook {

enum class QueueState : int { Running, Failed, Interrupted };

// A read that waits for its place in the queue. Made by the JavaScript thread, filled by the device, taken back by the JavaScript thread.
struct Pending {
  void* staging = nullptr;  // host memory; nullptr when nothing is read (settle)
  int64_t bytes = 0;
  QueueState outcome = QueueState::Running;  // Running: it went well
  // Called on the delivering thread when its place has been reached; what it then stands for is delivered again, without this.
  void (*reached)(Pending*) = nullptr;
};

class Completions {
 public:
  struct Item {
    uint64_t fence = 0;         // 0: none could be set
    uint64_t from = 0;          // when measuring one op: the fence before it
    int64_t ops = 0;            // launched since the last mark
    uint64_t cost = 0;          // their estimated nanoseconds
    int opcode = -1;            // of the last op
    uint64_t sequence = 0;      // likewise
    Pending* pending = nullptr;
    QueueState outcome = QueueState::Running;  // of the read when it was launched
    uint64_t began = 0;         // when the first of the ops was launched, in nanoseconds
    uint64_t pushed = 0;
  };
  // `done` is called on the waiting thread for every item, in order, with the error that waiting brought (or nullptr).
  using Done = std::function<void(Item&, const OpError*)>;

  Completions(const Backend& backend, Done done);
  ~Completions();  // waits for what has been launched

  // Dispatcher: before an op is launched, and after. `before` waits while too much is ahead.
  void before();
  void after(int opcode, uint64_t sequence, uint64_t cost);
  // Dispatcher: marks the place that the stream has reached. With a read, `outcome` is what it was launched with.
  void mark(Pending* pending = nullptr, QueueState outcome = QueueState::Running);
  // Dispatcher: marks what has been launched, if anything, since nothing more may come for a while.
  void rest();
  // Until everything that is marked has been done.
  void drain();

  uint64_t busy_nanoseconds() const { return busy_.load(std::memory_order_relaxed); }
  int64_t ahead() const { return ops_ahead_.load(std::memory_order_relaxed); }
  bool measuring() const { return measure_; }

 private:
  void push(Item item);
  void loop();
  void learn(const Item& item, uint64_t now);

  const Backend& backend_;
  Done done_;
  const bool measure_;
  Item open_;  // launched and not marked
  // How much longer work takes than its estimate; learnt from marks that the device reached while it was busy, and careful at first.
  std::atomic<double> factor_{1000.0};
  std::atomic<int64_t> ops_ahead_{0};
  std::atomic<uint64_t> cost_ahead_{0}, busy_{0};
  uint64_t last_done_ = 0;
  std::mutex mutex_;
  std::condition_variable work_, progress_;
  std::deque<Item> items_;
  bool waiting_ = false, stop_ = false;  // waiting_: an item is with the thread
  std::thread thread_;
};

}  // namespace tunebook
