// The boundary to JavaScript: see src/tensor/native.ts. Nothing else includes node-addon-api.
//
// Hot calls (run, alloc, view, free) carry no arguments: these stand in one shared ArrayBuffer, and results come back in its first word.
#define NAPI_CPP_EXCEPTIONS 1
#include <napi.h>

#include <cstdlib>
#include <cstring>
#include <mutex>

#include "allocator.h"
#include "backend.h"
#include "queue.h"

namespace tunebook {
namespace {

constexpr size_t kSharedBytes = size_t{256} << 10;

// A read on its way, with the promise and the typed array that wait for it.
struct Ticket : Pending {
  napi_deferred deferred = nullptr;
  napi_ref into = nullptr;
};

struct Runtime {
  napi_env env;
  const Backend& backend;
  Queue queue;
  Allocator memory;
  int32_t* words = nullptr;
  napi_ref shared = nullptr, make_error = nullptr, interrupt_flag = nullptr;
  napi_threadsafe_function wake = nullptr;
  int64_t outstanding = 0;

  Runtime(napi_env e, const Backend& b)
      : env(e),
        backend(b),
        queue(b, [](void* self) { napi_call_threadsafe_function(static_cast<Runtime*>(self)->wake, nullptr, napi_tsfn_nonblocking); }, this),
        memory(b, [](void* self, void* data, int64_t bytes) { static_cast<Runtime*>(self)->queue.release(data, bytes); }, this) {}
};

// One process has one device queue. It belongs to the thread (Node environment) that opened it first.
std::mutex runtime_mutex;
Runtime* runtime = nullptr;

void throw_plain(napi_env env, const char* code, const char* message) { napi_throw_error(env, code, message); }

Runtime* mine(napi_env env) {
  Runtime* r = runtime;
  if (r != nullptr && r->env == env) return r;
  throw_plain(env, "TUNEBOOK_NOT_OPEN", "The native runtime is not open in this thread.");
  return nullptr;
}

int64_t join_words(const int32_t* at) { return static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(at[1])) << 32 | static_cast<uint32_t>(at[0])); }

// ---- hot calls ----------------------------------------------------------------------------

napi_value run(napi_env env, napi_callback_info) {
  Runtime* r = mine(env);
  if (r == nullptr) return nullptr;
  try {
    r->words[0] = static_cast<int32_t>(r->queue.run(r->words, kSharedBytes / 4, r->memory));
  } catch (const OpError& error) {
    throw_plain(env, "TUNEBOOK_CALL", error.message);
  }
  return nullptr;
}

// in: bytes (two words), dtype. out: the handle, or 0 when memory is exhausted.
napi_value alloc(napi_env env, napi_callback_info) {
  Runtime* r = mine(env);
  if (r == nullptr) return nullptr;
  try {
    r->words[0] = r->memory.alloc(join_words(r->words), static_cast<DType>(r->words[2]));
  } catch (const OpError& error) {
    throw_plain(env, "TUNEBOOK_CALL", error.message);
  }
  return nullptr;
}

// in: handle, offset (two words), bytes (two words), dtype. out: the handle.
napi_value view(napi_env env, napi_callback_info) {
  Runtime* r = mine(env);
  if (r == nullptr) return nullptr;
  try {
    r->words[0] = r->memory.view(r->words[0], join_words(r->words + 1), join_words(r->words + 3), static_cast<DType>(r->words[5]));
  } catch (const OpError& error) {
    throw_plain(env, "TUNEBOOK_CALL", error.message);
  }
  return nullptr;
}

// in: handle. out: 1, or 0 when there is no such handle.
napi_value free_handle(napi_env env, napi_callback_info) {
  Runtime* r = mine(env);
  if (r == nullptr) return nullptr;
  r->words[0] = r->memory.free(r->words[0]) ? 1 : 0;
  return nullptr;
}

// ---- errors and promises ------------------------------------------------------------------

