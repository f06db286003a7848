#include "runtime.h"

#include <string>

namespace tunebook {

std::mutex runtime_mutex;
Home* home = nullptr;
Runtime* runtimes[2] = {};

Home* mine(napi_env env) {
  if (home != nullptr && home->env == env) return home;
  napi_throw_error(env, "TUNEBOOK_NOT_OPEN", "The native runtime is not open in this thread.");
  return nullptr;
}

Runtime* runtime_of(napi_env env, int place) {
  if (mine(env) == nullptr) return nullptr;
  Runtime* r = runtimes[place];
  if (r == nullptr) {
    napi_throw_error(env, "TUNEBOOK_NOT_OPEN", "No GPU has been opened in this process: this tensor's handle belongs to none.");
  } else if (r->queue.lost()) {
    napi_throw(env, stopped_error(r, QueueState::Failed));
    return nullptr;
  }
  return r;
}

void throw_refused(Runtime* r, const OpError& error) {
  if (!error.lost) {
    napi_throw_error(r->home.env, "TUNEBOOK_CALL", error.message);
    return;
  }
  r->queue.lose(error);
  napi_throw(r->home.env, stopped_error(r, QueueState::Failed));
}

Home& mine(const Napi::CallbackInfo& info) {
  Home* h = mine(static_cast<napi_env>(info.Env()));
  if (h == nullptr) throw Napi::Error(info.Env(), info.Env().GetAndClearPendingException().Value());
  return *h;
}

Runtime* of_handle(const Napi::CallbackInfo& info, size_t argument) {
  Runtime* r = runtime_of(info.Env(), place_of(info[argument].As<Napi::Number>().Int32Value()));
  if (r == nullptr) throw Napi::Error(info.Env(), info.Env().GetAndClearPendingException().Value());
  return r;
}

Runtime* of_device(const Napi::CallbackInfo& info) {
  mine(info);
  const int place = info.Length() > 0 && info[0].IsNumber() ? info[0].As<Napi::Number>().Int32Value() : 0;
  if (place < 0 || place > 1 || runtimes[place] == nullptr) {
    throw Napi::Error::New(info.Env(), "device " + std::to_string(place) + " is not open (0 is the CPU, 1 the GPU once openDevice was called)");
  }
  return runtimes[place];
}

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

}  // namespace tunebook
