#include "allocator.h"

namespace tunebook {
namespace {

// A handle: bit 30 tells the device, nine bits a freed handle from the one that took its place, 21 bits two million tensors.
constexpr int kIndexBits = 21;
constexpr int32_t kIndexMask = (1 << kIndexBits) - 1;
constexpr int32_t kGenerationMask = (1 << (30 - kIndexBits)) - 1;

}  // namespace

Allocator::Allocator(const Backend& backend, const PoolHooks& hooks, int place) : place_(place) {
  if (backend.fence != nullptr) {
    pool_ = std::make_unique<SegmentPool>(backend, hooks);
  } else {
    pool_ = std::make_unique<SizePool>(backend, hooks);
  }
  pool_->limit = backend.memory > 0 ? backend.memory : memory_limit();
  if (backend.alloc_pinned != nullptr) {
    host_pool_ = std::make_unique<HostPool>(backend, hooks);
    host_pool_->limit = memory_limit();
  }
  slots_.emplace_back();  // handle 0 means "absent"
}

int64_t Allocator::peak_bytes() {
  const int64_t now = live_bytes() + scratch_bytes();
  if (now > peak_) peak_ = now;
  return peak_;
}

void Allocator::reset_peak() { peak_ = live_bytes() + scratch_bytes(); }

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
  return place_ << 30 | slot.generation << kIndexBits | index;
}

int32_t Allocator::alloc(int64_t bytes, DType dtype, bool host) {
  Pool* pool = host ? host_pool_.get() : pool_.get();
  if (pool == nullptr) fail("%s has no host memory of its own", place_name(place_));
  if (bytes < 0 || bytes > pool->limit) return 0;
  auto block = std::make_unique<Block>();
  if (!pool->take(bytes, block.get())) return 0;
  block->pool = pool;
  peak_bytes();
  Ref ref;
  ref.data = block->data;
  ref.bytes = bytes;
  ref.dtype = dtype;
  return new_handle(ref, block.release());
}

const Ref* Allocator::find(int32_t handle) const {
  const int32_t index = handle & kIndexMask;
  if (handle <= 0 || place_of(handle) != place_ || index >= static_cast<int32_t>(slots_.size())) return nullptr;
  const Slot& slot = slots_[index];
  if (slot.block == nullptr || slot.generation != (handle >> kIndexBits & kGenerationMask)) return nullptr;
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
    block->pool->give(*block);
    delete block;
  }
  return true;
}

}  // namespace tunebook
