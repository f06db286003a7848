// Where tensors' memory comes from: blocks that are kept after they are freed and handed out again. Used from the JavaScript thread alone.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "backend.h"

namespace tunebook {

// What is done with memory that goes back to the system, and how to wait until that has happened.
struct PoolHooks {
  void (*release)(void* context, void* data, int64_t bytes);  // frees after everything enqueued so far
  void (*wait)(void* context);                                // until all of that has been done
  void* context;
};

constexpr uint64_t kElsewhere = UINT64_MAX;

struct Block {
  void* data = nullptr;
  int64_t bytes = 0;
  int64_t references = 1;  // handles
  int64_t held = 0;        // recordings whose ops use it
  struct Graph* owner = nullptr;  // the recording that it was handed out in, and its place there
  int64_t asked = 0, ordinal = 0;
  void* piece = nullptr;   // the pool's own
  uint64_t written = 0;    // the op that wrote to it first, by its number; 0: none; kElsewhere: what it held first came from a file or JavaScript
  uint64_t finished = 0;   // the last op that wrote to it until JavaScript looked at anything: until then it was being made; 0: the first one
  class Pool* pool = nullptr;

  // What it holds from now on came from elsewhere.
  void fill() { written = kElsewhere, finished = 0; }
};

class Pool {
 public:
  Pool(const Backend& backend, const PoolHooks& hooks) : backend_(backend), hooks_(hooks) {}
  virtual ~Pool() = default;
  // Fills data, bytes (at least what was asked for) and piece; false: memory is exhausted.
  virtual bool take(int64_t bytes, Block* block) = 0;
  virtual void give(const Block& block) = 0;
  // Gives cached memory back until at most `keep` bytes are cached, as far as that is possible.
  virtual void trim(int64_t keep) = 0;

  int64_t scratch_bytes() const { return backend_.scratch_bytes != nullptr ? backend_.scratch_bytes() : 0; }
  int64_t live_bytes = 0, cached_bytes = 0, limit = 0;

 protected:
  void live(int64_t bytes) {
    live_bytes += bytes;
    if (live_bytes > most_live_) most_live_ = live_bytes;
  }
  // Cached memory must not pile up beyond what the work has needed at its peak.
  int64_t bound() const { return most_live_ + most_live_ / 4 + (int64_t{64} << 20); }

  const Backend& backend_;
  PoolHooks hooks_;
  int64_t most_live_ = 0;  // never reset
};

// Each block has its own memory: for systems whose allocation is cheap and pages come when they are touched.
class SizePool : public Pool {
 public:
  using Pool::Pool;
  bool take(int64_t bytes, Block* block) override;
  void give(const Block& block) override;
  void trim(int64_t keep) override;

 protected:
  // Memory from the system (nullptr: exhausted), and back to it.
  virtual void* obtain(int64_t bytes) { return backend_.alloc(bytes); }
  virtual void give_back(void* data, int64_t bytes) { hooks_.release(hooks_.context, data, bytes); }

 private:
  void* find(int64_t bytes);
  std::map<int64_t, std::vector<void*>> cache_;
};

// A device's host memory, which its copies read and write by themselves. Pinning costs about a millisecond for four MiB, so blocks are kept.
class HostPool : public SizePool {
 public:
  using SizePool::SizePool;
  ~HostPool() override { trim(0); }

 protected:
  void* obtain(int64_t bytes) override { return backend_.alloc_pinned(bytes); }
  void give_back(void* data, int64_t bytes) override {
    hooks_.wait(hooks_.context);
    backend_.free_pinned(data, bytes);  // waits for copies
  }
};

// Large segments that are cut into blocks and join again: for GPUs, where an allocation costs milliseconds and waits for all work.
class SegmentPool : public Pool {
 public:
  SegmentPool(const Backend& backend, const PoolHooks& hooks);
  ~SegmentPool() override;
  bool take(int64_t bytes, Block* block) override;
  void give(const Block& block) override;
  void trim(int64_t keep) override;
  int64_t reserved_bytes = 0;  // of all segments

 private:
  // A stretch of a segment, in use or free. Neighbours are linked, and two neighbours are never both free.
  struct Piece {
    char* data;
    int64_t bytes;
    Piece *before = nullptr, *after = nullptr;
    bool free = false, small = false;
  };
  struct Smaller {
    bool operator()(const Piece* a, const Piece* b) const { return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data; }
  };
  using Free = std::set<Piece*, Smaller>;

  Free& free_of(const Piece* p) { return p->small ? small_ : large_; }
  Piece* grow(int64_t bytes, bool small);
  void* segment(int64_t bytes);
  void drop(Piece* p);

  std::map<void*, int64_t> segments_;
  Free small_, large_;  // free pieces; small requests have segments of their own, so that they do not cut up the large ones
};

}  // namespace tunebook
