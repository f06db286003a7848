// Recordings of ops at the boundary: made between recordBegin and recordEnd, launched by number, freed by number.
#include <cstdio>

#include "runtime.h"

namespace tunebook {

void abandon_recording(Runtime* r) {
  Graph* graph = r->recording;
  if (graph == nullptr) return;
  r->recording = nullptr;
  r->queue.record_end();
  r->memory.drop(*graph);
  delete graph;  // it was never launched
}

namespace {

// recordBegin(device): what is enqueued from now on is run, and kept to be run again.
void record_begin(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  abandon_recording(r);
  Graph* graph = new Graph;
  graph->id = r->next_graph++;
  r->recording = graph;
  r->memory.record_begin(graph);
  r->queue.record_begin(graph);
}

// recordEnd(device, keep) -> { id, digest, ops, obstacle }, or null without `keep`.
Napi::Value record_end(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Runtime* r = of_device(info);
  if (r->recording == nullptr) throw Napi::Error::New(env, "nothing is being recorded");
  if (!info[1].ToBoolean().Value()) {
    abandon_recording(r);
    return env.Null();
  }
  Graph* graph = r->recording;
  r->recording = nullptr;
  r->queue.record_end();
  r->memory.record_end();
  r->graphs[graph->id] = graph;
  char digest[24];
  snprintf(digest, sizeof digest, "%016llx", (unsigned long long)graph->digest);
  Napi::Object o = Napi::Object::New(env);
  o.Set("id", Napi::Number::New(env, graph->id));
  o.Set("digest", Napi::String::New(env, digest));
  o.Set("ops", Napi::Number::New(env, static_cast<double>(graph->entries.size())));
  o.Set("obstacle", Napi::String::New(env, graph->obstacle));
  return o;
}

// recordLaunch(device, id)
void record_launch(const Napi::CallbackInfo& info) {
  Runtime* r = runtime_of(info.Env(), info[0].As<Napi::Number>().Int32Value());
  if (r == nullptr) return;
  auto found = r->graphs.find(info[1].As<Napi::Number>().Int32Value());
  if (found == r->graphs.end()) throw Napi::Error::New(info.Env(), "there is no such recording, or it has been freed");
  if (r->recording != nullptr) r->recording->spoil("a recording was launched");
  r->queue.launch(found->second);
}

// recordFree(device, id): its memory is free for what is enqueued from now on. Works on a lost device too.
void record_free(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  auto found = r->graphs.find(info[1].As<Napi::Number>().Int32Value());
  if (found == r->graphs.end()) return;
  Graph* graph = found->second;
  r->graphs.erase(found);
  r->memory.drop(*graph);
  r->queue.drop(graph);
}

// recordings(device) -> { alive, wholeLaunches, captureError }
Napi::Value recordings(const Napi::CallbackInfo& info) {
  Runtime* r = of_device(info);
  Napi::Object o = Napi::Object::New(info.Env());
  o.Set("alive", Napi::Number::New(info.Env(), static_cast<double>(r->graphs.size())));
  o.Set("wholeLaunches", Napi::Number::New(info.Env(), static_cast<double>(r->queue.whole_launches())));
  o.Set("captureError", Napi::String::New(info.Env(), r->queue.capture_error()));
  return o;
}

}  // namespace

void export_recordings(Napi::Env env, Napi::Object exports) {
  exports.Set("recordBegin", Napi::Function::New(env, record_begin, "recordBegin"));
  exports.Set("recordEnd", Napi::Function::New(env, record_end, "recordEnd"));
  exports.Set("recordLaunch", Napi::Function::New(env, record_launch, "recordLaunch"));
  exports.Set("recordFree", Napi::Function::New(env, record_free, "recordFree"));
  exports.Set("recordings", Napi::Function::New(env, recordings, "recordings"));
}

}  // namespace tunebook
