#include "queue.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "clock.h"
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

// The reason goes into a message of limited length, and must leave room for what follows it.
void never_computed(const char* call, const char* tensor, const char* why) {
  fail("%s: %s was never computed, since %.380s. Compute it again.", call, tensor, why);
}

namespace {

constexpr int64_t kRingBytes = int64_t{4} << 20;
constexpr uint64_t kDepth = 8192;
constexpr auto kSpin = std::chrono::microseconds(30);

}  // namespace

Queue::Queue(const Backend& backend, void (*woken)(void*), void* context)
    : backend_(backend), woken_(woken), context_(context), ring_(kRingBytes), trace_(asked_for("TUNEBOOK_TRACE")) {
  if (backend.fence != nullptr) {
    behind_ = std::make_unique<Completions>(backend, [this](Completions::Item& item, const OpError* error) { finish(item, error); });
  }
  thread_ = std::thread([this] { loop(); });
}

void Queue::end() {
  if (!thread_.joinable()) return;
  stop_.store(true);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    work_.notify_all();
  }
  thread_.join();
  behind_.reset();  // waits for what has been launched
}

bool Queue::has_room(int64_t bytes, uint64_t entries) const {
  return head_ + bytes - consumed_.load() <= static_cast<uint64_t>(kRingBytes) && pushed_ + entries - executed_.load() <= kDepth;
}

void Queue::wait_for_room(int64_t bytes, uint64_t entries) {
  if (has_room(bytes, entries)) return;
  publish();
  std::unique_lock<std::mutex> lock(mutex_);
  producer_waits_.store(Wait::Room);
  progress_.wait(lock, [&] { return has_room(bytes, entries); });
  producer_waits_.store(Wait::None);
}

// Room for one entry at the head of the ring, waiting while the queue is full.
char* Queue::reserve(int64_t bytes) {
  if (bytes > kRingBytes / 2) fail("a command of %lld bytes is too long", (long long)bytes);
  const int64_t offset = static_cast<int64_t>(head_ % kRingBytes);
  int64_t skip = 0;
  if (offset + bytes > kRingBytes) skip = kRingBytes - offset;  // an entry stands in one piece
  wait_for_room(skip + bytes, 1);
  if (skip > 0) {
    Entry* entry = reinterpret_cast<Entry*>(ring_.data() + offset);
    entry->size = static_cast<uint32_t>(skip);
    entry->kind = Kind::Skip;
    head_ += skip;
  }
  return ring_.data() + head_ % kRingBytes;
}

// Lets the dispatcher see what has been enqueued.
void Queue::publish() {
  held_ = false;
  begun_ = nullptr;
  if (published_.load(std::memory_order_relaxed) == head_) return;
  published_.store(head_);
  if (asleep_.load()) {
    std::lock_guard<std::mutex> lock(mutex_);
    work_.notify_one();
  }
}

// Enqueues the entry at the head.
void Queue::push(Kind kind, int opcode, int64_t bytes, uint64_t cost) {
  Entry* entry = reinterpret_cast<Entry*>(ring_.data() + head_ % kRingBytes);
  entry->size = static_cast<uint32_t>((bytes + 15) / 16 * 16);
  entry->kind = kind;
  entry->opcode = static_cast<uint16_t>(opcode);
  entry->sequence = sequence_;
  entry->cost = cost;
  head_ += entry->size;
  pushed_++;
  if (!held_) publish();
}

void Queue::transfer(Kind kind, const Transfer& t) {
  char* place = reserve(sizeof(Entry) + sizeof(Transfer));
  memcpy(place + sizeof(Entry), &t, sizeof t);
  push(kind, 0, sizeof(Entry) + sizeof(Transfer));
}

void Queue::update_begin() {
  update_end(false);  // of one that never ended: its JavaScript was stopped
  if (recording_ != nullptr) recording_->spoil("parameters were updated");
  wait_for_room(kRingBytes / 2, kDepth / 2);
  updating_ = held_ = true;
  update_from_ = sequence_ + 1;
  char* place = reserve(sizeof(Entry) + sizeof(Transfer));
  begun_ = reinterpret_cast<Transfer*>(place + sizeof(Entry));
  *begun_ = {};
  push(Kind::UpdateBegin, 0, sizeof(Entry) + sizeof(Transfer));
}

void Queue::update_end(bool keep) {
  if (!updating_) return;
  if (!keep && held_) {
    begun_->bytes = 1;  // forgotten
    if (sequence_ >= update_from_) dropped_.push_back({update_from_, sequence_, "the update that it belongs to was broken off"});
  }
  transfer(Kind::UpdateEnd, {});
  updating_ = false;
  publish();
}

void Queue::upload(void* to, const void* from, int64_t bytes) {
  if (recording_ != nullptr) recording_->spoil("values were sent from JavaScript");
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
  if (recording_ != nullptr) recording_->spoil("values were read by JavaScript");
  looked_ = sequence_;
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
  publish();
  std::unique_lock<std::mutex> lock(mutex_);
  producer_waits_.store(Wait::Idle);
  progress_.wait(lock, [&] { return idle(); });
  producer_waits_.store(Wait::None);
}

