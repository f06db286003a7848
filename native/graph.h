// Ops that were recorded while they were enqueued, to be run again without JavaScript: on a device that can, as one launch.
//
// The thread of JavaScript makes it (Allocator and Queue between record_begin and record_end), the dispatcher runs it. What its ops read and write stays
// where it is: blocks handed out while it was recorded are its own until it is dropped, others are held.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "pool.h"

namespace tunebook {

struct Graph {
  int32_t id = 0;
  // ---- of the JavaScript thread
  std::multimap<int64_t, Block*> spare;  // its own blocks that no handle uses, by the size that was asked for: used again while recording
  std::vector<Block*> own;
  std::unordered_set<Block*> held;  // of others, used by its ops
  int64_t handles = 0;              // made while recording and not freed
  uint64_t digest = 14695981039346656037u;  // of opcodes, numbers and tensors: two recordings of the same work have the same one
  std::string obstacle;             // why running it again would not do what was recorded: the first reason found
  bool recording = true;

  void mix(uint64_t v) { digest = (digest ^ v) * 1099511628211u ^ digest >> 29; }
  void spoil(const char* why) {
    if (obstacle.empty()) obstacle = why;
  }

  // ---- of both: filled before it is first launched
  std::vector<std::unique_ptr<char[]>> entries;  // each an Entry of the queue and its arguments
  uint64_t cost = 0;

  // ---- of the dispatcher
  void* captured = nullptr;
  uint64_t generation = 0;
  int failures = 0;
};

}  // namespace tunebook
