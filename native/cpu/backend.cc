// isa: none
// The CPU backend: its table, filled by the op families compiled for the chosen instruction set.
#include "backend.h"

#include <cstdlib>
#include <cstring>

#include "cpu.families.gen.h"
#include "cpu_features.h"
#include "linear_update.h"
#include "system.h"

namespace tunebook {
namespace {

void copy_bytes(void* to, const void* from, int64_t bytes) { memcpy(to, from, static_cast<size_t>(bytes)); }
void nothing() {}

#define OP(name) \
  void missing_##name(const name##_args&) { fail("not implemented on the CPU"); }
#include "ops.list.gen.h"
#undef OP

Backend table;

void linear_update(const linear_update_args& g) {
  check_linear_update(g);
  update_then_products(table, g);
}

}  // namespace

const Backend& open_cpu() {
  const CpuFeatures features = cpu_features();
  const char* best = features.avx512bf16 ? "avx512bf16" : features.avx512 ? "avx512" : features.avx2 ? "avx2" : "portable";
  const char* isa = best;
  if (const char* asked = getenv("TUNEBOOK_ISA")) {
    const struct {
      const char* name;
      bool runs;
    } known[] = {{"avx512bf16", features.avx512bf16}, {"avx512", features.avx512}, {"avx2", features.avx2}, {"portable", true}};
    const auto* found = known;
    while (found != known + 4 && strcmp(asked, found->name) != 0) found++;
    if (found == known + 4) fail("TUNEBOOK_ISA must be avx512bf16, avx512, avx2 or portable, but is \"%s\"", asked);
    const bool runs = found->runs;
    if (!runs) fail("TUNEBOOK_ISA is %s, which this processor cannot run; it can run %s", asked, best);
    isa = asked;
  }
  memset(&table, 0, sizeof table);
  table.name = "cpu";
  table.alloc = alloc_pages;
  table.free = free_pages;
  table.upload = copy_bytes;
  table.download = copy_bytes;
  table.sync = nothing;
  table.close = stop_pool;
#define OP(name) table.name = missing_##name;
#include "ops.list.gen.h"
#undef OP
#if TB_X86
  if (strncmp(isa, "avx512", 6) == 0) {
    avx512::register_all(table);
    table.isa = "avx512";
    if (strcmp(isa, "avx512bf16") == 0) {  // only what multiplies has a version of its own
      avx512bf16::register_all(table);
      table.isa = "avx512bf16";
    }
  } else if (strcmp(isa, "avx2") == 0) {
    avx2::register_all(table);
    table.isa = "avx2";
  } else
#endif
  {
    portable::register_all(table);
    table.isa = "portable";
  }
  table.linear_update = linear_update;
  table.threads = default_threads();
  start_pool(table.threads);
  return table;
}

}  // namespace tunebook
