// The hot calls of the boundary (run, alloc, view, free): they carry no arguments. These stand in one shared ArrayBuffer, and results come
// back in its first word.
#include "runtime.h"

namespace tunebook {
namespace {

int64_t join_words(const int32_t* at) { return static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(at[1])) << 32 | static_cast<uint32_t>(at[0])); }

// The opcode, handles, integers and floats. out: the op's number. Every handle must belong to the device of the first one.
napi_value run(napi_env env, napi_callback_info) {
  Home* h = mine(env);
  if (h == nullptr) return nullptr;
  Runtime* r = runtime_of(env, runtimes[1] == nullptr ? 0 : place_of_command(h->words, kSharedBytes / 4));
  if (r == nullptr) return nullptr;
  try {
    h->words[0] = static_cast<int32_t>(r->queue.run(h->words, kSharedBytes / 4, r->memory));
  } catch (const OpError& error) {
    throw_refused(r, error);
  }
  return nullptr;
}

// in: bytes (two words), dtype, device (+ 2: in its host memory). out: the handle, or 0 when memory is exhausted.
napi_value alloc(napi_env env, napi_callback_info) {
  Home* h = mine(env);
  if (h == nullptr) return nullptr;
  Runtime* r = runtime_of(env, h->words[3] & 1);
  if (r == nullptr) return nullptr;
  try {
    h->words[0] = r->memory.alloc(join_words(h->words), static_cast<DType>(h->words[2]), (h->words[3] & 2) != 0);
  } catch (const OpError& error) {
    throw_refused(r, error);
  }
  return nullptr;
}

// in: handle, offset (two words), bytes (two words), dtype. out: the handle.
napi_value view(napi_env env, napi_callback_info) {
  Home* h = mine(env);
  if (h == nullptr) return nullptr;
  Runtime* r = runtime_of(env, place_of(h->words[0]));
  if (r == nullptr) return nullptr;
  try {
    h->words[0] = r->memory.view(h->words[0], join_words(h->words + 1), join_words(h->words + 3), static_cast<DType>(h->words[5]));
  } catch (const OpError& error) {
    throw_refused(r, error);
  }
  return nullptr;
}

// in: handle. out: 1, or 0 when there is no such handle. Works on a lost device too.
napi_value free_handle(napi_env env, napi_callback_info) {
  Home* h = mine(env);
  if (h == nullptr) return nullptr;
  Runtime* r = runtimes[place_of(h->words[0])];
  h->words[0] = r != nullptr && r->memory.free(h->words[0]) ? 1 : 0;
  return nullptr;
}

}  // namespace

void export_calls(Napi::Env env, Napi::Object exports) {
  auto hot = [&](const char* name, napi_callback callback) {
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function);
    exports.Set(name, Napi::Value(env, function));
  };
  hot("run", run);
  hot("alloc", alloc);
  hot("view", view);
  hot("free", free_handle);
}

}  // namespace tunebook
