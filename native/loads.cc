// Files into tensors: the boundary of file_loader.h.
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "block_planes.h"
#include "runtime.h"
#include "super_blocks.h"

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
  std::vector<int32_t> held;  // handles on the memory: it belongs to nobody else before this has ended, whatever becomes of the tensors
  BlockPlanes planes;
  Restored restored;

  ~Load() override {
    if (file.fd >= 0) close(file.fd);
  }

  static void begin(Pending* pending) {
    Load* load = static_cast<Load*>(pending);
    load->runtime->loader.add(&load->file);
  }

  static void end(FileLoad* file) {
    Load* load = static_cast<Load*>(file->owner);
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

  void release(Runtime* r) override {
    for (const int32_t handle : held) r->memory.free(handle);
  }

  // A part of a tensor's memory, held.
  char* hold(const Napi::Value& handle, int64_t at, int64_t bytes) {
    held.push_back(runtime->memory.view(handle.As<Napi::Number>().Int32Value(), at, bytes, DType::UInt8));
    runtime->memory.block(held.back())->fill();
    return runtime->memory.find(held.back())->as<char>();
  }
};

int64_t integer(const Napi::Value& value) { return value.As<Napi::Number>().Int64Value(); }

// Begins a load: `hold` says what it fills. Arguments from `first` on: fd, offset, bytes, group.
template <class Hold>
Napi::Value begin_load(const Napi::CallbackInfo& info, size_t first, Hold hold) {
  Napi::Env env = info.Env();
  auto load = std::make_unique<Load>();
  load->runtime = of_handle(info);
  load->file.offset = integer(info[first + 1]);
  load->file.bytes = integer(info[first + 2]);
  load->file.group = info[first + 3].As<Napi::Number>().Int32Value();
  load->file.owner = load.get();
  load->file.ended = Load::end;
  load->reached = Load::begin;
  try {
    hold(*load);
  } catch (const OpError& error) {
    load->release(load->runtime);
    throw Napi::RangeError::New(env, std::string("load: ") + error.message);
  }
  // A descriptor of its own: the caller's may be closed, and its number be another file's, while threads still read.
  load->file.fd = fcntl(info[first].As<Napi::Number>().Int32Value(), F_DUPFD_CLOEXEC, 3);
  if (load->file.fd < 0) {
    const int code = errno;
    load->release(load->runtime);
    Napi::Error error = Napi::Error::New(env, std::string(name_of(code)) + ": " + strerror(code));
    error.Set("code", "TUNEBOOK_READ");
    throw error;
  }
  Runtime* r = load->runtime;
  return enqueue_ticket(r, load.release(), nullptr);
}

// load(handle, fd, offset, bytes, group) -> Promise<void>
Napi::Value load(const Napi::CallbackInfo& info) {
  return begin_load(info, 1, [&](Load& load) { load.file.to = load.hold(info[0], 0, load.file.bytes); });
}

// Rows that are read in blocks of `unit` bytes and `elements` elements.
int64_t rows_in(Load& load, int64_t unit, int64_t elements, int64_t columns, int64_t head_rows) {
  if (load.runtime->place != 0) fail("blocks are taken apart in the CPU's memory");
  load.file.unit = unit;
  return rows_of_blocks(load.file.bytes, unit, elements, columns, head_rows);
}

// loadBlocks(codes, scale, minimum | 0, fd, offset, bytes, group, kind, columns, rows of a head | 0) -> Promise<void>, into the CPU's memory.
Napi::Value load_blocks(const Napi::CallbackInfo& info) {
  return begin_load(info, 3, [&](Load& load) {
    const int64_t kind = integer(info[7]), columns = integer(info[8]), head_rows = integer(info[9]);
    if (kind < 0 || kind > 2) fail("%lld is no kind of block", (long long)kind);
    BlockPlanes& p = load.planes;
    p.kind = static_cast<BlockKind>(kind);
    const int64_t blocks = rows_in(load, bytes_of_block(p.kind), 32, columns, head_rows) * (columns / 32);
    p.row_blocks = columns / 32;
    p.head_rows = head_rows;
    p.codes = reinterpret_cast<uint8_t*>(load.hold(info[0], 0, blocks * (p.kind == BlockKind::Q8_0 ? 32 : 16)));
    p.scale = reinterpret_cast<uint16_t*>(load.hold(info[1], 0, blocks * 2));
    if (p.kind != BlockKind::Q8_0) p.minimum = reinterpret_cast<uint16_t*>(load.hold(info[2], 0, blocks * 2));
    load.file.place = place_blocks;
    load.file.context = &p;
  });
}

// loadRestored(handle, fd, offset, bytes, group, kind, columns, rows of a head | 0) -> Promise<void>: blocks as float32, into the CPU's memory.
Napi::Value load_restored(const Napi::CallbackInfo& info) {
  return begin_load(info, 1, [&](Load& load) {
    const int64_t kind = integer(info[5]), columns = integer(info[6]), head_rows = integer(info[7]);
    if (kind < 0 || kind >= kSuperKinds) fail("%lld is no kind of block", (long long)kind);
    Restored& r = load.restored;
    r.kind = static_cast<SuperKind>(kind);
    const int64_t elements = elements_of_super(r.kind), rows = rows_in(load, bytes_of_super(r.kind), elements, columns, head_rows);
    r.row_blocks = columns / elements;
    r.head_rows = head_rows;
    r.to = reinterpret_cast<float*>(load.hold(info[0], 0, rows * columns * 4));
    load.file.place = place_restored;
    load.file.context = &r;
  });
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
  exports.Set("loadBlocks", Napi::Function::New(env, load_blocks, "loadBlocks"));
  exports.Set("loadRestored", Napi::Function::New(env, load_restored, "loadRestored"));
  exports.Set("endLoads", Napi::Function::New(env, end_loads, "endLoads"));
}

}  // namespace tunebook
