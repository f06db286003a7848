#include "completions.h"

#include <algorithm>

#include "clock.h"

namespace tunebook {
namespace {

constexpr double kAhead = 80e6;   // nanoseconds of work that may be launched and not done
constexpr double kMark = 5e6;     // between two marks
constexpr int64_t kMostOps = 1024, kMarkOps = 64;

}  // namespace

Completions::Completions(const Backend& backend, Done done)
    : backend_(backend), done_(std::move(done)), measure_(backend.elapsed != nullptr && asked_for("TUNEBOOK_PROFILE")) {
  thread_ = std::thread([this] { loop(); });
}

Completions::~Completions() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    work_.notify_all();
  }
  thread_.join();
}

void Completions::before() {
  const double factor = factor_.load(std::memory_order_relaxed);
  auto too_far = [&] { return ops_ahead_.load() >= kMostOps || (ops_ahead_.load() > 1 && cost_ahead_.load() * factor > kAhead); };
  if (too_far()) {
    rest();  // or nobody would wait for it
    std::unique_lock<std::mutex> lock(mutex_);
    progress_.wait(lock, [&] { return !too_far(); });
  }
  if (open_.ops == 0) {
    open_.began = nanoseconds();
    if (measure_) open_.from = backend_.fence(false);
  }
}

void Completions::after(int opcode, uint64_t sequence, uint64_t cost) {
  open_.ops++;
  open_.cost += cost;
  open_.opcode = opcode;
  open_.sequence = sequence;
  ops_ahead_.fetch_add(1);
  cost_ahead_.fetch_add(cost);
  if (measure_ || open_.ops >= kMarkOps || open_.cost * factor_.load(std::memory_order_relaxed) >= kMark) mark();
}

void Completions::mark(Pending* pending, QueueState outcome) {
  Item item = open_;
  open_ = Item();
  open_.opcode = item.opcode;
  open_.sequence = item.sequence;
  item.pending = pending;
  item.outcome = outcome;
  try {
    item.fence = backend_.fence(pending != nullptr);
  } catch (const OpError&) {
    item.fence = 0;  // the device is lost: waiting says so
  }
  push(item);
}

void Completions::push(Item item) {
  item.pushed = nanoseconds();
  std::unique_lock<std::mutex> lock(mutex_);
  progress_.wait(lock, [&] { return items_.size() < kMostOps; });
  items_.push_back(item);
  work_.notify_one();
}

void Completions::rest() {
  if (open_.ops > 0) mark();
}

void Completions::drain() {
  std::unique_lock<std::mutex> lock(mutex_);
  progress_.wait(lock, [&] { return items_.empty() && !waiting_; });
}

void Completions::learn(const Item& item, uint64_t now) {
  if (item.ops == 0) return;
  const uint64_t from = std::max(last_done_, item.began);
  if (now <= from) return;
  busy_.fetch_add(now - from, std::memory_order_relaxed);
  if (last_done_ < item.pushed) return;  // a device that may have waited for launches tells nothing about its speed
  const double seen = static_cast<double>(now - from) / static_cast<double>(std::max<uint64_t>(item.cost, 1));
  // Up at once, down by and by: too little ahead costs nothing that a few marks later is not made good, too much cannot be taken back.
  const double before = factor_.load();
  factor_.store(std::clamp(seen > before ? seen : before * 0.7 + seen * 0.3, 0.25, 1e4));
}

void Completions::loop() {
  for (;;) {
    Item item;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      work_.wait(lock, [&] { return stop_ || !items_.empty(); });
      if (items_.empty()) return;
      item = items_.front();
      items_.pop_front();
      waiting_ = true;
    }
    OpError error;
    bool failed = false;
    try {
      if (item.fence != 0) {
        backend_.wait(item.fence);
      } else {
        backend_.sync();
      }
    } catch (const OpError& caught) {
      error = caught;
      failed = true;
    }
    const uint64_t now = nanoseconds();
    learn(item, now);
    last_done_ = now;
    done_(item, failed ? &error : nullptr);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ops_ahead_.fetch_sub(item.ops);
      cost_ahead_.fetch_sub(item.cost);
      waiting_ = false;
      progress_.notify_all();
    }
  }
}

}  // namespace tunebook