void Queue::wait_done() {
  if (recording_ != nullptr) recording_->spoil("JavaScript waited for the device");
  looked_ = sequence_;
  if (behind_) {
    transfer(Kind::Mark, Transfer());
    wait_idle();
    behind_->drain();
  } else {
    wait_idle();
  }
}

void Queue::trim() {
  if (backend_.trim != nullptr) transfer(Kind::Trim, Transfer());
}

void Queue::recover() {
  update_end(false);
  dropping_.store(true);
  wait_done();
  if (behind_ && !lost()) {
    try {
      backend_.sync();  // copies beside the ops whose wait was dropped
    } catch (const OpError&) {  // the next op meets it again, with a place to report it
    }
  }
  std::lock_guard<std::mutex> lock(result_mutex_);
  if (lost()) {  // nothing brings it back
    dropping_.store(false);
    return;
  }
  uint64_t from = first_dropped_.exchange(0);
  const bool failed = !failure_.message.empty();
  // An op of a recording has the number that it had when it was recorded.
  const uint64_t failed_at = std::max(failure_.sequence, completed_.load() + 1);
  if (failed && (from == 0 || failed_at < from)) from = failed_at;
  while (from > 0 && !dropped_.empty() && dropped_.back().from >= from) dropped_.pop_back();
  if (from > 0) dropped_.push_back({from, sequence_, failed ? "an operation failed before: " + failure_.message : "it was interrupted"});
  failure_ = Failure();
  state_.store(QueueState::Running);
  dropping_.store(false);
}

const Queue::Dropped* Queue::dropped(uint64_t sequence) const {
  if (sequence == 0 || dropped_.empty()) return nullptr;
  auto after = std::upper_bound(dropped_.begin(), dropped_.end(), sequence, [](uint64_t s, const Dropped& d) { return s < d.from; });
  return after == dropped_.begin() || sequence > (after - 1)->to ? nullptr : &*(after - 1);
}

const char* Queue::lost_work(const Block& block) const {
  const Dropped* found = dropped(block.written);
  if (found == nullptr) found = dropped(block.finished);
  return found == nullptr ? nullptr : found->why.c_str();
}

