// A training step multiplies with the same weights in the same order every time, so the weight that follows is known from the step before.
// Its codes are restored on a stream of low priority, whose blocks take what the products leave free, into the one of two places that the
// running product does not read.
//
// What was guessed is used only if it must be what the weight holds now. Whatever writes to tensors in between makes it void: ops by their
// arguments and uploads (touch_weights), captured graphs, whose arguments are not seen, altogether (leave_weights), and loads of files, which
// are in no order with the ops, by a count that every load's end raises (forget_weights). Memory that is freed and taken anew is written by
// one of these before it holds a weight again.
#include "weights_ahead.h"

#include <atomic>
#include <cstdlib>
#include <map>
#include <utility>

namespace tunebook {
namespace cuda {
namespace {

constexpr int64_t kSpare = int64_t{1} << 30;  // device memory that must be free for the second place to be taken
constexpr size_t kMostTurns = 1 << 16;

struct Weight {
  Nf4 w;
  int64_t n = 0;
  DType type = DType::Float32;

  bool operator==(const Weight& o) const {
    return w.q == o.w.q && w.absmax == o.w.absmax && w.absmax8 == o.w.absmax8 && w.absmax2 == o.w.absmax2 && w.offset == o.w.offset &&
           w.block == o.w.block && w.kind == o.w.kind && n == o.n && type == o.type;
  }
  bool reads(const Ref& t) const {
    const int64_t scales = blocks_for(n, w.block);
    return overlap(t, w.q, (n + 1) / 2) || overlap(t, w.absmax, 4 * scales) || overlap(t, w.absmax8, scales) ||
           overlap(t, w.absmax2, 4 * blocks_for(scales, kAbsmaxBlock)) || overlap(t, w.offset, 4);
  }

 private:
  static bool overlap(const Ref& t, const void* data, int64_t bytes) {
    const uintptr_t a = reinterpret_cast<uintptr_t>(t.data), b = reinterpret_cast<uintptr_t>(data);
    return b != 0 && a < b + (uintptr_t)bytes && b < a + (uintptr_t)t.bytes;
  }
};

using Turn = std::pair<const void*, bool>;  // a weight's codes and which way it is multiplied

std::atomic<uint64_t> changes{0};  // of memory, that the dispatcher does not see

struct {
  std::map<Turn, Weight> next;  // what followed a turn
  Turn last{nullptr, false};
  uint64_t changes = 0;  // that `next` and the guess are of
  bool guessed = false;
  Weight guess;
  Slot place = kWeightsAhead;  // where the newest was put
  bool running = false;        // the side stream may still write there, and the device's stream has not waited
  cudaEvent_t reached = nullptr, restored = nullptr;
  bool exhausted = false;
} ahead;

// TUNEBOOK_WEIGHTS_AHEAD: 0 (the default, see src/training/estimate.ts too) restores each weight when its product comes, 1 ahead of it by many short
// blocks of threads, a larger number by so many blocks at most.
int64_t asked() {
  static const int64_t value = [] {
    const char* text = getenv("TUNEBOOK_WEIGHTS_AHEAD");
    return text == nullptr ? int64_t{0} : (int64_t)atoll(text);
  }();
  return value;
}

Slot other(Slot place) { return place == kWeights ? kWeightsAhead : kWeights; }

void wait_for_side() {
  if (!ahead.running) return;
  check(cudaStreamWaitEvent(device.stream, ahead.restored, 0), "waiting for a weight");
  ahead.running = false;
}

Ref place_for(Slot slot, const Weight& of) {
  const int64_t bytes = of.n * (int64_t)size_of(of.type);
  return Ref{scratch(slot, bytes), bytes, of.type};
}

// The second place is taken only where memory is left.
bool take_place(Slot slot, const Weight& of) {
  const int64_t bytes = of.n * (int64_t)size_of(of.type);
  if (bytes <= scratch_bytes(slot)) return true;
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
  if ((int64_t)free < bytes + kSpare) return false;
  try {
    scratch(slot, bytes);
  } catch (const OpError& error) {
    if (!error.memory) throw;
    return false;
  }
  return true;
}

void restore_ahead(const Weight& guess, Slot slot) {
  if (!take_place(slot, guess)) {
    ahead.exhausted = true;
    return;
  }
  if (ahead.reached == nullptr) {
    check(cudaEventCreateWithFlags(&ahead.reached, cudaEventDisableTiming), "cudaEventCreate");
    check(cudaEventCreateWithFlags(&ahead.restored, cudaEventDisableTiming), "cudaEventCreate");
  }
  check(cudaEventRecord(ahead.reached, device.stream), "cudaEventRecord");
  check(cudaStreamWaitEvent(device.side, ahead.reached, 0), "cudaStreamWaitEvent");
  dequantize(guess.w, guess.n, place_for(slot, guess), device.side, asked() > 1 ? asked() : INT64_MAX);
  check(cudaEventRecord(ahead.restored, device.side), "cudaEventRecord");
  ahead.guess = guess;
  ahead.place = slot;
  ahead.guessed = ahead.running = true;
}

}  // namespace

Ref restored_weight(const Nf4& w, int64_t n, DType type, bool transposed) {
  const Weight wanted{w, n, type};
  const uint64_t now = changes.load();
  if (ahead.changes != now || ahead.next.size() > kMostTurns) {
    ahead.next.clear();
    ahead.last.first = nullptr;
    ahead.guessed = false;
    ahead.changes = now;
    ahead.exhausted = false;
  }
  if (asked() <= 0 || ahead.exhausted || capturing()) {
    const Ref y = place_for(kWeights, wanted);
    dequantize(w, n, y, device.stream);
    return y;
  }
  const bool right = ahead.guessed && ahead.guess == wanted;
  const Slot slot = right ? ahead.place : kWeights;
  ahead.guessed = false;
  const Ref y = place_for(slot, wanted);
  if (right || ahead.place == slot) wait_for_side();  // a wrong guess may still be on its way to this place
  if (!right) dequantize(w, n, y, device.stream);

  const Turn turn{w.q, transposed};
  if (ahead.last.first != nullptr) ahead.next[ahead.last] = wanted;
  ahead.last = turn;
  const auto found = ahead.next.find(turn);
  if (found != ahead.next.end()) restore_ahead(found->second, other(slot));
  return y;
}

bool weights_ahead() { return ahead.guessed; }

void touch_weights(const Ref& tensor) {
  if (ahead.guessed && ahead.guess.reads(tensor)) ahead.guessed = false;
}

void leave_weights() {
  ahead.guessed = false;
  wait_for_side();
}

void leave_weights(Slot place) {
  if (ahead.running && ahead.place == place) leave_weights();
}

void forget_weights() { changes++; }

void close_weights() {
  if (ahead.reached != nullptr) cudaEventDestroy(ahead.reached);
  if (ahead.restored != nullptr) cudaEventDestroy(ahead.restored);
  ahead = {};
}

}  // namespace cuda
}  // namespace tunebook
