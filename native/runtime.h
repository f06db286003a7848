// What the files of the boundary share: the runtime of each device and how errors reach JavaScript. They alone include node-addon-api.
#pragma once
#define NAPI_CPP_EXCEPTIONS 1
#include <napi.h>

#include <atomic>
#include <map>
#include <mutex>

#include "allocator.h"
#include "backend.h"
#include "file_loader.h"
#include "queue.h"

namespace tunebook {

constexpr size_t kSharedBytes = size_t{256} << 10;  // of the buffer that commands stand in

// What belongs to the JavaScript thread that opened the runtime.
struct Home {
  napi_env env = nullptr;
  int32_t* words = nullptr;
  napi_ref shared = nullptr, make_error = nullptr, interrupt_flag = nullptr;
  std::atomic<int32_t>* interrupt = nullptr;
  napi_threadsafe_function wake = nullptr;
  int64_t outstanding = 0;
};

// One device: its queue and its memory.
struct Runtime {
  Home& home;
  const int place;
  const Backend& backend;
  FileLoader loader;
  Queue queue;
  Allocator memory;
  std::map<int32_t, Graph*> graphs;  // recordings, by their numbers
  Graph* recording = nullptr;        // the one that is being made
  int32_t next_graph = 1;

  Runtime(Home& h, const Backend& b, int p, const Copies* copies = nullptr)
      : home(h),
        place(p),
        backend(b),
        loader(b, copies),
        queue(b, [](void* self) { napi_call_threadsafe_function(static_cast<Runtime*>(self)->home.wake, nullptr, napi_tsfn_nonblocking); }, this),
        memory(b,
               {[](void* self, void* data, int64_t bytes) { static_cast<Runtime*>(self)->queue.release(data, bytes); },
                [](void* self) { static_cast<Runtime*>(self)->queue.wait_idle(); }, this},
               p) {}
  // Readers of files end first, then the queue, then memory; members would end in another order.
  ~Runtime() {
    loader.stop();
    queue.end();
    delete recording;
    for (auto& [id, graph] : graphs) {
      if (graph->captured != nullptr) backend.graph_free(graph->captured);
      delete graph;
    }
  }
};

// One process has one queue a device. They belong to the thread (Node environment) that opened them first.
extern std::mutex runtime_mutex;
extern Home* home;
extern Runtime* runtimes[2];  // by the device of a handle

// Each returns nullptr with an exception pending, or throws it:
Home* mine(napi_env env);  // of the calling thread
Home& mine(const Napi::CallbackInfo& info);
Runtime* runtime_of(napi_env env, int place);                               // for calls that start work on it
Runtime* of_handle(const Napi::CallbackInfo& info, size_t argument = 0);    // of the handle in an argument
Runtime* of_device(const Napi::CallbackInfo& info);  // of the device number in the first argument, 0 when there is none; it may be lost

// An error object for what stopped the queue: makeError(kind, message, number of the op, device, "" | "lost" | "memory").
napi_value stopped_error(Runtime* r, QueueState state);
// Throws what an op, or the device, refused.
void throw_refused(Runtime* r, const OpError& error);

// Something that a promise waits for. Made and settled on the JavaScript thread.
struct Ticket : Pending {
  napi_deferred deferred = nullptr;
  virtual ~Ticket() = default;
  // Called when its outcome is Running: takes over what came, and returns the error to reject with, or nullptr.
  virtual napi_value arrived(Runtime*) { return nullptr; }
  // Gives back what it held.
  virtual void release(Runtime*) {}
};
// Queues a ticket, reading `from` where its staging says so, and returns its promise.
Napi::Value enqueue_ticket(Runtime* r, Ticket* ticket, const void* from);

void on_wake(napi_env env, napi_value, void*, void*);  // settles promises whose reads have been done
void export_calls(Napi::Env env, Napi::Object exports);
// Ends the recording that is being made, if there is one, and forgets it: an interrupted cell skips what would have ended it.
void abandon_recording(Runtime* r);
void export_recordings(Napi::Env env, Napi::Object exports);
void export_reads(Napi::Env env, Napi::Object exports);
void export_loads(Napi::Env env, Napi::Object exports);

}  // namespace tunebook
