// The boundary to JavaScript (see src/tensor/native.ts): opening, closing, and what is known of each device.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "library.h"
#include "runtime.h"

namespace tunebook {
namespace {

Napi::Value stats(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  Napi::Object o = Napi::Object::New(info.Env());
  auto number = [&](const char* name, double value) { o.Set(name, Napi::Number::New(info.Env(), value)); };
  number("liveBytes", static_cast<double>(r->memory.live_bytes()));
  number("peakBytes", static_cast<double>(r->memory.peak_bytes()));
  number("cachedBytes", static_cast<double>(r->memory.cached_bytes()));
  number("scratchBytes", static_cast<double>(r->memory.scratch_bytes()));
  number("reservedBytes", static_cast<double>(r->memory.live_bytes() + r->memory.cached_bytes() + r->memory.scratch_bytes()));
  number("hostBytes", static_cast<double>(r->memory.host_bytes()));
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
  abandon_recording(r);
  r->queue.recover();
  if (exhausted) r->memory.trim();  // what is cached for tensors makes room for working memory
}

// updateBegin(device), updateEnd(device, keep): see Queue::update_begin.
void update_begin(const Napi::CallbackInfo& info) { of_device(info)->queue.update_begin(); }
void update_end(const Napi::CallbackInfo& info) { of_device(info)->queue.update_end(info[1].ToBoolean().Value()); }

// strikeAfter(device, number of an op): for tests.
void strike_after(const Napi::CallbackInfo& info) {
  of_device(info)->queue.strike_after(static_cast<uint64_t>(info[1].As<Napi::Number>().Int64Value()));
}

void set_interrupt_flag(const Napi::CallbackInfo& info) {
  Home& h = mine(info);
  auto set = [&](std::atomic<int32_t>* flag) {
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
  set(static_cast<std::atomic<int32_t>*>(data));
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
      const bool fake = fake_cuda_asked();
      const Backend& backend = fake ? open_fake_cuda(runtimes[0]->backend) : open_cuda(index);
      runtimes[1] = new Runtime(h, backend, 1, fake ? copies_of_fake_cuda() : copies_of_cuda());
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
  export_calls(env, exports);
  export_reads(env, exports);
  export_loads(env, exports);
  export_recordings(env, exports);
  exports.Set("open", Napi::Function::New(env, open, "open"));
  exports.Set("openDevice", Napi::Function::New(env, open_device, "openDevice"));
  exports.Set("stats", Napi::Function::New(env, stats, "stats"));
  exports.Set("profile", Napi::Function::New(env, profile, "profile"));
  exports.Set("state", Napi::Function::New(env, state, "state"));
  exports.Set("resetPeak", Napi::Function::New(env, reset_peak, "resetPeak"));
  exports.Set("trim", Napi::Function::New(env, trim, "trim"));
  exports.Set("recover", Napi::Function::New(env, recover, "recover"));
  exports.Set("updateBegin", Napi::Function::New(env, update_begin, "updateBegin"));
  exports.Set("updateEnd", Napi::Function::New(env, update_end, "updateEnd"));
  exports.Set("strikeAfter", Napi::Function::New(env, strike_after, "strikeAfter"));
  exports.Set("setInterruptFlag", Napi::Function::New(env, set_interrupt_flag, "setInterruptFlag"));
  return exports;
}

}  // namespace
}  // namespace tunebook

static Napi::Object tunebook_init(Napi::Env env, Napi::Object exports) { return tunebook::init(env, exports); }
NODE_API_MODULE(tunebook, tunebook_init)
