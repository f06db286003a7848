// isa: none
// The pool: workers that join the job of the calling thread. A worker that is late (asleep, or off its core) is not waited for: the job closes
// when its pieces are taken, and only those who joined are waited for.
//
// A cache line that goes from one core to another takes 60 ns, or 250 where the cores share no cache, and an op of decoding some microseconds. So all that
// a worker must know stands in one line, which goes to it when the job begins and back when it has done its part; every thread has pieces of its own,
// and looks at another's only when it is through with them.
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "clock.h"
#include "parallel.h"
#include "system.h"

namespace tunebook {
namespace {

constexpr int kSpins = 2000;  // pauses before a worker sleeps: some tens of microseconds
constexpr int kLastSpins = 64;  // and between its saying so and its sleep: a job that was opened before is seen by then

// What becomes of a job in a worker's eyes. Above the two bits its number.
enum : uint64_t { kClosed, kOpen, kJoined, kDone };

thread_local bool in_region = false;

class Pool {
 public:
  explicit Pool(int threads) : threads_(threads), slots_(new Slot[static_cast<size_t>(threads)]) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
  }

  ~Pool() {
    stop_.store(true);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    for (std::thread& t : workers_) t.join();
  }

  int threads() const { return threads_; }

  void run(int64_t count, void (*fn)(void*, int64_t), void* context) {
    failed_.store(false, std::memory_order_relaxed);
    const int threads = count < threads_ ? static_cast<int>(count) : threads_;
    for (int t = 0; t < threads; t++) {
      Slot& slot = slots_[t];
      slot.threads = threads;
      slot.fn = fn;
      slot.context.store(context, std::memory_order_relaxed);
      slot.end = (t + 1) * count / threads;
      slot.next.store(t * count / threads, std::memory_order_relaxed);
    }
    job_ += 4;
    for (int t = 1; t < threads; t++) slots_[t].state.store(job_ | kOpen, std::memory_order_release);
    // Whoever goes to sleep at this moment may be missed: then this job is done without it.
    if (sleeping_.load(std::memory_order_relaxed) > 0) {
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    take(0);
    for (int t = 1; t < threads; t++) wait_for(slots_[t]);
    if (failed_.load(std::memory_order_acquire)) throw error_;
  }

 private:
  struct alignas(128) Slot {
    std::atomic<uint64_t> state{0};
    std::atomic<int64_t> next{0};  // the thread's pieces: [next, end)
    int64_t end = 0;
    void (*fn)(void*, int64_t) = nullptr;
    std::atomic<void*> context{nullptr};
    int threads = 0;  // that have pieces of this job
  };

  // Works on pieces of the open job until none is left, its own ones first.
  void take(int self) {
    in_region = true;
    const int threads = slots_[self].threads;
    try {
      for (int i = 0; i < threads; i++) {
        Slot& slot = slots_[self + i < threads ? self + i : self + i - threads];
        while (slot.next.load(std::memory_order_relaxed) < slot.end) {
          const int64_t piece = slot.next.fetch_add(1, std::memory_order_relaxed);
          if (piece < slot.end) slot.fn(slot.context.load(std::memory_order_relaxed), piece);
        }
      }
    } catch (const OpError& error) {
      for (int t = 0; t < threads; t++) slots_[t].next.store(slots_[t].end, std::memory_order_relaxed);
      if (!claimed_failure_.exchange(true)) {
        error_ = error;
        failed_.store(true, std::memory_order_release);
        claimed_failure_.store(false);
      }
    }
    in_region = false;
  }

  // Every piece is taken: until this worker has done its last one, if it joined.
  void wait_for(Slot& slot) {
    uint64_t state = slot.state.load(std::memory_order_acquire);
    if (state == (job_ | kOpen) && slot.state.compare_exchange_strong(state, job_ | kClosed, std::memory_order_acquire)) return;
    // One that was taken off its core in the middle of a piece must be let back on it.
    for (int spin = 0; slot.state.load(std::memory_order_acquire) != (job_ | kDone); spin++) {
      if (spin < kSpins) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

  void work(int self) {
    Slot& slot = slots_[self];
    for (;;) {
      uint64_t state = slot.state.load(std::memory_order_acquire);
      bool counted = false;
      for (int spin = 0; (state & 3) != kOpen; spin++) {
        if (stop_.load(std::memory_order_relaxed)) return;
        if (spin < kSpins || (counted && spin < kSpins + kLastSpins)) {
          pause();
        } else if (!counted) {
          sleeping_.fetch_add(1);
          counted = true;
        } else {
          std::unique_lock<std::mutex> lock(mutex_);
          wake_.wait(lock, [&] { return stop_.load() || (slot.state.load() & 3) == kOpen; });
        }
        state = slot.state.load(std::memory_order_acquire);
      }
      if (counted) sleeping_.fetch_sub(1);
      // The job's own numbers are on their way while the slot is taken.
      const char* context = static_cast<const char*>(slot.context.load(std::memory_order_relaxed));
      for (int line = 0; line < 4; line++) __builtin_prefetch(context + 64 * line);
      const uint64_t job = state - kOpen;
      if (!slot.state.compare_exchange_strong(state, job | kJoined, std::memory_order_acq_rel)) continue;
      take(self);
      slot.state.store(job | kDone, std::memory_order_release);
    }
  }

  const int threads_;
  std::unique_ptr<Slot[]> slots_;  // of the calling thread the first one
  uint64_t job_ = 0;
  std::vector<std::thread> workers_;
  OpError error_;
  std::atomic<bool> failed_{false}, claimed_failure_{false};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

Pool* pool = nullptr;

struct Scratch {
  void* data[8] = {};
  int64_t bytes[8] = {};
  ~Scratch() {
    for (int i = 0; i < 8; i++) free_pages(data[i], bytes[i]);
  }
};
thread_local Scratch scratches;

}  // namespace

void start_pool(int threads) {
  if (pool == nullptr) pool = new Pool(threads);
}

void stop_pool() {
  delete pool;
  pool = nullptr;
}

void run_alone() { in_region = true; }

int thread_count() { return pool == nullptr || in_region ? 1 : pool->threads(); }

void detail::parallel_run(int64_t count, void (*fn)(void*, int64_t), void* context) {
  if (count <= 1 || thread_count() == 1) {
    for (int64_t i = 0; i < count; i++) fn(context, i);
    return;
  }
  pool->run(count, fn, context);
}

void* scratch(int slot, int64_t bytes) {
  if (bytes > scratches.bytes[slot]) {
    free_pages(scratches.data[slot], scratches.bytes[slot]);
    scratches.data[slot] = nullptr;
    scratches.bytes[slot] = 0;
    const int64_t rounded = (bytes + 4095) / 4096 * 4096;
    scratches.data[slot] = alloc_pages(rounded);
    if (scratches.data[slot] == nullptr) fail("out of memory for %lld bytes of working memory", (long long)bytes);
    scratches.bytes[slot] = rounded;
  }
  return scratches.data[slot];
}

}  // namespace tunebook
