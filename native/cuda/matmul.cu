// Products by cuBLASLt. Its matrices are column-major, so the row-major y (m x n) is its n x m matrix op(b)^T op(a)^T: operands change places, nothing is copied.
//
// What a product needs besides pointers (descriptors, layouts, the kernel chosen by the library's heuristic) is a plan, kept by shape.
#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "cublaslt.h"
#include "gemm.h"

namespace tunebook {
namespace cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;
constexpr size_t kMostPlans = 4096;
constexpr int kCandidates = 8;

struct Key {
  int64_t m, n, k, lda, ldb, ldy, batch, stride_a, stride_b, stride_y;
  int32_t type, y_type, trans_a, trans_b, with_bias, with_beta;
  int32_t align_a, align_b, align_y, align_bias;
  int32_t fast, spare;
  bool operator==(const Key& o) const { return memcmp(this, &o, sizeof *this) == 0; }
};
static_assert(sizeof(Key) == 10 * 8 + 12 * 4, "no padding: keys are compared by their bytes");
struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t words[sizeof(Key) / 8], h = 0x9e3779b97f4a7c15u;
    memcpy(words, &key, sizeof key);
    for (uint64_t w : words) {
      h = (h ^ w) * 0xff51afd7ed558ccdu;
      h ^= h >> 32;
    }
    return h;
  }
};

struct Plan {
  lt::Descriptor* descriptor = nullptr;
  lt::Layout *a = nullptr, *b = nullptr, *y = nullptr;
  lt::Algorithm algorithm;
  bool found = false;
};
std::unordered_map<Key, Plan, KeyHash> plans;

cudaDataType type_of(DType t) {
  return t == DType::Float32 ? CUDA_R_32F : t == DType::BFloat16 ? CUDA_R_16BF : t == DType::UInt8 ? CUDA_R_8F_E4M3 : CUDA_R_16F;
}

int32_t alignment_of(const void* p) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  int32_t a = 256;
  while (address % a != 0) a /= 2;
  return a;
}

void destroy(Plan& p) {
  const lt::Library& l = lt::library();
  if (p.y) l.layout_destroy(p.y);
  if (p.b) l.layout_destroy(p.b);
  if (p.a) l.layout_destroy(p.a);
  if (p.descriptor) l.descriptor_destroy(p.descriptor);
  p = Plan();
}

template <class T> void set(lt::Descriptor* d, lt::DescriptorAttribute attribute, T value) {
  lt::check(lt::library().descriptor_set(d, attribute, &value, sizeof value), "describing a product");
}
template <class T> void set(lt::Preference* p, lt::PreferenceAttribute attribute, T value) {
  lt::check(lt::library().preference_set(p, attribute, &value, sizeof value), "describing a product");
}

// rows x cols as cuBLASLt counts them. A single column has no use for its stride, which may then be less than the library accepts.
lt::Layout* layout(int32_t type, int64_t rows, int64_t cols, int64_t ld, int64_t batch, int64_t stride) {
  const lt::Library& l = lt::library();
  lt::Layout* made = nullptr;
  lt::check(l.layout_create(&made, static_cast<cudaDataType>(type), static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), cols == 1 && ld < rows ? rows : ld),
            "describing a matrix");
  if (batch > 1) {
    const int32_t count = static_cast<int32_t>(batch);
    lt::check(l.layout_set(made, lt::kBatchCount, &count, sizeof count), "describing a batch");
    lt::check(l.layout_set(made, lt::kBatchStride, &stride, sizeof stride), "describing a batch");
  }
  return made;
}

// Tensors that the descriptor names may lie elsewhere at each launch.
void set_pointers(const Plan& plan, const Product& p) {
  if (p.bias) set(plan.descriptor, lt::kBiasPointer, static_cast<const void*>(p.bias.data));
  if (p.scale_a == nullptr) return;
  set(plan.descriptor, lt::kScalePointerA, static_cast<const void*>(p.scale_b));
  set(plan.descriptor, lt::kScalePointerB, static_cast<const void*>(p.scale_a));
}

lt::Status launch(const Plan& plan, const lt::Algorithm& algorithm, const Product& p, void* workspace) {
  return lt::library().matmul(lt::context(), plan.descriptor, &p.alpha, p.b.data, plan.b, p.a.data, plan.a, &p.beta, p.y.data, plan.y, p.y.data, plan.y, &algorithm,
                              workspace, kWorkspaceBytes, device.stream);
}

// TUNEBOOK_GEMM_TUNE=1: large products time the heuristic's candidates once and keep the fastest. Off otherwise: which one wins may differ from run to
// run, and with it the last bits.
bool tuning() {
  static const bool on = [] {
    const char* asked = getenv("TUNEBOOK_GEMM_TUNE");
    return asked != nullptr && strcmp(asked, "1") == 0;
  }();
  return on;
}

int fastest(const Plan& plan, const Product& p, const lt::Heuristic* candidates, int count, void* workspace) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(device.stream, &capture), "asking for a capture");
  if (p.beta != 0 || 2.0 * p.m * p.n * p.k * p.batch < 1e9 || capture != cudaStreamCaptureStatusNone) return -1;
  cudaEvent_t from, to;
  check(cudaEventCreate(&from), "timing products");
  check(cudaEventCreate(&to), "timing products");
  int best = -1;
  float best_ms = 0;
  for (int i = 0; i < count; i++) {
    if (candidates[i].state != lt::kSuccess || launch(plan, candidates[i].algorithm, p, workspace) != lt::kSuccess) continue;
    cudaEventRecord(from, device.stream);
    for (int r = 0; r < 5; r++) launch(plan, candidates[i].algorithm, p, workspace);
    cudaEventRecord(to, device.stream);
    check(cudaEventSynchronize(to), "timing products");
    float ms = 0;
    cudaEventElapsedTime(&ms, from, to);
    if (best < 0 || ms < 0.98f * best_ms) {  // a later candidate must be clearly better
      best = i;
      best_ms = ms;
    }
  }
  cudaEventDestroy(from);
  cudaEventDestroy(to);
  return best;
}

