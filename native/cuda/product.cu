// Sums of large products in one kernel (product_wgmma.cuh): which it takes, and the descriptions by which the device copies their matrices.
#include "gemm.h"
#include "product_wgmma.cuh"
#include "vector.cuh"

namespace tunebook {
namespace cuda {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                            CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's function, or nullptr where the driver has none.
Encode encoder() {
  static const Encode found = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult state = cudaDriverEntryPointSymbolNotFound;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &state) != cudaSuccess) cudaGetLastError();
    return state == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(f) : nullptr;
  }();
  return found;
}

// rows x cols of 16-bit items, copied in boxes of box_rows x 64 columns.
CUtensorMap map_of(const void* data, DType type, int64_t rows, int64_t cols, int64_t ld, int box_rows) {
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)}, strides[1] = {static_cast<cuuint64_t>(ld) * 2};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)}, steps[2] = {1, 1};
  const CUresult result = encoder()(&map, type == DType::BFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, const_cast<void*>(data),
                                    sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                    CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    fail("the CUDA driver (error %d) cannot describe a matrix of %lld x %lld with rows %lld apart at %p", (int)result, (long long)rows, (long long)cols, (long long)ld,
         data);
  }
  return map;
}

// What the copies ask of a matrix: whole chunks of 16 bytes.
bool copies(const Matrix& x) { return aligned(16, x.data) && x.ld % 8 == 0; }

template <class T, int kColumns> void launch_tiles(const product::Args& p, bool down) {
  using product::multiply_tiles;
  const auto kernel = down ? (p.bias ? multiply_tiles<T, kColumns, true, true> : multiply_tiles<T, kColumns, true, false>)
                           : (p.bias ? multiply_tiles<T, kColumns, false, true> : multiply_tiles<T, kColumns, false, false>);
  launch("linear_update", kernel, 2 * min(device.multiprocessors / 2, p.pairs * p.columns), product::kBlock, product::Tiles<kColumns>::kBytes, p);
}

// Clusters take tiles in turns: whether at least three quarters of them have work all the time.
bool keeps_busy(const Product& p, int columns) {
  const int64_t tiles = blocks_for(p.m, 2 * product::kRows) * blocks_for(p.n, columns), clusters = device.multiprocessors / 2;
  return 4 * tiles >= 3 * clusters * blocks_for(tiles, clusters);
}

int columns_of_tiles(const Product& p) { return keeps_busy(p, product::kWide) ? product::kWide : product::kNarrow; }

// Sums of so many terms, beside the last part's, are over before what is idle counts: longer ones are left to kernels that share a sum between blocks.
constexpr int64_t kShortSum = 4096;

}  // namespace

bool has_parts_kernel(const Product& p, const Part* parts, int count) {
  const DType type = p.y.dtype;
  if (!has_wgmma() || type == DType::Float32 || p.batch != 1 || p.alpha != 1.0f || p.beta != 0.0f || count > kMostParts) return false;
  // Few rows have kernels that read a weight of codes without restoring it.
  if (p.m <= kFewRows || p.m >= 1 << 30 || p.n >= 1 << 30 || p.n % 8 != 0 || !copies({p.y.data, type, p.ldy})) return false;
  int64_t all_terms = 0;
  for (int i = 0; i < count; ++i) {
    const auto& [a, b, terms] = parts[i];
    if (i < count - 1) all_terms += terms;
    if (a.dtype != type || b.dtype != type || a.transposed || b.transposed != parts[0].b.transposed || !copies(a) || !copies(b)) return false;
    // A step takes 64 terms of one part, the last part's may be fewer.
    if (terms <= 0 || terms >= 1 << 28 || (i < count - 1 && terms < product::kTerms)) return false;
  }
  return parts[0].terms >= product::kTerms && (all_terms <= kShortSum || keeps_busy(p, columns_of_tiles(p))) && encoder() != nullptr;
}

void multiply_parts(const Product& p, const Part* parts, int count) {
  const DType type = p.y.dtype;
  const int columns = columns_of_tiles(p);
  product::Args args = {};
  for (int i = 0; i < count; ++i) {
    const auto& [a, b, terms] = parts[i];
    const bool last = i == count - 1;
    args.a[i] = map_of(a.data, type, p.m, terms, a.ld, product::kRows);
    args.b[i] = b.transposed ? map_of(b.data, type, p.n, terms, b.ld, columns / 2) : map_of(b.data, type, terms, p.n, b.ld, product::kTerms);
    args.steps += static_cast<int>(last ? terms / product::kTerms : blocks_for(terms, product::kTerms));
    args.ends[i] = last ? INT32_MAX : args.steps;
    if (last) args.last_sixteens = static_cast<int>(blocks_for(terms % product::kTerms, 16));
  }
  args.y = map_of(p.y.data, type, p.m, p.n, p.ldy, 16);
  args.bias = p.bias.data;
  args.n = static_cast<int>(p.n);
  args.pairs = static_cast<int>(blocks_for(p.m, 2 * product::kRows));
  args.columns = static_cast<int>(blocks_for(p.n, columns));
  const bool down = !parts[0].b.transposed;
  const bool wide = columns == product::kWide;
  if (type == DType::BFloat16) (wide ? launch_tiles<__nv_bfloat16, product::kWide> : launch_tiles<__nv_bfloat16, product::kNarrow>)(args, down);
  else (wide ? launch_tiles<__half, product::kWide> : launch_tiles<__half, product::kNarrow>)(args, down);
}

}  // namespace cuda
}  // namespace tunebook
