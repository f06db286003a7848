// A few rows of activations against a 4-bit weight (decoding text): bound by reading the codes, so they go straight from memory into tensor-core operands.
//
// A warp takes 16 rows of W and 128 columns at a time: lane 4g + t reads the 16 bytes of columns 32t .. 32t+31 of rows g and g + 8. A byte is a pair of neighbouring
// elements, and one look-up turns it into a pair of 16-bit values: the table of 256 pairs stands in shared memory once for each lane, in that lane's bank. Eight
// products mma.m16n8k16 then sum over these columns; which k of the product a column is does not matter as long as the activations are arranged alike.
//
// Scales belong to 64 columns, two lanes' worth. The eight columns of the product therefore hold up to four rows of activations twice: columns 0-3 with the
// activations of the first 64 columns (and zeros for the others), columns 4-7 with those of the second, so that their sums stay apart until each has met its scale.
//
// Eight warps of a block share the columns of the same 16 rows; their sums are added in a fixed order.
#include "nf4.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kWarps = 8, kRows = 16, kUnit = 256;  // columns that a warp takes at a time: two steps of 128, four blocks of 64
constexpr int blocks_at_once(int groups) { return groups == 1 ? 3 : 2; }  // on one multiprocessor, by registers

struct Task {
  Nf4 w;
  int64_t rows, cols;
  const void* a;
  int64_t lda;
  int m;
  void* y;
  int64_t ldy;
  float alpha, beta;
  const void* bias;
};

template <class T> __device__ inline uint32_t pair_of(float low, float high);
template <> __device__ inline uint32_t pair_of<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 p = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&p);
}
template <> __device__ inline uint32_t pair_of<__half>(float low, float high) {
  const __half2 p = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&p);
}

template <class T> __device__ inline void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1);
template <> __device__ inline void mma<__nv_bfloat16>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <> __device__ inline void mma<__half>(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// What a lane reads of a unit: codes of two rows in two steps, and the scales' bytes (doubly quantised) or values of its blocks.
struct Unit {
  uint4 q[2][2];       // [step][row half]
  uint32_t scale[2][2];  // [step][row half]: a code of the dynamic map, or the bits of a float32
  float scale2[2];     // [row half]; with kWords alone
};

// kWords: a row has a multiple of 256 columns and blocks of 64, so that a lane reads the four scales of a unit at once.
template <bool kWords>
__device__ inline void load(Unit& u, const Task& task, int64_t row0, int64_t unit, int g, int t) {
  const Nf4& w = task.w;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int64_t row = min(row0 + g + 8 * half, task.rows - 1);  // rows past the end are read twice, never written
    const int64_t first = row * task.cols + unit * kUnit;
#pragma unroll
    for (int step = 0; step < 2; step++) {
      const int64_t column = unit * kUnit + 128 * step + 32 * t;
      if (kWords || column < task.cols) {
        u.q[step][half] = __ldcs(reinterpret_cast<const uint4*>(w.q + (first + 128 * step + 32 * t) / 2));
      } else {
        u.q[step][half] = make_uint4(0, 0, 0, 0);
      }
    }
    if (kWords) {
      const int64_t b = first >> 6;
      if (w.absmax8 != nullptr) {
        const uint32_t four = *reinterpret_cast<const uint32_t*>(w.absmax8 + b) >> (8 * (t >> 1));
        u.scale[0][half] = four & 255u;
        u.scale[1][half] = four >> 16 & 255u;
        u.scale2[half] = w.absmax2[b >> 8];
      } else {
        u.scale[0][half] = __float_as_uint(w.absmax[b + (t >> 1)]);
        u.scale[1][half] = __float_as_uint(w.absmax[b + 2 + (t >> 1)]);
      }
    }
  }
}

template <bool kWords>
__device__ inline float scale_of(const Unit& u, const Task& task, int64_t row0, int64_t unit, int g, int t, int step, int half, const float* map, float base) {
  const Nf4& w = task.w;
  if (kWords) {
    if (w.absmax8 == nullptr) return __uint_as_float(u.scale[step][half]);
    return __fadd_rn(__fmul_rn(map[u.scale[step][half]], u.scale2[half]), base);
  }
  const int64_t column = unit * kUnit + 128 * step + 64 * (t >> 1);
  if (column >= task.cols) return 0.0f;
  return w.scale(w.block_of(min(row0 + g + 8 * half, task.rows - 1) * task.cols + column), map, base);
}

