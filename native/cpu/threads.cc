// isa: none
// The pool: workers that join the job of the calling thread. A worker that is late (asleep, or off its core) is not waited for: the job closes
// when its pieces are taken, and only those who joined are waited for.
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "clock.h"
#include "parallel.h"
#include "system.h"

namespace tunebook {
namespace {

constexpr int kSpins = 2000;  // pauses before a worker sleeps: some tens of microseconds
constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kJoinedMask = kOpen - 1;

thread_local bool in_region = false;

class Pool {
 public:
  explicit Pool(int threads) : threads_(threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
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
    fn_ = fn;
    context_ = context;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    failed_.store(false, std::memory_order_relaxed);
    const uint64_t epoch = (state_.load(std::memory_order_relaxed) >> 32) + 1;
    state_.store(epoch << 32 | kOpen);
    if (sleeping_.load() > 0) {
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    take();
    const uint64_t joined = state_.fetch_and(~kOpen) & kJoinedMask;
    // A worker that was taken off its core in the middle of a piece must be let back on it.
    for (int spin = 0; done_.load(std::memory_order_acquire) != joined; spin++) {
      if (spin < kSpins) {
        pause();
      } else {
        std::this_thread::yield();
      }
    }
    if (failed_.load(std::memory_order_acquire)) throw error_;
  }

 private:
  // Works on pieces of the open job until none is left.
  void take() {
    in_region = true;
    try {
      for (int64_t i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1)) fn_(context_, i);
    } catch (const OpError& error) {
      next_.store(count_);
      if (!claimed_failure_.exchange(true)) {
        error_ = error;
        failed_.store(true, std::memory_order_release);
        claimed_failure_.store(false);
      }
    }
    in_region = false;
  }

  void work() {
    uint64_t seen = 0;
    for (;;) {
      uint64_t state = state_.load(std::memory_order_acquire);
      for (int spin = 0; (state >> 32) == seen || !(state & kOpen); spin++) {
        if (stop_.load(std::memory_order_relaxed)) return;
        if (spin < kSpins) {
          pause();
        } else {
          std::unique_lock<std::mutex> lock(mutex_);
          sleeping_.fetch_add(1);
          wake_.wait(lock, [&] {
            state = state_.load();
            return stop_.load() || ((state >> 32) != seen && (state & kOpen));
          });
          sleeping_.fetch_sub(1);
          spin = 0;
        }
        state = state_.load(std::memory_order_acquire);
      }
      if (!state_.compare_exchange_strong(state, state + 1)) continue;
      seen = state >> 32;
      take();
      done_.fetch_add(1, std::memory_order_release);
    }
  }

  const int threads_;
  std::vector<std::thread> workers_;
  // The job. Read only by the caller and by workers that have joined.
  void (*fn_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
  OpError error_;
  std::atomic<bool> failed_{false}, claimed_failure_{false};
  alignas(64) std::atomic<uint64_t> state_{0};  // epoch << 32 | open | number of workers that joined
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint64_t> done_{0};
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
