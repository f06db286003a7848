#include "pool.h"

namespace tunebook {
namespace {

constexpr int64_t kLarge = int64_t{1} << 20;

// Sizes of blocks: eight steps an octave, so at most an eighth is wasted and similar requests meet in one class.
int64_t size_class(int64_t bytes) {
  if (bytes <= 64) return 64;
  int64_t step = 8;
  while (step * 16 < bytes) step *= 2;
  if (step < 64) step = 64;
  return (bytes + step - 1) / step * step;
}

int64_t least_zero(int64_t n) { return n > 0 ? n : 0; }

}  // namespace

void* SizePool::find(int64_t bytes) {
  auto found = cache_.lower_bound(bytes);
  // A large request may take a block one class too big rather than ask the system for new pages.
  if (found != cache_.end() && (found->first == bytes || (bytes >= kLarge && found->first <= bytes + bytes / 8))) {
    void* data = found->second.back();
    found->second.pop_back();
    cached_bytes -= found->first;
    if (found->second.empty()) cache_.erase(found);
    return data;
  }
  if (live_bytes + cached_bytes + bytes > bound()) trim(least_zero(bound() - live_bytes - bytes));
  if (live_bytes + cached_bytes + bytes > limit) trim(least_zero(limit - live_bytes - bytes));
  if (live_bytes + bytes > limit) return nullptr;
  void* data = obtain(bytes);
  if (data == nullptr) {
    trim(0);
    data = obtain(bytes);
  }
  return data;
}

bool SizePool::take(int64_t bytes, Block* block) {
  const int64_t size = size_class(bytes);
  void* data = find(size);
  if (data == nullptr) return false;
  block->data = data;
  block->bytes = size;
  live(size);
  return true;
}

void SizePool::give(const Block& block) {
  live_bytes -= block.bytes;
  cached_bytes += block.bytes;
  cache_[block.bytes].push_back(block.data);
}

void SizePool::trim(int64_t keep) {
  while (cached_bytes > keep && !cache_.empty()) {
    auto largest = std::prev(cache_.end());
    give_back(largest->second.back(), largest->first);
    cached_bytes -= largest->first;
    largest->second.pop_back();
    if (largest->second.empty()) cache_.erase(largest);
  }
}

}  // namespace tunebook