// kGroups: four rows of activations each.
template <class T, class Y, class B, int kGroups, bool kWords>
__global__ void __launch_bounds__(32 * kWarps, blocks_at_once(kGroups)) rows_times_weight(const Task task, const __grid_constant__ Nf4Tables tables) {
  __shared__ uint32_t pairs[256 * 32];
  __shared__ float map[256];
  __shared__ float parts[2][kWarps][4 * kGroups][kRows];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int64_t units = (task.cols + kUnit - 1) / kUnit, tiles = (task.rows + kRows - 1) / kRows;

  // The first codes are on their way while the tables are filled.
  Unit next;
  int64_t tile = blockIdx.x, unit = warp;
  if (unit < units) load<kWords>(next, task, tile * kRows, unit, g, t);
  for (int i = 0; i < 256 / kWarps; i++) {
    const int byte = warp * (256 / kWarps) + i;
    pairs[byte * 32 + lane] = pair_of<T>(tables.codes[byte >> 4], tables.codes[byte & 15]);
  }
  map[threadIdx.x] = tables.map[threadIdx.x];
  const float base = task.w.base();
  __syncthreads();

  const char* table = reinterpret_cast<const char*>(pairs);
  const uint32_t bank = 4 * lane;
  auto look_up = [&](uint32_t shifted) { return *reinterpret_cast<const uint32_t*>(table + ((shifted & 0x7f80u) | bank)); };
  // Whose activations this lane brings: row g % 4 of a group, if its columns belong to the half that column g of the product stands for.
  const bool brings = (t < 2) == (g < 4);
  const T* activations = static_cast<const T*>(task.a) + (int64_t)(g & 3) * task.lda + 32 * t;

  for (int turn = 0; tile < tiles; turn ^= 1) {
    float acc[kGroups][4] = {};
    for (; unit < units;) {
      const Unit now = next;
      const int64_t at = unit, row0 = tile * kRows;
      // The next unit of this tile, or the first of the next one.
      unit += kWarps;
      const bool more = unit < units;
      const int64_t next_tile = more ? tile : tile + gridDim.x, next_unit = more ? unit : warp;
      if (next_tile < tiles) load<kWords>(next, task, next_tile * kRows, next_unit, g, t);
#pragma unroll
      for (int step = 0; step < 2; step++) {
        float c[kGroups][4] = {};
        const int64_t column = at * kUnit + 128 * step;
        const bool inside = kWords || column + 32 * t < task.cols;
        const uint32_t* top = reinterpret_cast<const uint32_t*>(&now.q[step][0]);
        const uint32_t* bottom = reinterpret_cast<const uint32_t*>(&now.q[step][1]);
#pragma unroll
        for (int j = 0; j < 4; j++) {  // a word of codes: two products
          uint4 b[kGroups];
#pragma unroll
          for (int k = 0; k < kGroups; k++) {
            b[k] = make_uint4(0, 0, 0, 0);
            if (brings && inside && 4 * k + (g & 3) < task.m) b[k] = *reinterpret_cast<const uint4*>(activations + 4 * k * task.lda + column + 8 * j);
          }
          const uint32_t p = top[j], q = bottom[j];
          const uint32_t a0 = look_up(p << 7), a1 = look_up(q << 7), a2 = look_up(p >> 1), a3 = look_up(q >> 1);
#pragma unroll
          for (int k = 0; k < kGroups; k++) mma<T>(c[k], a0, a1, a2, a3, b[k].x, b[k].y);
          const uint32_t d0 = look_up(p >> 9), d1 = look_up(q >> 9), d2 = look_up(p >> 17), d3 = look_up(q >> 17);
#pragma unroll
          for (int k = 0; k < kGroups; k++) mma<T>(c[k], d0, d1, d2, d3, b[k].z, b[k].w);
        }
        // Sums of rows g (c0, c1) and g + 8 (c2, c3), columns 2t and 2t + 1: those of lanes t = 0, 1 stand for the first 64 columns, t = 2, 3 for the others.
        const float s0 = scale_of<kWords>(now, task, row0, at, g, t, step, 0, map, base);
        const float s1 = scale_of<kWords>(now, task, row0, at, g, t, step, 1, map, base);
#pragma unroll
        for (int k = 0; k < kGroups; k++) {
          acc[k][0] += s0 * c[k][0];
          acc[k][1] += s0 * c[k][1];
          acc[k][2] += s1 * c[k][2];
          acc[k][3] += s1 * c[k][3];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kGroups; k++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float sum = acc[k][i] + __shfl_xor_sync(0xffffffffu, acc[k][i], 2);
        if (t < 2) parts[turn][warp][4 * k + 2 * t + i % 2][g + 8 * (i / 2)] = sum;
      }
    }
    __syncthreads();
    if (threadIdx.x < 4 * kGroups * kRows) {
      const int i = threadIdx.x / kRows, r = threadIdx.x % kRows;
      const int64_t row = tile * kRows + r;
      if (i < task.m && row < task.rows) {
        float sum = 0;
#pragma unroll
        for (int v = 0; v < kWarps; v++) sum += parts[turn][v][i][r];
        Y* y = static_cast<Y*>(task.y) + i * task.ldy + row;
        float out = task.alpha * sum;
        if (task.beta != 0.0f) out += task.beta * to_float(*y);
        if (task.bias != nullptr) out += to_float(static_cast<const B*>(task.bias)[row]);
        *y = from_float<Y>(out);
      }
    }
    tile += gridDim.x;
    unit = warp;
  }
}

template <class T, class Y, class B>
void launch(const Task& task, bool words) {
  const int64_t tiles = blocks_for(task.rows, kRows);
  const unsigned grid = (unsigned)min(tiles, (int64_t)device.multiprocessors * blocks_at_once(task.m <= 4 ? 1 : 2));
  const Nf4Tables& tables = nf4_tables(task.w.kind);
  auto run = [&](auto* kernel) { kernel<<<grid, 32 * kWarps, 0, device.stream>>>(task, tables); };
  if (task.m <= 4) {
    words ? run(rows_times_weight<T, Y, B, 1, true>) : run(rows_times_weight<T, Y, B, 1, false>);
  } else {
    words ? run(rows_times_weight<T, Y, B, 2, true>) : run(rows_times_weight<T, Y, B, 2, false>);
  }
  launched("gemm_nf4");
}

template <class T>
void dispatch(const Task& task, DType y, DType bias, bool words) {
  // y is float32 or of the activations' type, and so is bias.
  const bool wide_y = y == DType::Float32, wide_bias = bias == DType::Float32;
  if (wide_y) {
    wide_bias ? launch<T, float, float>(task, words) : launch<T, float, T>(task, words);
  } else {
    wide_bias ? launch<T, T, float>(task, words) : launch<T, T, T>(task, words);
  }
}

bool aligned(const void* p, int64_t to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }

}  // namespace

bool gemv_nf4(const Nf4& w, int64_t m, int64_t rows, int64_t cols, const Matrix& a, const Ref& y, int64_t ldy, float alpha, float beta, const Ref& bias) {
  if (m < 1 || m > 8 || a.dtype == DType::Float32 || cols % 64 != 0 || w.block % 64 != 0 || !aligned(w.q, 16) || !aligned(a.data, 16) || (m > 1 && a.ld % 8 != 0))
    return false;
  const DType bias_type = bias ? bias.dtype : DType::Float32;
  if ((y.dtype != DType::Float32 && y.dtype != a.dtype) || (bias_type != DType::Float32 && bias_type != a.dtype)) return false;
  const bool words = cols % kUnit == 0 && w.block == 64 && (w.absmax8 == nullptr || aligned(w.absmax8, 4));
  const Task task{w, rows, cols, a.data, a.ld, (int)m, y.data, ldy, alpha, beta, bias.data};
  if (a.dtype == DType::BFloat16) {
    dispatch<__nv_bfloat16>(task, y.dtype, bias_type, words);
  } else {
    dispatch<__half>(task, y.dtype, bias_type, words);
  }
  return true;
}

}  // namespace cuda
}  // namespace tunebook
