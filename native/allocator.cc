#include "allocator.h"

namespace tunebook {
namespace {

// A handle: bit 30 tells the device, nine bits a freed handle from the one that took its place, 21 bits two million tensors.
constexpr int kIndexBits = 21;
constexpr int32_t kIndexMask = (1 << kIndexBits) - 1;
constexpr int32_t kGenerationMask = (1 << (30 - kIndexBits)) - 1;

}  // namespace

int32_t Allocator::index_of(int32_t handle) { return handle & kIndexMask; }

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
  if (recording_ != nullptr) {
    recording_->handles++;
    slot.recorded = recording_->id;
  }
  return place_ << 30 | slot.generation << kIndexBits | index;
}

int32_t Allocator::alloc(int64_t bytes, DType dtype, bool host) {
  Pool* pool = host ? host_pool_.get() : pool_.get();
  if (pool == nullptr) fail("%s has no host memory of its own", place_name(place_));
  if (bytes < 0 || bytes > pool->limit) return 0;
  if (recording_ != nullptr && host) recording_->spoil("memory of the host was taken");
  if (recording_ != nullptr && !host) {
    auto spare = recording_->spare.lower_bound(bytes);
    if (spare != recording_->spare.end() && spare->first <= bytes + bytes / 8 + 512) {
      Block* block = spare->second;
      recording_->spare.erase(spare);
      block->references = 1;
      block->written = block->finished = 0;
      return new_handle({block->data, bytes, dtype}, block);
    }
  }
  auto block = std::make_unique<Block>();
  if (!pool->take(bytes, block.get())) return 0;
  block->pool = pool;
  peak_bytes();
  if (recording_ != nullptr && !host) {
    block->owner = recording_;
    block->asked = bytes;
    block->ordinal = static_cast<int64_t>(recording_->own.size());
    recording_->own.push_back(block.get());
  }
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
  if (recording_ != nullptr && slot.recorded == recording_->id) recording_->handles--;
  slot.recorded = 0;
  slot.block = nullptr;
  slot.ref = Ref();
  slot.generation = (slot.generation + 1) & kGenerationMask;
  slot.next_free = first_free_;
  first_free_ = index;
  handle_count--;
  if (--block->references > 0) return true;
  if (recording_ != nullptr && block->owner != recording_) recording_->spoil("a tensor from before was freed");
  if (block->owner != nullptr) block->owner->spare.emplace(block->asked, block);
  else settle(block);
  return true;
}

// A block that nothing uses goes back.
void Allocator::settle(Block* block) {
  if (block->references > 0 || block->held > 0 || block->owner != nullptr) return;
  block->pool->give(*block);
  delete block;
}

const Ref* Allocator::use(int32_t handle, uint64_t* identity) {
  const Ref* ref = find(handle);
  if (ref == nullptr || recording_ == nullptr) return ref;
  Block* block = slots_[handle & kIndexMask].block;
  const uint64_t offset = static_cast<uint64_t>(static_cast<char*>(ref->data) - static_cast<char*>(block->data));
  if (block->owner == recording_) {
    *identity = (static_cast<uint64_t>(block->ordinal) << 40) + offset;
  } else {
    *identity = reinterpret_cast<uint64_t>(ref->data);
    if (recording_->held.insert(block).second) block->held++;
  }
  return ref;
}

void Allocator::record_end() {
  if (recording_->handles > 0) recording_->spoil("a tensor that was made is still in use");
  recording_->recording = false;
  recording_ = nullptr;
}

void Allocator::drop(Graph& graph) {
  if (recording_ == &graph) record_end();
  for (auto& [asked, block] : graph.spare) block->references = 0;
  graph.spare.clear();
  for (Block* block : graph.own) {
    block->owner = nullptr;
    settle(block);
  }
  graph.own.clear();
  for (Block* block : graph.held) {
    block->held--;
    settle(block);
  }
  graph.held.clear();
}

}  // namespace tunebook
