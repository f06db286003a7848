// Lists of attention's tiles, made on the device: where the sequences lie is known there alone.
#include "attention.cuh"

namespace tunebook {
namespace cuda {
namespace {

constexpr int kThreads = 1024, kBuckets = 256;

struct PlanArgs {
  AttentionSizes a;
  TilePlan list[2];   // of queries, of keys
  int32_t tile[2];
  Fault* fault;
};

// Sequence s as far as it lies inside the tensors; one that does not is reported and counts as empty.
__device__ Span span_of_sequence(const PlanArgs& p, int s, bool report) {
  Span r{p.a.q_begin[s], p.a.q_len[s], p.a.k_begin[s], p.a.k_len[s]};
  const bool q_bad = r.q_begin < 0 || r.q_len < 0 || (int64_t)r.q_begin + r.q_len > p.a.q_rows;
  const bool k_bad = r.k_begin < 0 || r.k_len < 0 || (int64_t)r.k_begin + r.k_len > p.a.k_rows;
  if (report && q_bad) raise(p.fault, kBadSequence, s, r.q_begin + r.q_len, p.a.q_rows);
  else if (report && k_bad) raise(p.fault, kBadSequence, s, r.k_begin + r.k_len, p.a.k_rows);
  if (q_bad || k_bad) r = Span{0, 0, 0, 0};
  return r;
}

__device__ Tile tile_of(const Span& s, int first, int tile, int len) { return Tile{s, first, min(tile, len - first), 0, 0}; }

// Keys that the queries of a tile see, or queries that see the keys of a tile.
__device__ int work_of(const AttentionSizes& a, const Tile& t, bool keys) {
  const int last = t.first + t.count - 1;
  if (!keys) return max(t.span.high(a, last) + 1 - t.span.low(a, t.first), 0);
  int begin, end;
  t.span.queries_of(a, t.first, last, &begin, &end);
  return max(end - begin, 0);
}

// Block 0 lists tiles of queries, block 1 tiles of keys. A team of threads takes a sequence: a warp, or all threads where there are few.
__global__ void __launch_bounds__(kThreads) list_tiles(PlanArgs p) {
  __shared__ int place[kBuckets];
  __shared__ int most_work;
  const bool keys = blockIdx.x == 1;
  const TilePlan list = p.list[keys];
  const int tile = p.tile[keys], rows = keys ? p.a.k_rows : p.a.q_rows, me = threadIdx.x;
  const int team = p.a.sequences <= 8 ? kThreads : 32, member = me % team;
  for (int r = me; r < rows; r += kThreads) list.owner[r] = -1;
  for (int b = me; b < kBuckets; b += kThreads) place[b] = 0;
  if (me == 0) most_work = 1;
  __syncthreads();
  for (int s = me / team; s < p.a.sequences; s += kThreads / team) {
    const Span span = span_of_sequence(p, s, !keys && member == 0);
    const int begin = keys ? span.k_begin : span.q_begin, len = keys ? span.k_len : span.q_len;
    for (int r = member; r < len; r += team) list.owner[begin + r] = s;
    if (member == 0) atomicMax(&most_work, keys ? span.q_len : span.k_len);
  }
  __syncthreads();
  const float buckets_per_work = (float)(kBuckets - 1) / (float)most_work;
  for (int pass = 0; pass < 2; ++pass) {
    for (int s = me / team; s < p.a.sequences; s += kThreads / team) {
      const Span span = span_of_sequence(p, s, false);
      const int begin = keys ? span.k_begin : span.q_begin, len = keys ? span.k_len : span.q_len;
      if (pass == 0) {  // a row that another sequence wrote over belongs to two
        for (int r = member; r < len; r += team)
          if (list.owner[begin + r] != s) raise(p.fault, kSharedRow, s, begin + r, rows);
      }
      for (int first = member * tile; first < len; first += team * tile) {
        const Tile t = tile_of(span, first, tile, len);
        const int bucket = kBuckets - 1 - min((int)((float)work_of(p.a, t, keys) * buckets_per_work), kBuckets - 1);
        const int at = atomicAdd(&place[bucket], 1);  // the order within a bucket changes no result
        if (pass == 1 && at < (int)list.most) list.tiles[at] = t;
      }
    }
    __syncthreads();
    if (pass == 0 && me < 32) {  // counts become the places where the buckets begin
      int n[kBuckets / 32], sum = 0;
      for (int b = 0; b < kBuckets / 32; ++b) {
        n[b] = place[me * (kBuckets / 32) + b];
        sum += n[b];
      }
      int end = sum;
      for (int o = 1; o < 32; o <<= 1) {
        const int before = __shfl_up_sync(0xffffffffu, end, o);
        if (me >= o) end += before;
      }
      int at = end - sum;
      for (int b = 0; b < kBuckets / 32; ++b) {
        place[me * (kBuckets / 32) + b] = at;
        at += n[b];
      }
      if (me == 31) *list.count = min(end, (int)list.most);
    }
    __syncthreads();
  }
}

constexpr int kRowsABlock = 8;

__global__ void __launch_bounds__(kRowsABlock * 32) zero_rows(UnownedRows z) {
  const int row = blockIdx.x * kRowsABlock + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= z.rows || z.owner[row] >= 0) return;
  for (int n = 0; n < 2; ++n) {
    if (z.data[n] == nullptr) continue;
    uint16_t* to = reinterpret_cast<uint16_t*>(static_cast<char*>(z.data[n]) + row * z.stride[n]);  // items are 2 or 4 bytes
    for (int i = lane; i < z.width[n] / 2; i += 32) to[i] = 0;
  }
  if (z.lse != nullptr)
    for (int h = lane; h < z.heads; h += 32) z.lse[(int64_t)row * z.heads + h] = -INFINITY;
}

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

AttentionPlan plan_attention(const AttentionSizes& a, int q_tile, int k_tile) {
  PlanArgs p;
  p.a = a;
  p.tile[0] = q_tile, p.tile[1] = k_tile;
  p.fault = faults();
  const int lists = k_tile > 0 ? 2 : 1;
  int64_t bytes = 0;
  for (int pass = 0; pass < 2; ++pass) {
    char* memory = pass == 0 ? nullptr : static_cast<char*>(scratch(kWorkspace, bytes));
    bytes = 0;
    for (int i = 0; i < lists; ++i) {
      TilePlan& list = p.list[i];
      const int64_t rows = i == 0 ? a.q_rows : a.k_rows;
      // Sequences share no rows, so that all but one tile of each are full.
      list.most = blocks_for(rows, p.tile[i]) + a.sequences;
      list.count = reinterpret_cast<int32_t*>(memory + bytes);
      bytes += 256;
      list.owner = reinterpret_cast<int32_t*>(memory + bytes);
      bytes += aligned(rows * 4);
      list.tiles = reinterpret_cast<Tile*>(memory + bytes);
      bytes += aligned(list.most * (int64_t)sizeof(Tile));
    }
  }
  launch("attention's tiles", list_tiles, lists, kThreads, 0, p);
  return AttentionPlan{p.list[0], lists == 2 ? p.list[1] : TilePlan{}};
}

void zero_unowned(const UnownedRows& rows) {
  launch("attention's other rows", zero_rows, blocks_for(rows.rows, kRowsABlock), kRowsABlock * 32, 0, rows);
}

}  // namespace cuda
}  // namespace tunebook
