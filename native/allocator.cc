#include "allocator.h"

namespace tunebook {
namespace {

constexpr int kIndexBits = 21;  // two million tensors; the other ten bits tell a freed handle from the one that took its place
constexpr int32_t kIndexMask = (1 << kIndexBits) - 1;
constexpr int32_t kGenerationMask = (1 << (31 - kIndexBits)) - 1;
constexpr int64_t kLarge = int64_t{1} << 20;

// Sizes of blocks: eight steps an octave, so at most an eighth is wasted and similar requests meet in one class.
int64_t size_class(int64_t bytes) {
  if (bytes <= 64) return 64;
  int64_t step = 8;
  while (step * 16 < bytes) step *= 2;
  if (step < 64) step = 64;
  return (bytes + step - 1) / step * step;
}

}  // namespace

Allocator::Allocator(const Backend& backend, Release release, void* context)
    : limit(memory_limit()), backend_(backend), release_(release), context_(context) {
  slots_.emplace_back();  // handle 0 means "absent"
}

void* Allocator::take(int64_t bytes) {
  auto found = cache_.lower_bound(bytes);
  // A large request may take a block one class too big rather than ask the system for new pages.
  if (found != cache_.end() && (found->first == bytes || (bytes >= kLarge && found->first <= bytes + bytes / 8))) {
    void* data = found->second.back();
    found->second.pop_back();
    cached_bytes -= found->first;
    if (found->second.empty()) cache_.erase(found);
    return data;
  }
  // Cached blocks of other sizes must not pile up beyond what the work has needed at its peak.
  const int64_t bound = most_live_ + most_live_ / 4 + (int64_t{64} << 20);
  if (live_bytes + cached_bytes + bytes > bound) trim(bound - live_bytes - bytes > 0 ? bound - live_bytes - bytes : 0);
  if (live_bytes + cached_bytes + bytes > limit) trim(limit - live_bytes - bytes > 0 ? limit - live_bytes - bytes : 0);
  if (live_bytes + bytes > limit) return nullptr;
  void* data = backend_.alloc(bytes);
  if (data == nullptr) {
    trim();
    data = backend_.alloc(bytes);
  }
  return data;
}

int32_t Allocator::new_handle(const Ref& ref, Block* block) {
  int32_t index = first_free_;
  if (index >= 0) {
    first_free_ = slots_[index].next_free;
  } else {
    index = static_cast<int32_t>(slots_.size());
    if (index > kIndexMask) fail("more than %d tensors are alive: tensors of a loop are probably never freed", kIndexMask);
    slots_.emplace_back();
  }
  Slot& slot = slots_[index];
  slot.ref = ref;
  slot.block = block;
  handle_count++;
  return slot.generation << kIndexBits | index;
}

int32_t Allocator::alloc(int64_t bytes, DType dtype) {
  if (bytes < 0 || bytes > limit) return 0;
  const int64_t size = size_class(bytes);
  void* data = take(size);
  if (data == nullptr) return 0;
  live_bytes += size;
  if (live_bytes > peak_bytes) peak_bytes = live_bytes;
  if (live_bytes > most_live_) most_live_ = live_bytes;
  Ref ref;
  ref.data = data;
  ref.bytes = bytes;
  ref.dtype = dtype;
  return new_handle(ref, new Block{data, size, 1});
}

const Ref* Allocator::find(int32_t handle) const {
  const int32_t index = handle & kIndexMask;
  if (handle <= 0 || index >= static_cast<int32_t>(slots_.size())) return nullptr;
  const Slot& slot = slots_[index];
  if (slot.block == nullptr || slot.generation != handle >> kIndexBits) return nullptr;
  return &slot.ref;
}

int32_t Allocator::view(int32_t handle, int64_t offset, int64_t bytes, DType dtype) {
  const Ref* base = find(handle);
  if (base == nullptr) fail("the tensor of this view has been freed");
  if (offset < 0 || bytes < 0 || offset > base->bytes || bytes > base->bytes - offset) {
    fail("a view of %lld bytes at byte %lld does not lie inside a tensor of %lld bytes", (long long)bytes, (long long)offset,
         (long long)base->bytes);
  }
  Ref ref;
  ref.data = static_cast<char*>(base->data) + offset;
  ref.bytes = bytes;
  ref.dtype = dtype;
  Block* block = slots_[handle & kIndexMask].block;
  block->references++;
  return new_handle(ref, block);
}

bool Allocator::free(int32_t handle) {
  if (find(handle) == nullptr) return false;
  const int32_t index = handle & kIndexMask;
  Slot& slot = slots_[index];
  Block* block = slot.block;
  slot.block = nullptr;
  slot.ref = Ref();
  slot.generation = (slot.generation + 1) & kGenerationMask;
  slot.next_free = first_free_;
  first_free_ = index;
  handle_count--;
  if (--block->references == 0) {
    live_bytes -= block->bytes;
    cached_bytes += block->bytes;
    cache_[block->bytes].push_back(block->data);
    delete block;
  }
  return true;
}

void Allocator::trim(int64_t keep) {
  while (cached_bytes > keep && !cache_.empty()) {
    auto largest = std::prev(cache_.end());
    release_(context_, largest->second.back(), largest->first);
    cached_bytes -= largest->first;
    largest->second.pop_back();
    if (largest->second.empty()) cache_.erase(largest);
  }
}

}  // namespace tunebook