Plan make_plan(const Key& key, const Product& p, void* workspace) {
  const lt::Library& l = lt::library();
  Plan plan;
  lt::check(l.descriptor_create(&plan.descriptor, lt::kCompute32F, CUDA_R_32F), "describing a product");
  // The library's A is our b: row-major k x n is its n x k.
  set(plan.descriptor, lt::kTransA, key.trans_b ? lt::kTransposed : lt::kNormal);
  set(plan.descriptor, lt::kTransB, key.trans_a ? lt::kTransposed : lt::kNormal);
  set(plan.descriptor, lt::kEpilogue, key.with_bias ? lt::kBias : lt::kNoEpilogue);
  if (key.with_bias) set(plan.descriptor, lt::kBiasType, key.y_type);
  if (p.scale_a != nullptr) {
    set(plan.descriptor, lt::kScaleModeA, lt::kScalesOfRows);
    set(plan.descriptor, lt::kScaleModeB, lt::kScalesOfRows);
    set(plan.descriptor, lt::kFastAccumulation, static_cast<int8_t>(key.fast));
  }
  set_pointers(plan, p);
  plan.b = key.trans_b ? layout(key.type, key.k, key.n, key.ldb, key.batch, key.stride_b) : layout(key.type, key.n, key.k, key.ldb, key.batch, key.stride_b);
  plan.a = key.trans_a ? layout(key.type, key.m, key.k, key.lda, key.batch, key.stride_a) : layout(key.type, key.k, key.m, key.lda, key.batch, key.stride_a);
  plan.y = layout(key.y_type, key.n, key.m, key.ldy, key.batch, key.stride_y);
  lt::Preference* preference = nullptr;
  lt::check(l.preference_create(&preference), "choosing a kernel");
  set(preference, lt::kMaxWorkspace, static_cast<uint64_t>(kWorkspaceBytes));
  set(preference, lt::kReductionSchemes, lt::kOrderedReduction);
  set(preference, lt::kAlignmentA, static_cast<uint32_t>(key.align_b));
  set(preference, lt::kAlignmentB, static_cast<uint32_t>(key.align_a));
  set(preference, lt::kAlignmentC, static_cast<uint32_t>(key.align_y));
  set(preference, lt::kAlignmentD, static_cast<uint32_t>(key.align_y));
  lt::Heuristic candidates[kCandidates];
  memset(candidates, 0, sizeof candidates);
  int count = 0;
  const lt::Status status =
      l.heuristic(lt::context(), plan.descriptor, plan.b, plan.a, plan.y, plan.y, preference, tuning() ? kCandidates : 1, candidates, &count);
  l.preference_destroy(preference);
  if (status != lt::kSuccess && status != lt::kNotSupported && p.scale_a == nullptr) {
    destroy(plan);
    lt::check(status, "choosing a kernel");
  }
  int chosen = tuning() && status == lt::kSuccess ? fastest(plan, p, candidates, count, workspace) : -1;
  for (int i = 0; status == lt::kSuccess && chosen < 0 && i < count; i++) {
    if (candidates[i].state == lt::kSuccess) chosen = i;
  }
  plan.found = chosen >= 0;
  if (plan.found) plan.algorithm = candidates[chosen].algorithm;
  return plan;
}

}  // namespace

bool matmul(const Product& p) {
  Key key = {};
  key.m = p.m;
  key.n = p.n;
  key.k = p.k;
  key.lda = p.a.ld;
  key.ldb = p.b.ld;
  key.ldy = p.ldy;
  key.batch = p.batch;
  key.stride_a = p.batch > 1 ? p.a.stride : 0;
  key.stride_b = p.batch > 1 ? p.b.stride : 0;
  key.stride_y = p.batch > 1 ? p.stride_y : 0;
  key.type = type_of(p.a.dtype);
  key.y_type = type_of(p.y.dtype);
  key.trans_a = p.a.transposed;
  key.trans_b = p.b.transposed;
  key.with_bias = p.bias ? 1 : 0;
  key.with_beta = p.beta != 0;
  key.align_a = alignment_of(p.a.data);
  key.align_b = alignment_of(p.b.data);
  key.align_y = alignment_of(p.y.data);
  key.align_bias = p.bias ? alignment_of(p.bias.data) : 0;
  key.fast = p.fast ? 1 : 0;
  void* workspace = scratch(kWorkspace, kWorkspaceBytes);
  auto found = plans.find(key);
  if (found == plans.end()) {
    if (plans.size() >= kMostPlans) {
      for (auto& entry : plans) destroy(entry.second);
      plans.clear();
    }
    found = plans.emplace(key, make_plan(key, p, workspace)).first;
  }
  const Plan& plan = found->second;
  if (!plan.found) {
    if (p.bias || p.scale_a != nullptr) return false;
    fail("cuBLASLt has no kernel for a product of %lld x %lld x %lld (lda %lld, ldb %lld, ldy %lld, batch %lld)", (long long)p.m, (long long)p.n, (long long)p.k,
         (long long)p.a.ld, (long long)p.b.ld, (long long)p.ldy, (long long)p.batch);
  }
  set_pointers(plan, p);
  lt::check(launch(plan, plan.algorithm, p, workspace), "a matrix product");
  return true;
}

}  // namespace cuda
}  // namespace tunebook
