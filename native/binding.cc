// The boundary to JavaScript: see src/tensor/native.ts. Nothing else includes node-addon-api.
//
// Hot calls (run, alloc, view, free) carry no arguments: these stand in one shared ArrayBuffer, and results come back in its first word.
#define NAPI_CPP_EXCEPTIONS 1
#include <napi.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

#include "allocator.h"
#include "backend.h"
#include "library.h"
#include "queue.h"

namespace tunebook {
namespace {

constexpr size_t kSharedBytes = size_t{256} << 10;

// A read on its way, with the promise and the typed array that wait for it.
struct Ticket : Pending {
  napi_deferred deferred = nullptr;
  napi_ref into = nullptr;
};

// What belongs to the JavaScript thread that opened the runtime.
struct Home {
  napi_env env = nullptr;
  int32_t* words = nullptr;
  napi_ref shared = nullptr, make_error = nullptr, interrupt_flag = nullptr;
  const std::atomic<int32_t>* interrupt = nullptr;
  napi_threadsafe_function wake = nullptr;
  int64_t outstanding = 0;
};

// One device: its queue and its memory.
struct Runtime {
  Home& home;
  const int place;
  const Backend& backend;
  Queue queue;
  Allocator memory;

  Runtime(Home& h, const Backend& b, int p)
      : home(h),
        place(p),
        backend(b),
        queue(b, [](void* self) { napi_call_threadsafe_function(static_cast<Runtime*>(self)->home.wake, nullptr, napi_tsfn_nonblocking); }, this),
        memory(b,
               {[](void* self, void* data, int64_t bytes) { static_cast<Runtime*>(self)->queue.release(data, bytes); },
                [](void* self) { static_cast<Runtime*>(self)->queue.wait_idle(); }, this},
               p) {}
  // The queue ends before memory does; members would end in the other order.
  ~Runtime() { queue.end(); }
};

// One process has one queue a device. They belong to the thread (Node environment) that opened them first.
std::mutex runtime_mutex;
Home* home = nullptr;
Runtime* runtimes[2] = {};  // by the device of a handle

void throw_plain(napi_env env, const char* code, const char* message) { napi_throw_error(env, code, message); }

Home* mine(napi_env env) {
  if (home != nullptr && home->env == env) return home;
  throw_plain(env, "TUNEBOOK_NOT_OPEN", "The native runtime is not open in this thread.");
  return nullptr;
}

napi_value stopped_error(Runtime* r, QueueState state);

// The runtime of a device, for calls that start work on it.
Runtime* runtime_of(napi_env env, int place) {
  if (mine(env) == nullptr) return nullptr;
  Runtime* r = runtimes[place];
  if (r == nullptr) {
    throw_plain(env, "TUNEBOOK_NOT_OPEN", "No GPU has been opened in this process: this tensor's handle belongs to none.");
  } else if (r->queue.lost()) {
    napi_throw(env, stopped_error(r, QueueState::Failed));
    return nullptr;
  }
  return r;
}

// Throws what an op, or the device, refused.
void throw_refused(Runtime* r, const OpError& error) {
  if (!error.lost) {
    throw_plain(r->home.env, "TUNEBOOK_CALL", error.message);
    return;
  }
  r->queue.lose(error);
  napi_throw(r->home.env, stopped_error(r, QueueState::Failed));
}

int64_t join_words(const int32_t* at) { return static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(at[1])) << 32 | static_cast<uint32_t>(at[0])); }

// ---- hot calls ----------------------------------------------------------------------------

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

