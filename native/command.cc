// From the shared command buffer to an entry of the queue: handles become tensors, words integers and floats.
#include <cstring>
#include <string>

#include "ops.decode.gen.h"
#include "queue.h"

namespace tunebook {
namespace {

// Reads a command: see ops.decode.gen.h.
struct Reader {
  const int32_t* at;
  const int32_t* end;
  Allocator& memory;
  const char* op;
  bool adds;    // to its output, which it reads therefore
  char* lists;  // where the items of lists go: behind the struct
  char* lists_end;
  int64_t bytes = 0;  // of all tensors
  Graph* recording = nullptr;
  const Queue& queue;

  int32_t word() {
    if (at >= end) fail("%s: the command is longer than the shared buffer", op);
    return *at++;
  }
  int64_t integer() {
    const int32_t value = word();
    if (recording != nullptr) recording->mix(static_cast<uint32_t>(value));
    return value;
  }
  float real() {
    const int32_t bits = word();
    if (recording != nullptr) recording->mix(static_cast<uint32_t>(bits));
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }
  Ref ref(const char* name, bool output, bool optional) {
    const int32_t handle = word();
    uint64_t identity = 0;
    const Ref* found = handle == 0 ? nullptr : recording == nullptr ? memory.find(handle) : memory.use(handle, &identity);
    if (recording != nullptr) recording->mix(identity);
    if (handle == 0) {
      if (!optional) fail("%s: tensor \"%s\" is missing", op, name);
      return Ref();
    }
    if (found == nullptr) {
      if (place_of(handle) != memory.place()) {
        fail("%s: tensor \"%s\" is on %s, and others of the same operation are on %s: move them to one device", op, name,
             place_name(place_of(handle)), place_name(memory.place()));
      }
      fail("%s: tensor \"%s\" has been freed (handle %d)", op, name, handle);
    }
    Block* block = memory.block(handle);
    const char* lost = queue.lost_work(*block);
    if (lost != nullptr && (!output || adds)) never_computed(op, ("tensor \"" + std::string(name) + "\"").c_str(), lost);
    if (output && recording == nullptr) queue.written(*block);
    bytes += found->bytes;
    if (recording != nullptr) recording->mix(static_cast<uint64_t>(found->bytes) << 8 | static_cast<uint64_t>(found->dtype));
    return *found;
  }
  RefList list(const char* name, bool output) {
    RefList result;
    result.count = static_cast<int32_t>(integer());
    if (result.count < 0 || lists + result.count * sizeof(Ref) > lists_end) fail("%s: list \"%s\" has %d tensors", op, name, result.count);
    Ref* items = reinterpret_cast<Ref*>(lists);
    for (int32_t i = 0; i < result.count; i++) items[i] = ref(name, output, false);
    lists += result.count * sizeof(Ref);
    result.items = items;
    return result;
  }
};

// Products that an op adds up, for those that do more than pass over their tensors.
template <class A> double products(const A&) { return 0; }
double products(const gemm_args& a) { return double(a.m) * a.n * a.k; }
double products(const gemm_batched_args& a) { return double(a.batch) * a.m * a.n * a.k; }
double products(const gemm_nf4_args& a) { return double(a.m) * a.rows * a.cols; }
double products(const linear_update_args& a) { return double(a.m) * a.rows * a.cols; }
double products(const gemm_int8_args& a) { return double(a.m) * a.rows * a.cols; }
double products(const gemm_fp8_args& a) { return double(a.m) * a.rows * a.cols * (a.round_a ? 0.5 : 1); }
double products(const linear_cross_entropy_args& a) { return double(a.rows) * a.dim * a.vocab * 3; }
template <class A> double attended(const A& a) {
  return double(a.q_rows) * a.k_rows / double(a.sequences > 0 ? a.sequences : 1) * a.heads * a.head_dim;
}
double products(const attention_args& a) { return attended(a) * 2; }
double products(const attention_backward_args& a) { return attended(a) * 5; }

// Nanoseconds that a device may take for an op, at 2 TB/s and 100 T products/s; how wrong that is, Completions learns.
uint64_t cost_of(int64_t bytes, double products) { return 2000 + static_cast<uint64_t>(bytes / 2000 + products / 1e5); }

union AnyArgs {
  AnyArgs() {}
#define OP(name) name##_args name##_;
#include "ops.list.gen.h"
#undef OP
};

}  // namespace

int place_of_command(const int32_t* words, int64_t word_count) {
  if (words[0] < 0 || words[0] >= kOpCount) return 0;
  int64_t at = 1;
  for (int i = leading_lists(words[0]); i > 0 && at < word_count; i--) {
    if (words[at] > 0 && at + 1 < word_count) return place_of(words[at + 1]);
    at++;
  }
  for (int i = single_tensors(words[0]); i > 0 && at < word_count; i--, at++) {
    if (words[at] != 0) return place_of(words[at]);
  }
  return 0;
}

uint64_t Queue::run(const int32_t* words, int64_t word_count, Allocator& memory) {
  const int opcode = words[0];
  if (opcode < 0 || opcode >= kOpCount) fail("there is no op %d", opcode);
  constexpr int64_t kFixed = sizeof(Entry) + sizeof(AnyArgs) + 16;
  int64_t list_bytes = 0;  // lists stand first in a command: their lengths tell how much room they need
  for (int64_t i = 0, at = 1; i < leading_lists(opcode); i++) {
    if (at >= word_count || words[at] < 0 || words[at] > word_count) fail("%s: a list has a broken length", kOpNames[opcode]);
    list_bytes += words[at] * static_cast<int64_t>(sizeof(Ref));
    at += 1 + words[at];
  }
  uint64_t cost = 0;
  // Writes the arguments behind the entry at `place`; gives the bytes of both.
  auto decode = [&](char* place, Graph* recording) {
    int64_t used = kFixed;
    Reader in{words + 1, words + word_count, memory, kOpNames[opcode], opcode == op_axpy, nullptr, nullptr, 0, recording, *this};
    switch (opcode) {
#define OP(name)                                                                              \
  case op_##name: {                                                                           \
    constexpr int64_t size = sizeof(Entry) + (sizeof(name##_args) + 15) / 16 * 16;            \
    in.lists = place + size;                                                                  \
    in.lists_end = in.lists + list_bytes;                                                     \
    name##_args& args = *reinterpret_cast<name##_args*>(place + sizeof(Entry));               \
    decode_##name(in, args);                                                                  \
    used = size + list_bytes;                                                                 \
    if (behind_) cost = cost_of(in.bytes, products(args));                                    \
    break;                                                                                    \
  }
#include "ops.list.gen.h"
#undef OP
    }
    return used;
  };
  const int64_t room = (kFixed + list_bytes + 15) / 16 * 16;
  const int64_t used = decode(reserve(room), nullptr);
  sequence_++;
  if (recording_ != nullptr) {
    std::unique_ptr<char[]> kept(new char[static_cast<size_t>(room)]);  // decoded anew: lists point into their own entry
    recording_->mix(static_cast<uint64_t>(opcode));
    decode(kept.get(), recording_);
    *reinterpret_cast<Entry*>(kept.get()) = {static_cast<uint32_t>(used), Kind::Op, static_cast<uint16_t>(opcode), sequence_, cost, 0};
    recording_->cost += cost;
    recording_->entries.push_back(std::move(kept));
  }
  push(Kind::Op, opcode, used, cost);
  return sequence_;
}

}  // namespace tunebook
