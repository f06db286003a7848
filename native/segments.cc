#include <algorithm>

#include "pool.h"

namespace tunebook {
namespace {

constexpr int64_t kAlign = 512;
constexpr int64_t kPage = int64_t{2} << 20;           // what a driver hands out at least
constexpr int64_t kSmall = int64_t{1} << 20;          // up to here a request is small
constexpr int64_t kSmallSegment = int64_t{8} << 20;
constexpr int64_t kLeast = int64_t{32} << 20, kMost = int64_t{128} << 20;  // a segment for large requests, unless one needs more
constexpr int64_t kCrumb = int64_t{64} << 10;         // a rest of a large piece below this stays with it

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace

SegmentPool::SegmentPool(const Backend& backend, const PoolHooks& hooks) : Pool(backend, hooks) {}

// The queue has ended, so nothing works on this memory any more, whether its handles were freed or not.
SegmentPool::~SegmentPool() {
  for (const auto& [data, bytes] : segments_) backend_.free(data, bytes);
  for (Free* all : {&small_, &large_}) {
    for (Piece* p : *all) delete p;
  }
}

// Memory from the system, within the limit; cached segments make room for it.
void* SegmentPool::segment(int64_t bytes) {
  const int64_t most = limit - scratch_bytes() - bytes;  // that other segments may have
  if (reserved_bytes > most) trim(std::max<int64_t>(most - (reserved_bytes - cached_bytes), 0));
  if (reserved_bytes > most) return nullptr;
  void* data = backend_.alloc(bytes);
  if (data == nullptr) {
    hooks_.wait(hooks_.context);  // what was given back before may still be on its way
    data = backend_.alloc(bytes);
  }
  if (data == nullptr && cached_bytes > 0) {
    trim(0);
    hooks_.wait(hooks_.context);
    data = backend_.alloc(bytes);
  }
  return data;
}

// A new segment as one free piece, not yet among the free ones; nullptr: memory is exhausted.
SegmentPool::Piece* SegmentPool::grow(int64_t bytes, bool small) {
  const int64_t least = round_up(bytes, kPage);
  // Segments grow with the work: many small ones would cut memory up, and a large one must not be idle beside little work.
  const int64_t usual = small ? kSmallSegment : std::clamp(round_up(reserved_bytes / 32, kPage), kLeast, kMost);
  int64_t size = std::max(least, usual);
  if (reserved_bytes + size > bound()) trim(std::max<int64_t>(bound() - live_bytes - size, 0));
  void* data = size > least && reserved_bytes + size + scratch_bytes() <= limit ? segment(size) : nullptr;
  if (data == nullptr) {
    size = least;
    data = segment(size);
  }
  if (data == nullptr) return nullptr;
  reserved_bytes += size;
  cached_bytes += size;
  segments_.emplace(data, size);
  Piece* p = new Piece{static_cast<char*>(data), size};
  p->small = small;
  return p;
}

bool SegmentPool::take(int64_t bytes, Block* block) {
  if (bytes > limit) return false;
  const int64_t size = round_up(std::max<int64_t>(bytes, 1), kAlign);
  const bool small = size <= kSmall;
  Free& all = small ? small_ : large_;
  Piece wanted{nullptr, size};
  auto found = all.lower_bound(&wanted);  // the smallest that fits, and of those the first in memory
  Piece* p;
  if (found != all.end()) {
    p = *found;
    all.erase(found);
    p->free = false;
  } else {
    p = grow(size, small);
    if (p == nullptr && small) {  // any free piece will do then
      found = large_.lower_bound(&wanted);
      if (found != large_.end()) {
        p = *found;
        large_.erase(found);
        p->free = false;
      }
    }
    if (p == nullptr) return false;
  }
  const int64_t rest = p->bytes - size;
  if (rest >= (p->small ? kAlign : kCrumb)) {
    Piece* r = new Piece{p->data + size, rest, p, p->after, true, p->small};
    if (p->after != nullptr) p->after->before = r;
    p->after = r;
    p->bytes = size;
    free_of(r).insert(r);
  }
  cached_bytes -= p->bytes;
  live(p->bytes);
  block->data = p->data;
  block->bytes = p->bytes;
  block->piece = p;
  return true;
}

void SegmentPool::give(const Block& block) {
  Piece* p = static_cast<Piece*>(block.piece);
  live_bytes -= p->bytes;
  cached_bytes += p->bytes;
  if (Piece* b = p->before; b != nullptr && b->free) {
    free_of(b).erase(b);
    b->bytes += p->bytes;
    b->after = p->after;
    if (p->after != nullptr) p->after->before = b;
    delete p;
    p = b;
  }
  if (Piece* a = p->after; a != nullptr && a->free) {
    free_of(a).erase(a);
    p->bytes += a->bytes;
    p->after = a->after;
    if (a->after != nullptr) a->after->before = p;
    delete a;
  }
  p->free = true;
  free_of(p).insert(p);
}

// A segment that is free as a whole goes back.
void SegmentPool::drop(Piece* p) {
  free_of(p).erase(p);
  cached_bytes -= p->bytes;
  reserved_bytes -= p->bytes;
  segments_.erase(p->data);
  hooks_.release(hooks_.context, p->data, p->bytes);
  delete p;
}

void SegmentPool::trim(int64_t keep) {
  for (Free* all : {&large_, &small_}) {
    for (auto at = all->end(); cached_bytes > keep && at != all->begin();) {  // the largest first
      Piece* p = *--at;
      if (p->before != nullptr || p->after != nullptr) continue;
      auto next = std::next(at);
      drop(p);
      at = next;
    }
  }
}

}  // namespace tunebook
