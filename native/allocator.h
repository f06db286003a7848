// Device memory by handles. Used from the JavaScript thread alone.
//
// Blocks are handed out in the order in which ops are enqueued: since the queue is first in, first out, a block that is freed here may
// belong to a new tensor at once, although older ops that use it have not run yet.
#pragma once
#include <memory>
#include <vector>

#include "backend.h"
#include "graph.h"
#include "pool.h"

namespace tunebook {

// The device of a handle: 0 the CPU, 1 the GPU.
inline int place_of(int32_t handle) { return handle >> 30 & 1; }
inline const char* place_name(int place) { return place == 0 ? "the CPU" : "the GPU"; }

class Allocator {
 public:
  Allocator(const Backend& backend, const PoolHooks& hooks, int place);

  // A new handle (> 0), or 0 when memory is exhausted; `host`: in the device's host memory.
  int32_t alloc(int64_t bytes, DType dtype, bool host = false);
  // A handle on a part of another's memory. Throws OpError when the part does not lie inside.
  int32_t view(int32_t handle, int64_t offset, int64_t bytes, DType dtype);
  // False: there is no such handle.
  bool free(int32_t handle);
  // nullptr: there is no such handle. Valid until the next alloc or view.
  const Ref* find(int32_t handle) const;
  // As find, for an op that is enqueued. While recording, the block stays where it is from now on; `identity` tells tensors apart in the same way
  // in two recordings of the same work.
  const Ref* use(int32_t handle, uint64_t* identity);
  // The memory of a handle that is there.
  Block* block(int32_t handle) const { return slots_[index_of(handle)].block; }

  // Between these, blocks that are handed out belong to the graph.
  void record_begin(Graph* graph) { recording_ = graph; }
  void record_end();
  // The blocks of a graph that is never launched again.
  void drop(Graph& graph);

  // Gives cached blocks back to the system.
  void trim() {
    pool_->trim(0);
    if (host_pool_) host_pool_->trim(0);
  }

  int place() const { return place_; }
  int64_t live_bytes() const { return pool_->live_bytes; }
  int64_t cached_bytes() const { return pool_->cached_bytes; }
  int64_t scratch_bytes() const { return pool_->scratch_bytes(); }  // of the ops, beside what is live
  int64_t limit() const { return pool_->limit; }
  int64_t host_bytes() const { return host_pool_ ? host_pool_->live_bytes : 0; }  // alive in host memory, counted nowhere else
  int64_t peak_bytes();  // live and scratch
  void reset_peak();
  int64_t handle_count = 0;

 private:
  struct Slot {
    Ref ref;
    Block* block = nullptr;
    int32_t generation = 0;
    int32_t next_free = -1;
    int32_t recorded = 0;  // id of the graph that it was made in
  };
  static int32_t index_of(int32_t handle);
  int32_t new_handle(const Ref& ref, Block* block);
  void settle(Block* block);

  const int place_;
  std::unique_ptr<Pool> pool_, host_pool_;  // the latter where the device has host memory of its own
  std::vector<Slot> slots_;
  int32_t first_free_ = -1;
  int64_t peak_ = 0;
  Graph* recording_ = nullptr;
};

}  // namespace tunebook
