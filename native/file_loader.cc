#include "file_loader.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <system_error>

namespace tunebook {
namespace {

// Small enough that an interrupt, and the last pieces of a model, wait little; large enough that a copy over the bus runs at full speed.
constexpr int64_t kPiece = int64_t{8} << 20;
// Where a piece is taken to its place by the processor: it is still in its cache then.
constexpr int64_t kPlaced = int64_t{512} << 10;
constexpr int kSlots = 2;  // of a thread: one is copied from while the other is filled
constexpr int kMostWorkers = kLanes / kSlots;

// Reading from memory is copying by the processor: some threads are needed to keep up with the bus, and a disk likes several requests at once.
int workers_of() {
  if (const char* asked = getenv("TUNEBOOK_LOAD_THREADS")) {
    const int n = atoi(asked);
    if (n > 0) return std::min(n, kMostWorkers);
  }
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 2, 8);
}

}  // namespace

FileLoader::FileLoader(const Backend& backend, const Copies* copies) : backend_(backend), copies_(copies), workers_(workers_of()) {}

void FileLoader::add(FileLoad* load) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    load->next = 0;
    load->left = 0;
    if (stop_ || cancelled_.count(load->group) > 0) load->cancelled = true;
    if (!load->failed() && load->bytes > 0) {
      start_threads();
      if (!threads_.empty()) {
        open_.push_back(load);
        on_their_way_++;
        work_.notify_all();
        return;
      }
      load->trouble_code = EAGAIN;
      load->trouble = "no thread can be started";
    }
  }
  load->ended(load);
}

void FileLoader::start_threads() {
  if (!threads_.empty()) return;
  try {
    for (int i = 0; i < workers_; i++) threads_.emplace_back([this, i, generation = generation_] { work(i, generation); });
  } catch (const std::system_error&) {  // as many as the system allows
  }
}

void FileLoader::cancel(int32_t group) {
  std::vector<FileLoad*> over;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    cancelled_.insert(group);
    for (auto it = open_.begin(); it != open_.end();) {
      FileLoad* load = *it;
      if (load->group != group) {
        ++it;
        continue;
      }
      load->cancelled = true;
      it = open_.erase(it);
      if (load->left == 0) over.push_back(load);
    }
    on_their_way_ -= static_cast<int64_t>(over.size());
  }
  for (FileLoad* load : over) load->ended(load);
}

void FileLoader::forget(int32_t group) {
  std::unique_lock<std::mutex> lock(mutex_);
  cancelled_.erase(group);
  if (on_their_way_ == 0) end_threads(lock);
}

void FileLoader::stop() {
  std::vector<FileLoad*> over;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    stop_ = true;
    for (FileLoad* load : open_) {
      load->cancelled = true;
      if (load->left == 0) over.push_back(load);
    }
    on_their_way_ -= static_cast<int64_t>(over.size());
    open_.clear();
    end_threads(lock);
  }
  for (FileLoad* load : over) load->ended(load);
}

// The threads finish what they have claimed, and give their memory back. Threads that `add` starts meanwhile are a new generation; it uses the same lanes, which
// are at rest: either nothing is on its way, or nothing can be added any more.
void FileLoader::end_threads(std::unique_lock<std::mutex>& lock) {
  std::vector<std::thread> ending;
  ending.swap(threads_);
  generation_++;
  work_.notify_all();
  lock.unlock();
  for (std::thread& t : ending) t.join();
  lock.lock();
}

int64_t FileLoader::staged_bytes() {
  std::lock_guard<std::mutex> lock(mutex_);
  return staged_;
}

// The next piece, of the oldest load that has one. False: there is none (not waiting), or the threads end.
bool FileLoader::claim(Piece* piece, uint64_t generation, bool wait) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (wait) work_.wait(lock, [&] { return generation != generation_ || !open_.empty(); });
  if (generation != generation_ || open_.empty()) return false;
  FileLoad* load = open_.front();
  const int64_t most = load->place != nullptr ? kPlaced : kPiece;
  const int64_t whole = std::max(load->unit, most / load->unit * load->unit);
  *piece = {load, load->next, std::min(whole, load->bytes - load->next)};
  load->next += piece->bytes;
  load->left++;
  if (load->next >= load->bytes) open_.pop_front();
  return true;
}

