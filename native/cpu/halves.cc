// isa: none
// The CPU's ops on 16-bit activations, as the GPU has them: widened before an op and rounded after it. Slow: for tests of the layers above.
#include <vector>

#include "halves.h"
#include "opcodes.h"
#include "ops.decode.gen.h"
#include "system.h"

namespace tunebook {
namespace {

const Backend* cpu = nullptr;
Backend table;

// The 16-bit tensors of one op, each with its float32 twin. A tensor that lies inside of one before it (an op in place, a part of rows) lies inside of its twin.
class Twins {
 public:
  ~Twins() {
    for (const Twin& t : twins_) free_pages(t.wide.data, room(t.wide.bytes));
  }

  void ref(Ref& r, bool output) {
    if (r.data == nullptr || (r.dtype != DType::BFloat16 && r.dtype != DType::Float16)) return;
    for (Twin& t : twins_) {
      const int64_t offset = static_cast<const char*>(r.data) - static_cast<const char*>(t.narrow.data);
      if (offset < 0 || offset + r.bytes > t.narrow.bytes || t.narrow.dtype != r.dtype) continue;
      t.output = t.output || output;
      r.data = static_cast<char*>(t.wide.data) + 2 * offset;
      r.dtype = DType::Float32;
      r.bytes *= 2;
      return;
    }
    Twin t{r, Ref(), output};
    t.wide.dtype = DType::Float32;
    t.wide.bytes = r.bytes * 2;
    t.wide.data = alloc_pages(room(t.wide.bytes));
    if (t.wide.data == nullptr) fail("out of memory for %lld bytes of working memory", (long long)t.wide.bytes);
    twins_.push_back(t);
    cpu->copy({t.narrow, t.wide, r.bytes / 2});
    r = t.wide;
  }

  void list(RefList& l, bool output) {
    lists_.emplace_back(l.items, l.items + l.count);  // a recorded op uses its own again
    for (Ref& item : lists_.back()) ref(item, output);
    l.items = lists_.back().data();
  }

  void write_back() {
    for (const Twin& t : twins_) {
      if (t.output) cpu->copy({t.wide, t.narrow, t.narrow.bytes / 2});
    }
  }

 private:
  struct Twin {
    Ref narrow, wide;
    bool output;
  };
  static int64_t room(int64_t bytes) { return (bytes + 4096) / 4096 * 4096; }
  std::vector<Twin> twins_;
  std::vector<std::vector<Ref>> lists_;
};

#define OP(name)                                \
  void name##_widened(const name##_args& given) { \
    name##_args a = given;                      \
    Twins twins;                                \
    visit_##name(twins, a);                     \
    cpu->name(a);                               \
    twins.write_back();                         \
  }
#include "ops.list.gen.h"
#undef OP

}  // namespace

const Backend& with_halves(const Backend& backend) {
  cpu = &backend;
  table = backend;
#define OP(name) table.name = name##_widened;
#include "ops.list.gen.h"
#undef OP
  return table;
}

}  // namespace tunebook