// An error object for what stopped the queue.
napi_value stopped_error(Runtime* r, QueueState state) {
  const Failure failure = r->queue.failure();
  napi_env env = r->env;
  napi_value make, undefined, args[3], result;
  napi_get_reference_value(env, r->make_error, &make);
  napi_get_undefined(env, &undefined);
  napi_create_string_utf8(env, state == QueueState::Failed ? "failed" : "interrupted", NAPI_AUTO_LENGTH, &args[0]);
  napi_create_string_utf8(env, failure.message.c_str(), failure.message.size(), &args[1]);
  napi_create_double(env, static_cast<double>(failure.sequence), &args[2]);
  if (napi_call_function(env, undefined, make, 3, args, &result) != napi_ok) {
    napi_get_and_clear_last_exception(env, &result);
  }
  return result;
}

void settle_ticket(Runtime* r, Ticket* ticket) {
  napi_env env = r->env;
  napi_value undefined;
  napi_get_undefined(env, &undefined);
  napi_value error = nullptr;
  if (ticket->outcome != QueueState::Running) {
    error = stopped_error(r, ticket->outcome);
  } else if (ticket->into != nullptr) {
    napi_value into;
    void* data = nullptr;
    size_t length = 0, offset = 0;
    napi_typedarray_type type;
    napi_value buffer;
    napi_get_reference_value(env, ticket->into, &into);
    // The length is asked again: the array may have been transferred away since.
    size_t bytes = 0;
    if (napi_get_typedarray_info(env, into, &type, &length, &data, &buffer, &offset) == napi_ok) {
      const size_t width[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
      bytes = length * width[type];
    }
    if (bytes < static_cast<size_t>(ticket->bytes)) {
      napi_value message;
      napi_create_string_utf8(env, "the typed array of this download was detached before the data arrived", NAPI_AUTO_LENGTH, &message);
      napi_create_error(env, nullptr, message, &error);
    } else {
      memcpy(data, ticket->staging, static_cast<size_t>(ticket->bytes));
    }
  }
  if (error != nullptr) {
    napi_reject_deferred(env, ticket->deferred, error);
  } else {
    napi_resolve_deferred(env, ticket->deferred, undefined);
  }
  if (ticket->into != nullptr) napi_delete_reference(env, ticket->into);
  ::free(ticket->staging);
  delete ticket;
  if (--r->outstanding == 0) napi_unref_threadsafe_function(env, r->wake);
}

void on_wake(napi_env env, napi_value, void*, void*) {
  Runtime* r = runtime;
  if (env == nullptr || r == nullptr || r->env != env) return;
  for (Pending* pending : r->queue.finished()) settle_ticket(r, static_cast<Ticket*>(pending));
}

Napi::Value enqueue_read(Runtime* r, Ticket* ticket, const void* from) {
  napi_value promise;
  napi_create_promise(r->env, &ticket->deferred, &promise);
  if (r->outstanding++ == 0) napi_ref_threadsafe_function(r->env, r->wake);  // keeps the process alive until it is settled
  r->queue.download(ticket, from);
  return Napi::Value(r->env, promise);
}

// ---- the rest -----------------------------------------------------------------------------

const Ref& tensor(Runtime* r, const Napi::CallbackInfo& info, const char* what) {
  const Ref* ref = r->memory.find(info[0].As<Napi::Number>().Int32Value());
  if (ref == nullptr) throw Napi::Error::New(info.Env(), std::string(what) + ": the tensor has been freed");
  return *ref;
}

// The bytes of a typed array argument, checked against a part of a tensor.
struct Bytes {
  void* data;
  int64_t count;
  int64_t offset;
};
Bytes typed_array(const Napi::CallbackInfo& info, const Ref& ref, const char* what) {
  void* data = nullptr;
  size_t length = 0, offset = 0;
  napi_typedarray_type type;
  napi_value buffer;
  if (napi_get_typedarray_info(info.Env(), info[1], &type, &length, &data, &buffer, &offset) != napi_ok) {
    throw Napi::TypeError::New(info.Env(), std::string(what) + ": a typed array is expected");
  }
  const size_t width[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  const int64_t count = static_cast<int64_t>(length * width[type]);
  const int64_t at = info.Length() > 2 && info[2].IsNumber() ? info[2].As<Napi::Number>().Int64Value() : 0;
  if (at < 0 || at > ref.bytes || count > ref.bytes - at) {
    throw Napi::RangeError::New(info.Env(), std::string(what) + ": " + std::to_string(count) + " bytes at byte " + std::to_string(at) +
                                                " do not fit a tensor of " + std::to_string(ref.bytes) + " bytes");
  }
  return {data, count, at};
}

Runtime* mine(const Napi::CallbackInfo& info) {
  Runtime* r = mine(static_cast<napi_env>(info.Env()));
  if (r == nullptr) throw Napi::Error(info.Env(), info.Env().GetAndClearPendingException().Value());
  return r;
}

void upload(const Napi::CallbackInfo& info) {
  Runtime* r = mine(info);
  const Ref& ref = tensor(r, info, "upload");
  const Bytes from = typed_array(info, ref, "upload");
  r->queue.upload(static_cast<char*>(ref.data) + from.offset, from.data, from.count);
}

Napi::Value download(const Napi::CallbackInfo& info) {
  Runtime* r = mine(info);
  const Ref& ref = tensor(r, info, "download");
  const Bytes into = typed_array(info, ref, "download");
  Ticket* ticket = new Ticket;
  ticket->bytes = into.count;
  ticket->staging = malloc(into.count > 0 ? static_cast<size_t>(into.count) : 1);
  if (ticket->staging == nullptr) {
    delete ticket;
    throw Napi::Error::New(info.Env(), "download: out of memory for " + std::to_string(into.count) + " bytes");
  }
  napi_create_reference(info.Env(), info[1], 1, &ticket->into);
  return enqueue_read(r, ticket, static_cast<char*>(ref.data) + into.offset);
}

Napi::Value settle(const Napi::CallbackInfo& info) {
  Runtime* r = mine(info);
  return enqueue_read(r, new Ticket, nullptr);
}

void sync(const Napi::CallbackInfo& info) {
  Runtime* r = mine(info);
  r->queue.wait_idle();
  const QueueState state = r->queue.state();
  if (state != QueueState::Running) throw Napi::Error(info.Env(), stopped_error(r, state));
}

Napi::Value stats(const Napi::CallbackInfo& info) {
  Runtime* r = mine(info);
  Napi::Object o = Napi::Object::New(info.Env());
  auto number = [&](const char* name, double value) { o.Set(name, Napi::Number::New(info.Env(), value)); };
  number("liveBytes", static_cast<double>(r->memory.live_bytes));
  number("peakBytes", static_cast<double>(r->memory.peak_bytes));
  number("cachedBytes", static_cast<double>(r->memory.cached_bytes));
  number("limitBytes", static_cast<double>(r->memory.limit));
  number("handles", static_cast<double>(r->memory.handle_count));
  number("queued", static_cast<double>(r->queue.queued()));
  number("threads", r->backend.threads);
  o.Set("isa", Napi::String::New(info.Env(), r->backend.isa));
  number("busySeconds", r->queue.busy_seconds());
  return o;
}

// [calls, seconds] of every op, in the order of opNames.
Napi::Value profile(const Napi::CallbackInfo& info) {
  Runtime* r = mine(info);
  Napi::Float64Array out = Napi::Float64Array::New(info.Env(), kOpCount * 2);
  for (int i = 0; i < kOpCount; i++) {
    out[i * 2] = static_cast<double>(r->queue.op_calls[i].load());
    out[i * 2 + 1] = static_cast<double>(r->queue.op_nanoseconds[i].load()) * 1e-9;
  }
  return out;
}

Napi::Value state(const Napi::CallbackInfo& info) {
  const QueueState s = mine(info)->queue.state();
  return Napi::String::New(info.Env(), s == QueueState::Running ? "running" : s == QueueState::Failed ? "failed" : "interrupted");
}

void reset_peak(const Napi::CallbackInfo& info) {
  Runtime* r = mine(info);
  r->memory.peak_bytes = r->memory.live_bytes;
}

void trim(const Napi::CallbackInfo& info) { mine(info)->memory.trim(); }
void recover(const Napi::CallbackInfo& info) { mine(info)->queue.recover(); }

void set_interrupt_flag(const Napi::CallbackInfo& info) {
  Runtime* r = mine(info);
  r->queue.set_interrupt(nullptr);
  if (r->interrupt_flag != nullptr) napi_delete_reference(info.Env(), r->interrupt_flag);
  r->interrupt_flag = nullptr;
  if (info[0].IsNull() || info[0].IsUndefined()) return;
  void* data = nullptr;
  size_t length = 0, offset = 0;
  napi_typedarray_type type;
  napi_value buffer;
  if (napi_get_typedarray_info(info.Env(), info[0], &type, &length, &data, &buffer, &offset) != napi_ok || type != napi_int32_array || length < 1) {
    throw Napi::TypeError::New(info.Env(), "the interrupt flag must be an Int32Array over a SharedArrayBuffer");
  }
  napi_create_reference(info.Env(), info[0], 1, &r->interrupt_flag);
  static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t), "");
  r->queue.set_interrupt(static_cast<const std::atomic<int32_t>*>(data));
}

