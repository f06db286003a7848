// cuBLASLt, opened at run time: the few entry points and numbers that products need, declared here after NVIDIA's documentation
// (https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api). The same since cuBLAS 11.4; descriptors are made by the library itself, so
// only the sizes of an algorithm and of a heuristic's answer matter.
#pragma once
#include <cuda_runtime.h>
#include <library_types.h>

#include <cstdint>

namespace tunebook {
namespace cuda {
namespace lt {

struct Context;
struct Descriptor;
struct Layout;
struct Preference;

using Status = int;  // 0: success
constexpr Status kSuccess = 0, kNotSupported = 15;
constexpr int32_t kCompute32F = 68;  // float32 sums; float32 operands enter as they are (no TF32)
constexpr int32_t kNormal = 0, kTransposed = 1;
constexpr uint32_t kNoEpilogue = 1, kBias = 4;

enum DescriptorAttribute : int {
  kTransA = 3,
  kTransB = 4,
  kEpilogue = 7,
  kBiasPointer = 8,
  kScalePointerA = 17,
  kScalePointerB = 18,
  kFastAccumulation = 25,
  kBiasType = 26,
  kScaleModeA = 31,
  kScaleModeB = 32,
};
// A float32 scale for each row of A and each column of B (8-bit floats; since 12.9).
constexpr int32_t kScalesOfRows = 3;
constexpr size_t kFirstWithScalesOfRows = 120900;
enum LayoutAttribute : int { kBatchCount = 5, kBatchStride = 6 };
enum PreferenceAttribute : int { kMaxWorkspace = 1, kReductionSchemes = 3, kAlignmentA = 5, kAlignmentB = 6, kAlignmentC = 7, kAlignmentD = 8 };
// Sums of pieces of k kept in float32 beside each other and added in a fixed order: two runs give the same bits.
constexpr uint32_t kOrderedReduction = 2;

struct Algorithm {
  uint64_t words[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  Status state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Heuristic) == 96, "as the library writes it");

struct Library {
  Status (*create)(Context**);
  Status (*destroy)(Context*);
  size_t (*version)();
  Status (*descriptor_create)(Descriptor**, int compute, cudaDataType scale);
  Status (*descriptor_destroy)(Descriptor*);
  Status (*descriptor_set)(Descriptor*, DescriptorAttribute, const void* value, size_t bytes);
  Status (*layout_create)(Layout**, cudaDataType, uint64_t rows, uint64_t cols, int64_t ld);
  Status (*layout_destroy)(Layout*);
  Status (*layout_set)(Layout*, LayoutAttribute, const void* value, size_t bytes);
  Status (*preference_create)(Preference**);
  Status (*preference_destroy)(Preference*);
  Status (*preference_set)(Preference*, PreferenceAttribute, const void* value, size_t bytes);
  Status (*heuristic)(Context*, Descriptor*, Layout* a, Layout* b, Layout* c, Layout* d, Preference*, int asked, Heuristic*, int* found);
  Status (*matmul)(Context*, Descriptor*, const void* alpha, const void* a, Layout*, const void* b, Layout*, const void* beta, const void* c, Layout*, void* d,
                   Layout*, const Algorithm*, void* workspace, size_t workspace_bytes, cudaStream_t);
};

// The library, opened on the first call. Throws OpError naming every place that was tried and what to install.
const Library& library();
// The context of the device in use.
Context* context();
// Throws OpError with the status in words.
void check(Status status, const char* what);

}  // namespace lt
}  // namespace cuda
}  // namespace tunebook
