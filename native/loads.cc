// Files into tensors: the boundary of file_loader.h.
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "runtime.h"

namespace tunebook {
namespace {

const char* name_of(int code) {
  switch (code) {
    case EIO: return "EIO";
    case EISDIR: return "EISDIR";
    case EBADF: return "EBADF";
    case ENOMEM: return "ENOMEM";
    case ESTALE: return "ESTALE";
    case ENXIO: return "ENXIO";
    case ETIMEDOUT: return "ETIMEDOUT";
    default: return "ERROR";
  }
}

// A load with the promise that waits for it. It goes through the queue as a read of nothing: when its place has been reached, and the device has done
// what was queued before, nothing uses the memory any more and reading begins; when the bytes are there it is handed to JavaScript.
struct Load : Ticket {
  FileLoad file;
  Runtime* runtime = nullptr;
  int32_t held = 0;  // a handle on the memory: it belongs to nobody else before this has ended, whatever becomes of the tensor

  ~Load() override {
    if (file.fd >= 0) close(file.fd);
  }

  static void begin(Pending* pending) {
    Load* load = static_cast<Load*>(pending);
    load->runtime->loader.add(&load->file);
  }

  static void end(FileLoad* file) {
    Load* load = static_cast<Load*>(file->context);
    load->runtime->queue.deliver(load, QueueState::Running);
  }

  napi_value arrived(Runtime* r) override {
    if (!file.failed()) return nullptr;
    if (file.refused && file.error.lost) {
      r->queue.lose(file.error);
      return stopped_error(r, QueueState::Failed);
    }
    // The message is for those who know what was read: src/tensor/load.ts.
    std::string code = "TUNEBOOK_READ", text;
    if (file.cut_at >= 0) {
      code = "TUNEBOOK_CUT";
      text = std::to_string(file.cut_at);
    } else if (file.trouble_code != 0) {
      text = std::string(name_of(file.trouble_code)) + ": " + file.trouble;
    } else if (file.refused) {
      code = "TUNEBOOK_DEVICE";
      text = file.error.message;
    } else {
      code = "TUNEBOOK_CANCELLED";
    }
    napi_env env = r->home.env;
    napi_value error;
    napi_create_error(env, Napi::String::New(env, code), Napi::String::New(env, text), &error);
    return error;
  }

  void release(Runtime* r) override { r->memory.free(held); }
};

// load(handle, byteOffset, fd, offset, bytes, group) -> Promise<void>
Napi::Value load(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Runtime* r = of_handle(info);
  const int64_t at = info[1].As<Napi::Number>().Int64Value(), bytes = info[4].As<Napi::Number>().Int64Value();
  auto load = std::make_unique<Load>();
  try {
    load->held = r->memory.view(info[0].As<Napi::Number>().Int32Value(), at, bytes, DType::UInt8);
  } catch (const OpError& error) {
    throw Napi::RangeError::New(env, std::string("load: ") + error.message);
  }
  // A descriptor of its own: the caller's may be closed, and its number be another file's, while threads still read.
  load->file.fd = fcntl(info[2].As<Napi::Number>().Int32Value(), F_DUPFD_CLOEXEC, 3);
  if (load->file.fd < 0) {
    const int code = errno;
    r->memory.free(load->held);
    Napi::Error error = Napi::Error::New(env, std::string(name_of(code)) + ": " + strerror(code));
    error.Set("code", "TUNEBOOK_READ");
    throw error;
  }
  load->file.offset = info[3].As<Napi::Number>().Int64Value();
  load->file.bytes = bytes;
  load->file.to = r->memory.find(load->held)->as<char>();
  load->file.group = info[5].As<Napi::Number>().Int32Value();
  load->file.context = load.get();
  load->file.ended = Load::end;
  load->runtime = r;
  load->reached = Load::begin;
  return enqueue_ticket(r, load.release(), nullptr);
}

// endLoads(device, group, over): cancels what is on its way; `over`: nothing is, and memory and threads may go.
void end_loads(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  const int32_t group = info[1].As<Napi::Number>().Int32Value();
  if (info[2].ToBoolean()) {
    r->loader.forget(group);
  } else {
    r->loader.cancel(group);
  }
}

}  // namespace

void export_loads(Napi::Env env, Napi::Object exports) {
  exports.Set("load", Napi::Function::New(env, load, "load"));
  exports.Set("endLoads", Napi::Function::New(env, end_loads, "endLoads"));
}

}  // namespace tunebook
