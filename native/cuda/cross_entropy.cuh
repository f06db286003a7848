// Cross entropy of rows of logits that stand in device memory, for the op itself and for the linear head fused with it.
#pragma once
#include "device.cuh"

namespace tunebook {
namespace cuda {

struct CrossEntropyRows {
  void* logits;  // rows x vocab, `stride` elements apart; with `gradient` overwritten by scale * d(loss)/d(logits)
  DType dtype;   // of the logits: float32, bfloat16 or float16
  int64_t rows, vocab, stride;
  const int32_t* labels;   // one a row; -100: loss 0 and a gradient of zeros
  float* loss;             // one a row
  float* lse = nullptr;    // one a row, if wanted: log-sum-exp, 0 where there is no label
  bool gradient = false;
  float scale = 1.0f, smoothing = 0.0f;
  int64_t first_row = 0;   // what a fault adds to the row's number
};

// Launches on the device's stream. A row is read once from device memory (online maximum and sum); where the gradient is wanted, as much of
// it as shared memory holds waits there, the rest comes back from the second-level cache. A label outside [0, vocab) is a fault.
void cross_entropy_rows(const CrossEntropyRows& a);

}  // namespace cuda
}  // namespace tunebook
