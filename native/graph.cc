// Running recordings: on the dispatcher.
#include "graph.h"

#include "clock.h"
#include "queue.h"

namespace tunebook {
namespace {

constexpr int kAttempts = 3;  // at a capture, after which a recording is launched op by op for good

}  // namespace

std::string Queue::capture_error() {
  std::lock_guard<std::mutex> lock(result_mutex_);
  return capture_error_;
}

// What an op refuses here, it refuses again when it is launched by itself, and is reported there.
void Queue::capture(Graph& graph) {
  try {
    backend_.capture_begin();
    try {
      for (auto& kept : graph.entries) {
        const Entry* entry = reinterpret_cast<const Entry*>(kept.get());
        backend_.begin(entry->opcode, entry->sequence);
        dispatch(entry);
      }
    } catch (const OpError&) {
      backend_.capture_end(false);
      throw;
    }
    graph.captured = backend_.capture_end(true);
    graph.generation = backend_.capture_generation();
  } catch (const OpError& error) {
    graph.failures++;
    std::lock_guard<std::mutex> lock(result_mutex_);
    capture_error_ = error.message;
  }
}

void Queue::discard(Graph& graph) {
  if (graph.captured != nullptr) backend_.graph_free(graph.captured);
  graph.captured = nullptr;
}

void Queue::replay(Graph& graph) {
  if (graph.entries.empty()) return;
  // To trace or to measure ops each of them is launched by itself.
  if (behind_ && backend_.capture_begin != nullptr && !trace_ && !behind_->measuring()) {
    if (graph.captured != nullptr && graph.generation != backend_.capture_generation()) discard(graph);
    if (graph.captured == nullptr && graph.failures < kAttempts) capture(graph);
  }
  if (graph.captured == nullptr) {
    for (auto& kept : graph.entries) {
      if (!alive()) return;
      Entry* entry = reinterpret_cast<Entry*>(kept.get());
      const uint64_t before = nanoseconds();
      run_op(entry);
      op_calls[entry->opcode].fetch_add(1, std::memory_order_relaxed);
      if (!behind_ || !behind_->measuring()) op_nanoseconds[entry->opcode].fetch_add(nanoseconds() - before, std::memory_order_relaxed);
    }
    return;
  }
  const Entry* last = reinterpret_cast<const Entry*>(graph.entries.back().get());
  behind_->before();
  try {
    backend_.begin(last->opcode, last->sequence);
    backend_.graph_launch(graph.captured);
  } catch (const OpError& error) {
    fail_at(last->opcode, last->sequence, error, std::string("a recorded step: ") + error.message);
  }
  behind_->after(last->opcode, last->sequence, graph.cost);
  whole_launches_.fetch_add(1, std::memory_order_relaxed);
  for (auto& kept : graph.entries) op_calls[reinterpret_cast<const Entry*>(kept.get())->opcode].fetch_add(1, std::memory_order_relaxed);
}

}  // namespace tunebook
