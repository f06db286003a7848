// Device memory by handles. Used from the JavaScript thread alone.
//
// Blocks are handed out in the order in which ops are enqueued: since the queue is first in, first out, a block that is freed here may
// belong to a new tensor at once, although older ops that use it have not run yet.
#pragma once
#include <map>
#include <vector>

#include "backend.h"

namespace tunebook {

class Allocator {
 public:
  // Called with a block that goes back to the system: it must do so only after everything enqueued so far has run.
  using Release = void (*)(void* context, void* data, int64_t bytes);

  Allocator(const Backend& backend, Release release, void* context);

  // A new handle (> 0), or 0 when memory is exhausted.
  int32_t alloc(int64_t bytes, DType dtype);
  // A handle on a part of another's memory. Throws OpError when the part does not lie inside.
  int32_t view(int32_t handle, int64_t offset, int64_t bytes, DType dtype);
  // False: there is no such handle.
  bool free(int32_t handle);
  // nullptr: there is no such handle. Valid until the next alloc or view.
  const Ref* find(int32_t handle) const;
  // Gives cached blocks back until at most `keep` bytes are cached.
  void trim(int64_t keep = 0);

  int64_t live_bytes = 0, peak_bytes = 0, cached_bytes = 0, handle_count = 0, limit = 0;

 private:
  struct Block {
    void* data;
    int64_t bytes;
    int64_t references;
  };
  struct Slot {
    Ref ref;
    Block* block = nullptr;
    int32_t generation = 0;
    int32_t next_free = -1;
  };
  int32_t new_handle(const Ref& ref, Block* block);
  void* take(int64_t bytes);

  const Backend& backend_;
  Release release_;
  void* context_;
  std::vector<Slot> slots_;
  int32_t first_free_ = -1;
  std::map<int64_t, std::vector<void*>> cache_;
  int64_t most_live_ = 0;  // never reset: how much memory the work has needed so far
};

}  // namespace tunebook
