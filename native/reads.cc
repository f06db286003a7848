// Bytes in and out of tensors, and the promises of reads.
#include <cstdlib>
#include <cstring>
#include <string>

#include "runtime.h"

namespace tunebook {
namespace {

// A read on its way, with the typed array that waits for it.
struct Read : Ticket {
  napi_ref into = nullptr;

  napi_value arrived(Runtime* r) override {
    napi_env env = r->home.env;
    napi_value array, buffer, error = nullptr;
    void* data = nullptr;
    size_t length = 0, offset = 0;
    napi_typedarray_type type;
    napi_get_reference_value(env, into, &array);
    // The length is asked again: the array may have been transferred away since.
    size_t there = 0;
    if (napi_get_typedarray_info(env, array, &type, &length, &data, &buffer, &offset) == napi_ok) {
      const size_t width[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
      there = length * width[type];
    }
    if (there < static_cast<size_t>(bytes)) {
      napi_value message;
      napi_create_string_utf8(env, "the typed array of this download was detached before the data arrived", NAPI_AUTO_LENGTH, &message);
      napi_create_error(env, nullptr, message, &error);
    } else {
      memcpy(data, staging, static_cast<size_t>(bytes));
    }
    return error;
  }

  void release(Runtime* r) override {
    napi_delete_reference(r->home.env, into);
    if (r->backend.free_host != nullptr) {
      r->backend.free_host(staging, bytes);
    } else {
      ::free(staging);
    }
  }
};

void settle_ticket(Runtime* r, Ticket* ticket) {
  napi_env env = r->home.env;
  napi_value error = ticket->outcome != QueueState::Running ? stopped_error(r, ticket->outcome) : ticket->arrived(r);
  if (error != nullptr) {
    napi_reject_deferred(env, ticket->deferred, error);
  } else {
    napi_value undefined;
    napi_get_undefined(env, &undefined);
    napi_resolve_deferred(env, ticket->deferred, undefined);
  }
  ticket->release(r);
  delete ticket;
  if (--r->home.outstanding == 0) napi_unref_threadsafe_function(env, r->home.wake);
}

[[noreturn]] void refuse(Runtime* r, const OpError& error) {
  throw_refused(r, error);
  Napi::Env env = r->home.env;
  throw Napi::Error(env, env.GetAndClearPendingException().Value());
}

const Ref& tensor(Runtime* r, const Napi::CallbackInfo& info, const char* what, size_t argument = 0) {
  const Ref* ref = r->memory.find(info[argument].As<Napi::Number>().Int32Value());
  if (ref == nullptr) throw Napi::Error::New(info.Env(), std::string(what) + ": the tensor has been freed");
  return *ref;
}

// A tensor that is read: what it should hold must have been computed.
const Ref& computed(Runtime* r, const Napi::CallbackInfo& info, const char* what) {
  const Ref& ref = tensor(r, info, what);
  const char* lost = r->queue.lost_work(*r->memory.block(info[0].As<Napi::Number>().Int32Value()));
  if (lost == nullptr) return ref;
  try {
    never_computed(what, "the tensor", lost);
  } catch (const OpError& error) {
    refuse(r, error);
  }
}

// What it holds from now on came from elsewhere.
void filled(Runtime* r, const Napi::CallbackInfo& info, size_t argument = 0) {
  r->memory.block(info[argument].As<Napi::Number>().Int32Value())->fill();
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

void upload(const Napi::CallbackInfo& info) {
  Runtime* r = of_handle(info);
  const Ref& ref = tensor(r, info, "upload");
  const Bytes from = typed_array(info, ref, "upload");
  filled(r, info);
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
  const Ref from = computed(source, info, "transfer"), to = tensor(target, info, "transfer", 1);
  if (from.bytes != to.bytes) {
    throw Napi::RangeError::New(info.Env(), "transfer: a tensor of " + std::to_string(from.bytes) + " bytes does not fit one of " + std::to_string(to.bytes));
  }
  if (source == target) throw Napi::Error::New(info.Env(), "transfer: both tensors are on the same device: use the op copy");
  finish(source, info.Env());
  filled(target, info, 1);
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
  const Ref& ref = computed(r, info, "download");
  const Bytes into = typed_array(info, ref, "download");
  Read* ticket = new Read;
  ticket->bytes = into.count;
  const int64_t bytes = into.count > 0 ? into.count : 1;
  ticket->staging = r->backend.alloc_host != nullptr ? r->backend.alloc_host(bytes) : malloc(static_cast<size_t>(bytes));
  if (ticket->staging == nullptr) {
    delete ticket;
    throw Napi::Error::New(info.Env(), "download: out of memory for " + std::to_string(into.count) + " bytes");
  }
  napi_create_reference(info.Env(), info[1], 1, &ticket->into);
  return enqueue_ticket(r, ticket, static_cast<char*>(ref.data) + into.offset);
}

Napi::Value settle(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  return enqueue_ticket(r, new Ticket, nullptr);
}

void sync(const Napi::CallbackInfo& info) { finish(of_device(info), info.Env()); }

}  // namespace

Napi::Value enqueue_ticket(Runtime* r, Ticket* ticket, const void* from) {
  napi_value promise;
  napi_create_promise(r->home.env, &ticket->deferred, &promise);
  if (r->home.outstanding++ == 0) napi_ref_threadsafe_function(r->home.env, r->home.wake);  // keeps the process alive until it is settled
  r->queue.download(ticket, from);
  return Napi::Value(r->home.env, promise);
}

void on_wake(napi_env env, napi_value, void*, void*) {
  if (env == nullptr || home == nullptr || home->env != env) return;
  for (Runtime* r : runtimes) {
    if (r == nullptr) continue;
    for (Pending* pending : r->queue.finished()) settle_ticket(r, static_cast<Ticket*>(pending));
  }
}

void export_reads(Napi::Env env, Napi::Object exports) {
  exports.Set("upload", Napi::Function::New(env, upload, "upload"));
  exports.Set("download", Napi::Function::New(env, download, "download"));
  exports.Set("transfer", Napi::Function::New(env, transfer, "transfer"));
  exports.Set("settle", Napi::Function::New(env, settle, "settle"));
  exports.Set("sync", Napi::Function::New(env, sync, "sync"));
}

}  // namespace tunebook