// The first failure of a load counts, and nothing more of it is claimed.
void FileLoader::fail(FileLoad* load, const std::function<void()>& note) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!load->failed()) note();
  const auto found = std::find(open_.begin(), open_.end(), load);
  if (found != open_.end()) open_.erase(found);
  load->next = load->bytes;
}

void FileLoader::done(FileLoad* load) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--load->left > 0 || (load->next < load->bytes && !load->cancelled)) return;
    on_their_way_--;
  }
  load->ended(load);
}

bool FileLoader::fill(const Piece& piece, char* to) {
  FileLoad* load = piece.load;
  for (int64_t got = 0; got < piece.bytes;) {
    const ssize_t n = pread(load->fd, to + got, static_cast<size_t>(piece.bytes - got), static_cast<off_t>(load->offset + piece.at + got));
    if (n > 0) {
      got += n;
    } else if (n == 0) {
      fail(load, [&] { load->cut_at = load->offset + piece.at + got; });
      return false;
    } else if (errno != EINTR) {
      const int code = errno;
      fail(load, [&] {
        load->trouble_code = code;
        load->trouble = strerror(code);
      });
      return false;
    }
  }
  return true;
}

bool FileLoader::obtain(Slot& slot) {
  if (slot.memory != nullptr) return true;
  slot.pinned = copies_ != nullptr && backend_.alloc_pinned != nullptr;
  try {
    slot.memory = static_cast<char*>(slot.pinned ? backend_.alloc_pinned(kPiece) : malloc(kPiece));
  } catch (const OpError&) {  // a lost device: the copy would have said so
  }
  if (slot.memory == nullptr) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  staged_ += kPiece;
  return true;
}

// Waits for the copy from a slot, whose piece is then in its place.
void FileLoader::drain(Slot& slot, int lane) {
  FileLoad* load = slot.load;
  if (load == nullptr) return;
  slot.load = nullptr;
  try {
    copies_->sent(lane);
  } catch (const OpError& error) {
    fail(load, [&] {
      load->refused = true;
      load->error = error;
    });
  }
  done(load);
}

void FileLoader::read(const Piece& piece, Slot& slot, int lane) {
  FileLoad* load = piece.load;
  if (copies_ == nullptr && load->place == nullptr) {
    fill(piece, load->to + piece.at);
    return done(load);
  }
  if (piece.bytes > kPiece || !obtain(slot)) {
    fail(load, [&] {
      load->trouble_code = ENOMEM;
      load->trouble = strerror(ENOMEM);
    });
    return done(load);
  }
  if (!fill(piece, slot.memory)) return done(load);
  if (load->place != nullptr) {
    load->place(load->context, piece.at, slot.memory, piece.bytes);
    return done(load);
  }
  try {
    copies_->send(lane, load->to + piece.at, slot.memory, piece.bytes);
    slot.load = load;
  } catch (const OpError& error) {
    fail(load, [&] {
      load->refused = true;
      load->error = error;
    });
    done(load);
  }
}

void FileLoader::work(int worker, uint64_t generation) {
  Slot slots[kSlots];
  auto lane = [&](int slot) { return worker * kSlots + slot; };
  int turn = 0;
  for (;;) {
    Piece piece;
    if (!claim(&piece, generation, false)) {
      // Nothing to read: what is being copied is reported before this thread sleeps.
      for (int i = 0; i < kSlots; i++, turn = (turn + 1) % kSlots) drain(slots[turn], lane(turn));
      if (!claim(&piece, generation, true)) break;
    }
    drain(slots[turn], lane(turn));
    read(piece, slots[turn], lane(turn));
    turn = (turn + 1) % kSlots;
  }
  for (Slot& slot : slots) {
    if (slot.memory == nullptr) continue;
    try {
      if (slot.pinned) backend_.free_pinned(slot.memory, kPiece);
      else free(slot.memory);
    } catch (const OpError&) {  // a lost device takes its memory with it
    }
    std::lock_guard<std::mutex> lock(mutex_);
    staged_ -= kPiece;
  }
}

}  // namespace tunebook