// The environment ends (process exit, or its worker thread does): queued work is dropped and the threads are joined.
void close(void*) {
  std::lock_guard<std::mutex> lock(runtime_mutex);
  const Backend& backend = runtime->backend;
  delete runtime;  // ends the queue first
  runtime = nullptr;
  backend.close();
}

// open(makeError: (kind, message, sequence) => Error) -> { shared: ArrayBuffer, opNames: string[] }
Napi::Value open(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::lock_guard<std::mutex> lock(runtime_mutex);
  if (runtime != nullptr && runtime->env != static_cast<napi_env>(env)) {
    throw Napi::Error::New(env,
                           "tunebook's native runtime is already open in another thread of this process, and there is one for each process: use it "
                           "from that thread, or end that thread first");
  }
  if (runtime == nullptr) {
    Runtime* r;
    try {
      r = new Runtime(env, open_cpu());
    } catch (const OpError& error) {
      throw Napi::Error::New(env, error.message);
    }
    napi_value buffer;
    void* words;
    napi_create_arraybuffer(env, kSharedBytes, &words, &buffer);
    r->words = static_cast<int32_t*>(words);
    napi_create_reference(env, buffer, 1, &r->shared);
    napi_create_reference(env, info[0], 1, &r->make_error);
    napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "tunebook"), 0, 1, nullptr, nullptr, nullptr, on_wake, &r->wake);
    napi_unref_threadsafe_function(env, r->wake);
    runtime = r;
    // Hooks run last in, first out, so the queue ends before the thread-safe function does.
    napi_add_env_cleanup_hook(env, close, nullptr);
  }
  napi_value shared;
  napi_get_reference_value(env, runtime->shared, &shared);
  Napi::Array names = Napi::Array::New(env, kOpCount);
  for (uint32_t i = 0; i < kOpCount; i++) names[i] = Napi::String::New(env, kOpNames[i]);
  Napi::Object result = Napi::Object::New(env);
  result.Set("shared", Napi::Value(env, shared));
  result.Set("opNames", names);
  return result;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto hot = [&](const char* name, napi_callback callback) {
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function);
    exports.Set(name, Napi::Value(env, function));
  };
  hot("run", run);
  hot("alloc", alloc);
  hot("view", view);
  hot("free", free_handle);
  exports.Set("open", Napi::Function::New(env, open, "open"));
  exports.Set("upload", Napi::Function::New(env, upload, "upload"));
  exports.Set("download", Napi::Function::New(env, download, "download"));
  exports.Set("settle", Napi::Function::New(env, settle, "settle"));
  exports.Set("sync", Napi::Function::New(env, sync, "sync"));
  exports.Set("stats", Napi::Function::New(env, stats, "stats"));
  exports.Set("profile", Napi::Function::New(env, profile, "profile"));
  exports.Set("state", Napi::Function::New(env, state, "state"));
  exports.Set("resetPeak", Napi::Function::New(env, reset_peak, "resetPeak"));
  exports.Set("trim", Napi::Function::New(env, trim, "trim"));
  exports.Set("recover", Napi::Function::New(env, recover, "recover"));
  exports.Set("setInterruptFlag", Napi::Function::New(env, set_interrupt_flag, "setInterruptFlag"));
  return exports;
}

}  // namespace
}  // namespace tunebook

static Napi::Object tunebook_init(Napi::Env env, Napi::Object exports) { return tunebook::init(env, exports); }
NODE_API_MODULE(tunebook, tunebook_init)