// Many tensors are made by several ops. Once JavaScript may have seen its value, a tensor that is written to again keeps the old one when that is dropped:
// a parameter that was to be changed, for example.
void Queue::written(Block& block) const {
  if (block.written == 0 || lost_work(block) != nullptr) {
    block.written = sequence_ + 1;
    block.finished = 0;
  } else if (block.written > looked_ && block.written != kElsewhere) {
    block.finished = sequence_ + 1;
  }
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

// What comes first counts: a device's fault is found after later ops were launched, and they may have failed because of it.
void Queue::fail_at(int opcode, uint64_t sequence, const OpError& error, const std::string& message) {
  std::lock_guard<std::mutex> lock(result_mutex_);
  if (error.lost) lost_.store(true);
  if (state_.load() == QueueState::Failed && failure_.sequence <= sequence && !error.lost) return;
  if (failure_.lost) return;
  failure_.opcode = opcode;
  failure_.sequence = sequence;
  failure_.message = message;
  failure_.lost = error.lost;
  failure_.memory = error.memory;
  state_.store(QueueState::Failed);
}

void Queue::dispatch(const Entry* entry) {
  const char* args = reinterpret_cast<const char*>(entry) + sizeof(Entry);
  switch (entry->opcode) {
#define OP(name)                                                \
  case op_##name:                                               \
    backend_.name(*reinterpret_cast<const name##_args*>(args)); \
    break;
#include "ops.list.gen.h"
#undef OP
  }
}

void Queue::run_op(Entry* entry) {
  const char* args = reinterpret_cast<const char*>(entry) + sizeof(Entry);
  try {
    if (behind_) {
      behind_->before();
      backend_.begin(entry->opcode, entry->sequence);
    }
    dispatch(entry);
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
    fail_at(entry->opcode, entry->sequence, error, std::string(kOpNames[entry->opcode]) + ": " + error.message + " (" + numbers + ")");
  }
  if (!behind_) return;
  behind_->after(entry->opcode, entry->sequence, entry->cost);
  if (trace_) {
    behind_->rest();
    behind_->drain();
  }
}

// On the thread that waits for the device: a mark has been reached.
void Queue::finish(Completions::Item& item, const OpError* error) {
  if (error != nullptr && error->opcode >= 0) {
    fail_at(error->opcode, error->sequence, *error, std::string(kOpNames[error->opcode]) + ": " + error->message);
  } else if (error != nullptr) {
    std::string where = item.opcode < 0 ? "" : std::string(kOpNames[item.opcode]) + ": ";
    if (item.ops > 1) where = "one of " + std::to_string(item.ops) + " operations up to " + where;
    fail_at(item.opcode, item.sequence, *error, where + error->message);
  } else if (item.from != 0 && item.fence != 0 && item.ops == 1) {
    op_nanoseconds[item.opcode].fetch_add(static_cast<uint64_t>(backend_.elapsed(item.from, item.fence) * 1e9));
  }
  if (error == nullptr && item.opcode >= 0 && item.sequence > completed_.load()) completed_.store(item.sequence);
  if (item.pending == nullptr) return;
  QueueState outcome = item.outcome;
  if (outcome == QueueState::Running) {
    std::lock_guard<std::mutex> lock(result_mutex_);
    if (!failure_.message.empty() && (failure_.lost || failure_.sequence <= item.sequence)) outcome = QueueState::Failed;
  }
  deliver(item.pending, outcome);
}

void Queue::deliver(Pending* pending, QueueState outcome) {
  pending->outcome = stop_.load() ? QueueState::Interrupted : outcome;
  if (pending->reached != nullptr && pending->outcome == QueueState::Running) {
    const auto reached = pending->reached;
    pending->reached = nullptr;
    return reached(pending);
  }
  bool first;
  {
    std::lock_guard<std::mutex> lock(result_mutex_);
    first = results_.empty();
    results_.push_back(pending);
  }
  if (first && !stop_.load()) woken_(context_);
}

void Queue::read(Entry* entry, const Transfer& t, bool alive) {
  if (alive && t.bytes > 0) {
    try {
      backend_.download(t.pending->staging, t.from, t.bytes);
    } catch (const OpError& error) {
      fail_at(-1, entry->sequence, error, error.message);
    }
  }
  const QueueState outcome = update_ == Update::Forgotten ? QueueState::Interrupted : state_.load();
  if (behind_) {
    behind_->mark(t.pending, outcome);
    return;
  }
  backend_.sync();
  deliver(t.pending, outcome);
}

void Queue::raise_flag() {
  if (std::atomic<int32_t>* flag = interrupt_.load(); flag != nullptr) flag->store(1);
}

// Whether work still counts: nobody interrupted it, and nothing failed. An update that was begun goes on to its end.
bool Queue::alive() {
  const std::atomic<int32_t>* flag = interrupt_.load(std::memory_order_acquire);
  const bool asked = (flag != nullptr && flag->load(std::memory_order_relaxed) != 0) || dropping_.load(std::memory_order_relaxed);
  const bool interrupted = asked && update_ != Update::Whole;
  if (interrupted && state_.load() == QueueState::Running) state_.store(QueueState::Interrupted);
  return state_.load(std::memory_order_relaxed) == QueueState::Running && !stop_.load(std::memory_order_relaxed);
}

void Queue::execute(Entry* entry) {
  const bool alive = this->alive() && update_ != Update::Forgotten;
  if (entry->kind == Kind::Op) {
    uint64_t none = 0;
    if (!alive) {
      if (update_ != Update::Forgotten) first_dropped_.compare_exchange_strong(none, entry->sequence);
      return;
    }
    run_op(entry);
    if (entry->sequence == strike_.load(std::memory_order_relaxed)) raise_flag();
    if (!behind_ && state_.load(std::memory_order_relaxed) == QueueState::Running) completed_.store(entry->sequence, std::memory_order_relaxed);
    return;
  }
  Transfer t;
  memcpy(&t, reinterpret_cast<char*>(entry) + sizeof(Entry), sizeof t);
  switch (entry->kind) {
    case Kind::Upload:  // done in any case: it does not depend on what was dropped
      try {
        backend_.upload(t.to, t.from, t.bytes);
      } catch (const OpError& error) {
        fail_at(-1, entry->sequence, error, error.message);
      }
      ::free(t.from);
      break;
    case Kind::Release: backend_.free(t.to, t.bytes); break;
    case Kind::Download: read(entry, t, alive); break;
    case Kind::Trim: backend_.trim(); break;
    case Kind::Mark: behind_->rest(); break;
    case Kind::Launch:
      if (alive) replay(*static_cast<Graph*>(t.to));
      break;
    case Kind::UpdateBegin: update_ = t.bytes != 0 ? Update::Forgotten : alive ? Update::Whole : Update::None; break;
    case Kind::UpdateEnd: update_ = Update::None; break;
    case Kind::Drop:
      discard(*static_cast<Graph*>(t.to));
      delete static_cast<Graph*>(t.to);
      break;
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
        if (behind_) behind_->rest();
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
      if (!behind_) busy_.store(busy_.load(std::memory_order_relaxed) + now - before, std::memory_order_relaxed);
      if (kind == Kind::Op) {
        op_calls[opcode].store(op_calls[opcode].load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        if (!behind_ || !behind_->measuring()) {
          op_nanoseconds[opcode].store(op_nanoseconds[opcode].load(std::memory_order_relaxed) + now - before, std::memory_order_relaxed);
        }
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