// in: bytes (two words), dtype, device. out: the handle, or 0 when memory is exhausted.
napi_value alloc(napi_env env, napi_callback_info) {
  Home* h = mine(env);
  if (h == nullptr) return nullptr;
  Runtime* r = runtime_of(env, h->words[3] & 1);
  if (r == nullptr) return nullptr;
  try {
    h->words[0] = r->memory.alloc(join_words(h->words), static_cast<DType>(h->words[2]));
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

// ---- errors and promises ------------------------------------------------------------------

// An error object for what stopped the queue: makeError(kind, message, number of the op, device, "" | "lost" | "memory").
napi_value stopped_error(Runtime* r, QueueState state) {
  const Failure failure = r->queue.failure();
  napi_env env = r->home.env;
  napi_value make, undefined, args[5], result;
  napi_get_reference_value(env, r->home.make_error, &make);
  napi_get_undefined(env, &undefined);
  napi_create_string_utf8(env, state == QueueState::Failed ? "failed" : "interrupted", NAPI_AUTO_LENGTH, &args[0]);
  napi_create_string_utf8(env, failure.message.c_str(), failure.message.size(), &args[1]);
  napi_create_double(env, static_cast<double>(failure.sequence), &args[2]);
  napi_create_int32(env, r->place, &args[3]);
  napi_create_string_utf8(env, failure.lost ? "lost" : failure.memory ? "memory" : "", NAPI_AUTO_LENGTH, &args[4]);
  if (napi_call_function(env, undefined, make, 5, args, &result) != napi_ok) {
    napi_get_and_clear_last_exception(env, &result);
  }
  return result;
}

void free_staging(Runtime* r, Ticket* ticket) {
  if (r->backend.free_host != nullptr) {
    r->backend.free_host(ticket->staging, ticket->bytes);
  } else {
    ::free(ticket->staging);
  }
}

void settle_ticket(Runtime* r, Ticket* ticket) {
  napi_env env = r->home.env;
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
  free_staging(r, ticket);
  delete ticket;
  if (--r->home.outstanding == 0) napi_unref_threadsafe_function(env, r->home.wake);
}

void on_wake(napi_env env, napi_value, void*, void*) {
  if (env == nullptr || home == nullptr || home->env != env) return;
  for (Runtime* r : runtimes) {
    if (r == nullptr) continue;
    for (Pending* pending : r->queue.finished()) settle_ticket(r, static_cast<Ticket*>(pending));
  }
}

Napi::Value enqueue_read(Runtime* r, Ticket* ticket, const void* from) {
  napi_value promise;
  napi_create_promise(r->home.env, &ticket->deferred, &promise);
  if (r->home.outstanding++ == 0) napi_ref_threadsafe_function(r->home.env, r->home.wake);  // keeps the process alive until it is settled
  r->queue.download(ticket, from);
  return Napi::Value(r->home.env, promise);
}

// ---- the rest -----------------------------------------------------------------------------

const Ref& tensor(Runtime* r, const Napi::CallbackInfo& info, const char* what, size_t argument = 0) {
  const Ref* ref = r->memory.find(info[argument].As<Napi::Number>().Int32Value());
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

Home& mine(const Napi::CallbackInfo& info) {
  Home* h = mine(static_cast<napi_env>(info.Env()));
  if (h == nullptr) throw Napi::Error(info.Env(), info.Env().GetAndClearPendingException().Value());
  return *h;
}

// The runtime of the handle in an argument.
Runtime* of_handle(const Napi::CallbackInfo& info, size_t argument = 0) {
  Runtime* r = runtime_of(info.Env(), place_of(info[argument].As<Napi::Number>().Int32Value()));
  if (r == nullptr) throw Napi::Error(info.Env(), info.Env().GetAndClearPendingException().Value());
  return r;
}

// The runtime of the device number in the first argument (0 when there is none). A lost device still answers.
Runtime* of_device(const Napi::CallbackInfo& info) {
  mine(info);
  const int place = info.Length() > 0 && info[0].IsNumber() ? info[0].As<Napi::Number>().Int32Value() : 0;
  if (place < 0 || place > 1 || runtimes[place] == nullptr) {
    throw Napi::Error::New(info.Env(), "device " + std::to_string(place) + " is not open (0 is the CPU, 1 the GPU once openDevice was called)");
  }
  return runtimes[place];
}

[[noreturn]] void refuse(Runtime* r, const OpError& error) {
  throw_refused(r, error);
  Napi::Env env = r->home.env;
  throw Napi::Error(env, env.GetAndClearPendingException().Value());
}

void upload(const Napi::CallbackInfo& info) {
  Runtime* r = of_handle(info);
  const Ref& ref = tensor(r, info, "upload");
  const Bytes from = typed_array(info, ref, "upload");
  try {
    r->queue.upload(static_cast<char*>(ref.data) + from.offset, from.data, from.count);
  } catch (const OpError& error) {
    refuse(r, error);
  }
}

// Blocks until everything queued for a device has been done; throws what stopped it.
void finish(Runtime* r, Napi::Env env) {
  r->queue.wait_done();
  const QueueState state = r->queue.state();
  if (state != QueueState::Running) throw Napi::Error(env, stopped_error(r, state));
}

// transfer(from, to): the bytes of a tensor, to one of the same size on another device. Blocks until they have been read.
void transfer(const Napi::CallbackInfo& info) {
  Runtime* source = of_handle(info, 0);
  Runtime* target = of_handle(info, 1);
  const Ref from = tensor(source, info, "transfer", 0), to = tensor(target, info, "transfer", 1);
  if (from.bytes != to.bytes) {
    throw Napi::RangeError::New(info.Env(), "transfer: a tensor of " + std::to_string(from.bytes) + " bytes does not fit one of " + std::to_string(to.bytes));
  }
  if (source == target) throw Napi::Error::New(info.Env(), "transfer: both tensors are on the same device: use the op copy");
  finish(source, info.Env());
  try {
    if (source->place == 0) {  // its memory is host memory, and nothing is queued for it
      target->queue.upload(to.data, from.data, to.bytes);
    } else {
      target->queue.wait_idle();
      source->backend.download(to.data, from.data, from.bytes);
      source->backend.sync();
    }
  } catch (const OpError& error) {
    refuse(source->place == 0 ? target : source, error);
  }
}

Napi::Value download(const Napi::CallbackInfo& info) {
  Runtime* r = of_handle(info);
  const Ref& ref = tensor(r, info, "download");
  const Bytes into = typed_array(info, ref, "download");
  Ticket* ticket = new Ticket;
  ticket->bytes = into.count;
  const int64_t bytes = into.count > 0 ? into.count : 1;
  ticket->staging = r->backend.alloc_host != nullptr ? r->backend.alloc_host(bytes) : malloc(static_cast<size_t>(bytes));
  if (ticket->staging == nullptr) {
    delete ticket;
    throw Napi::Error::New(info.Env(), "download: out of memory for " + std::to_string(into.count) + " bytes");
  }
  napi_create_reference(info.Env(), info[1], 1, &ticket->into);
  return enqueue_read(r, ticket, static_cast<char*>(ref.data) + into.offset);
}

Napi::Value settle(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  return enqueue_read(r, new Ticket, nullptr);
}

void sync(const Napi::CallbackInfo& info) { finish(of_device(info), info.Env()); }

Napi::Value stats(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  Napi::Object o = Napi::Object::New(info.Env());
  auto number = [&](const char* name, double value) { o.Set(name, Napi::Number::New(info.Env(), value)); };
  number("liveBytes", static_cast<double>(r->memory.live_bytes()));
  number("peakBytes", static_cast<double>(r->memory.peak_bytes()));
  number("cachedBytes", static_cast<double>(r->memory.cached_bytes()));
  number("scratchBytes", static_cast<double>(r->memory.scratch_bytes()));
  number("reservedBytes", static_cast<double>(r->memory.live_bytes() + r->memory.cached_bytes() + r->memory.scratch_bytes()));
  number("limitBytes", static_cast<double>(r->memory.limit()));
  number("handles", static_cast<double>(r->memory.handle_count));
  number("queued", static_cast<double>(r->queue.queued()));
  number("threads", r->backend.threads);
  o.Set("isa", Napi::String::New(info.Env(), r->backend.isa));
  number("busySeconds", r->queue.busy_seconds());
  return o;
}

// [calls, seconds] of every op, in the order of opNames.
Napi::Value profile(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  Napi::Float64Array out = Napi::Float64Array::New(info.Env(), kOpCount * 2);
  for (int i = 0; i < kOpCount; i++) {
    out[i * 2] = static_cast<double>(r->queue.op_calls[i].load());
    out[i * 2 + 1] = static_cast<double>(r->queue.op_nanoseconds[i].load()) * 1e-9;
  }
  return out;
}

Napi::Value state(const Napi::CallbackInfo& info) {
  const QueueState s = of_device(info)->queue.state();
  return Napi::String::New(info.Env(), s == QueueState::Running ? "running" : s == QueueState::Failed ? "failed" : "interrupted");
}

void reset_peak(const Napi::CallbackInfo& info) { of_device(info)->memory.reset_peak(); }

void trim(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  r->memory.trim();
  r->queue.trim();
}

void recover(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  const bool exhausted = r->queue.failure().memory;
  r->queue.recover();
  if (exhausted) r->memory.trim();  // what is cached for tensors makes room for working memory
}

void set_interrupt_flag(const Napi::CallbackInfo& info) {
  Home& h = mine(info);
  auto set = [&](const std::atomic<int32_t>* flag) {
    h.interrupt = flag;
    for (Runtime* r : runtimes) {
      if (r != nullptr) r->queue.set_interrupt(flag);
    }
  };
  set(nullptr);
  if (h.interrupt_flag != nullptr) napi_delete_reference(info.Env(), h.interrupt_flag);
  h.interrupt_flag = nullptr;
  if (info[0].IsNull() || info[0].IsUndefined()) return;
  void* data = nullptr;
  size_t length = 0, offset = 0;
  napi_typedarray_type type;
  napi_value buffer;
  if (napi_get_typedarray_info(info.Env(), info[0], &type, &length, &data, &buffer, &offset) != napi_ok || type != napi_int32_array || length < 1) {
    throw Napi::TypeError::New(info.Env(), "the interrupt flag must be an Int32Array over a SharedArrayBuffer");
  }
  napi_create_reference(info.Env(), info[0], 1, &h.interrupt_flag);
  static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t), "");
  set(static_cast<const std::atomic<int32_t>*>(data));
}

// The environment ends (process exit, or its worker thread does): queued work is dropped and the threads are joined.
void close(void*) {
  std::lock_guard<std::mutex> lock(runtime_mutex);
  for (int place = 1; place >= 0; place--) {  // the stand-in for a GPU stands on the CPU
    if (runtimes[place] == nullptr) continue;
    const Backend& backend = runtimes[place]->backend;
    delete runtimes[place];  // ends the queue first
    runtimes[place] = nullptr;
    backend.close();
  }
  delete home;
  home = nullptr;
}

// openDevice("cuda" | "cuda:N") -> what the GPU is. Throws with the reason when none can be used.
Napi::Value open_device(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Home& h = mine(info);
  const std::string asked = info[0].As<Napi::String>().Utf8Value();
  const bool numbered = asked.size() > 5 && asked.compare(0, 5, "cuda:") == 0 && asked.find_first_not_of("0123456789", 5) == std::string::npos;
  if (asked != "cuda" && !numbered) throw Napi::Error::New(env, "there is no device \"" + asked + "\", expected \"cuda\" or \"cuda:N\"");
  const int index = numbered ? atoi(asked.c_str() + 5) : 0;
  if (runtimes[1] == nullptr) {
    try {
      const Backend& backend = fake_cuda_asked() ? open_fake_cuda(runtimes[0]->backend) : open_cuda(index);
      runtimes[1] = new Runtime(h, backend, 1);
      runtimes[1]->queue.set_interrupt(h.interrupt);
    } catch (const OpError& error) {
      throw Napi::Error::New(env, error.message);
    }
  }
  const Backend& backend = runtimes[1]->backend;
  if (numbered && asked != backend.name) {
    throw Napi::Error::New(env, std::string(backend.name) + " is open in this process, and one process works on one GPU");
  }
  const DeviceInfo& d = *backend.info;
  Napi::Object o = Napi::Object::New(env);
  auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  o.Set("name", d.name);
  o.Set("device", backend.name);
  o.Set("computeCapability", std::to_string(d.major) + "." + std::to_string(d.minor));
  o.Set("multiprocessors", d.multiprocessors);
  o.Set("memory", static_cast<double>(d.total_bytes));
  o.Set("freeMemory", static_cast<double>(d.free_bytes));
  o.Set("limit", static_cast<double>(runtimes[1]->memory.limit()));
  o.Set("driver", version(d.driver));
  o.Set("runtime", version(d.runtime));
  o.Set("float32Only", fake_cuda_asked());
  return o;
}

// open(makeError: (kind, message, sequence) => Error) -> { shared: ArrayBuffer, opNames: string[] }
Napi::Value open(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::lock_guard<std::mutex> lock(runtime_mutex);
  if (home != nullptr && home->env != static_cast<napi_env>(env)) {
    throw Napi::Error::New(env,
                           "tunebook's native runtime is already open in another thread of this process, and there is one for each process: use it "
                           "from that thread, or end that thread first");
  }
  if (home == nullptr) {
    auto h = std::make_unique<Home>();
    h->env = env;
    try {
      runtimes[0] = new Runtime(*h, open_cpu(), 0);
    } catch (const OpError& error) {
      throw Napi::Error::New(env, error.message);
    }
    home = h.release();
    napi_value buffer;
    void* words;
    napi_create_arraybuffer(env, kSharedBytes, &words, &buffer);
    home->words = static_cast<int32_t*>(words);
    napi_create_reference(env, buffer, 1, &home->shared);
    napi_create_reference(env, info[0], 1, &home->make_error);
    napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "tunebook"), 0, 1, nullptr, nullptr, nullptr, on_wake, &home->wake);
    napi_unref_threadsafe_function(env, home->wake);
    // Hooks run last in, first out, so the queue ends before the thread-safe function does.
    napi_add_env_cleanup_hook(env, close, nullptr);
  }
  napi_value shared;
  napi_get_reference_value(env, home->shared, &shared);
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
  exports.Set("openDevice", Napi::Function::New(env, open_device, "openDevice"));
  exports.Set("transfer", Napi::Function::New(env, transfer, "transfer"));
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
