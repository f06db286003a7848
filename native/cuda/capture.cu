// Ops as one CUDA graph. While the stream is captured nothing may be allocated or waited for on this thread (scratch() refuses to grow), ops pass their
// integers and addresses by value, and faults go to the records that captured ops keep (device.cu). Other threads may allocate meanwhile: the capture
// concerns this thread alone. What cannot be captured is said by cudaStreamEndCapture, and the caller launches op by op then.
#include "device.cuh"

namespace tunebook {
namespace cuda {
namespace {

void capture_begin() {
  bind_thread();
  check(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "capturing a graph");
}

void* capture_end(bool keep) {
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(device.stream, &graph);
  if (!keep || ended != cudaSuccess) {
    if (graph != nullptr) cudaGraphDestroy(graph);
    if (keep) check(ended, "capturing a graph");
    cudaGetLastError();  // an op's own error has been reported
    return nullptr;
  }
  cudaGraphExec_t made = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "making a graph");
  return made;
}

void graph_launch(void* graph) { check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), device.stream), "launching a graph"); }

void graph_free(void* graph) {
  cudaSetDevice(device.index);  // by any thread, of a lost device too: nothing here fails
  cudaStreamSynchronize(device.stream);  // it may still run
  cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

}  // namespace

void register_capture(Backend& b) {
  b.capture_begin = capture_begin;
  b.capture_end = capture_end;
  b.graph_launch = graph_launch;
  b.graph_free = graph_free;
  b.capture_generation = scratch_generation;
}

}  // namespace cuda
}  // namespace tunebook
