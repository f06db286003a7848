// isa: portable avx2 avx512
// The next token from logits. The order of the filters is transformers': temperature, top-k, top-p, min-p.
#include <algorithm>

#include "checks.h"
#include "parallel.h"
#include "philox.h"
#include "rows.h"

namespace tunebook {
namespace TB_ISA {
namespace {

void repetition_penalty(const repetition_penalty_args& a) {
  check_size("rows", a.rows);
  check_size("vocab", a.vocab);
  check_size("n", a.n);
  check_tensor("ids", a.ids, product(a.rows, a.n), DType::Int32);
  check_tensor("logits", a.logits, product(a.rows, a.vocab));
  if (!(a.penalty > 0.0f)) fail("penalty is %g, expected more than 0", (double)a.penalty);
  uint8_t* seen = static_cast<uint8_t*>(scratch(0, a.vocab + 1));
  for (int64_t r = 0; r < a.rows; ++r) {
    const int32_t* ids = a.ids.i32() + r * a.n;
    float* logits = a.logits.f32() + r * a.vocab;
    memset(seen, 0, (size_t)a.vocab);
    for (int64_t i = 0; i < a.n; ++i) {
      const int32_t id = ids[i];
      if (id < 0) continue;
      if (id >= a.vocab) fail("id %d at row %lld is outside the vocabulary of %lld", id, (long long)r, (long long)a.vocab);
      if (seen[id]) continue;
      seen[id] = 1;
      logits[id] = logits[id] > 0.0f ? logits[id] / a.penalty : logits[id] * a.penalty;
    }
  }
}

struct Candidate {
  float p;  // relative to the most probable token, which has 1
  int32_t id;
};

// Walks the cumulative sum of n weights to `target`; rounding can overshoot the end, where the last weight above zero wins.
template <class F>
int64_t walk(int64_t n, double target, F weight) {
  double sum = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float w = weight(i);
    if (w <= 0.0f) continue;
    sum += w;
    last = i;
    if (sum > target) break;
  }
  return last;
}

int32_t draw(float* p, Candidate* list, int64_t vocab, const sample_args& a, double u) {
  const bool cut_k = a.top_k > 0 && a.top_k < vocab, cut_p = a.top_p < 1.0f;
  const auto total_of = [&] {
    double total = 0;
    for (int64_t i = 0; i < vocab; i += 4096) total += row_sum(p + i, vocab - i < 4096 ? vocab - i : 4096);
    return total;
  };
  if (!cut_k && !cut_p) {
    if (a.min_p > 0.0f)
      for (int64_t i = 0; i < vocab; ++i) p[i] = p[i] >= a.min_p ? p[i] : 0.0f;
    return (int32_t)walk(vocab, u * total_of(), [&](int64_t i) { return p[i]; });
  }
  double total = cut_k ? 0.0 : total_of();
  // Few tokens carry nearly all the probability: the floor sinks only until enough of them are above it.
  int64_t count = 0;
  for (float floor = 1e-3f;; floor *= 1e-4f) {
    if (floor < 1e-30f) floor = 0.0f;
    double mass = 0;
    count = 0;
    for (int64_t i = 0; i < vocab; ++i)
      if (p[i] >= floor) list[count++] = {p[i], (int32_t)i}, mass += p[i];
    if (floor == 0.0f || (cut_k ? count >= a.top_k : mass >= (double)a.top_p * total)) break;
  }
  const auto more = [](const Candidate& x, const Candidate& y) { return x.p != y.p ? x.p > y.p : x.id < y.id; };
  if (cut_k && count > a.top_k) {
    std::nth_element(list, list + (a.top_k - 1), list + count, more);
    const float least = list[a.top_k - 1].p;  // ties with the k-th stay
    int64_t kept = a.top_k;
    for (int64_t i = a.top_k; i < count; ++i)
      if (list[i].p == least) list[kept++] = list[i];
    count = kept;
  }
  if (cut_k)
    for (int64_t i = 0; i < count; ++i) total += list[i].p;
  std::sort(list, list + count, more);
  int64_t kept = 0;
  double mass = 0;
  while (kept < count && (kept == 0 || ((!cut_p || mass < (double)a.top_p * total) && list[kept].p >= a.min_p))) mass += list[kept++].p;
  return list[walk(kept, u * mass, [&](int64_t i) { return list[i].p; })].id;
}

void sample(const sample_args& a) {
  check_size("rows", a.rows);
  check_size("vocab", a.vocab, 1);
  check_size("top_k", a.top_k);
  const int64_t vocab = a.vocab;
  check_tensor("logits", a.logits, product(a.rows, vocab));
  check_tensor("ids", a.ids, a.rows, DType::Int32);
  if (a.draws) check_tensor("draws", a.draws, product(a.rows, 2), DType::Int32);
  if (!(a.temperature >= 0.0f)) fail("temperature is %g, expected 0 or more", (double)a.temperature);
  parallel_tasks(a.rows, [&](int64_t r) {
    const float* x = a.logits.f32() + r * vocab;
    const float top = row_max(x, vocab);
    vi unordered = {};
    for_vectors(vocab, [&](int64_t i, int64_t m) {
      const vf v = load_to(x + i, m);
      unordered |= v != v ? splat_i(1) : splat_i(0);
    });
    bool nan = false;
    for (int i = 0; i < W; ++i) nan |= unordered[i] != 0;
    if (nan || top == -kInf) fail("the logits of row %lld %s", (long long)r, nan ? "hold NaN" : "are all -infinity");
    if (a.temperature == 0.0f || top == kInf) {
      int64_t i = 0;
      while (x[i] != top) ++i;
      a.ids.i32()[r] = (int32_t)i;
      return;
    }
    float* p = scratch_f32(1, vocab);
    const float scale = 1.0f / a.temperature;
    for_vectors(vocab, [&](int64_t i, int64_t m) { store_to(p + i, exp_v((load_to(x + i, m) - top) * scale), m); });
    uint32_t words[kWords];
    if (a.draws) philox((uint32_t)a.draws.i32()[2 * r], (uint64_t)(uint32_t)a.draws.i32()[2 * r + 1], words);
    else philox((uint32_t)a.seed, (uint64_t)(uint32_t)a.offset + (uint64_t)r, words);
    const double u = ((double)(words[0] >> 5) * 67108864.0 + (double)(words[1] >> 6)) / 9007199254740992.0;
    Candidate* list = static_cast<Candidate*>(scratch(2, vocab * (int64_t)sizeof(Candidate)));
    a.ids.i32()[r] = draw(p, list, vocab, a, u);
  });
}

}  // namespace

void register_sampling(Backend& b) {
  b.repetition_penalty = repetition_penalty;
  b.sample = sample;
}

}  // namespace TB_ISA
}  // namespace tunebook
