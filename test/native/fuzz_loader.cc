// Reads random bytes as blocks and plain tensors through the file loader, into memory of exactly their size: built with AddressSanitizer and
// UndefinedBehaviorSanitizer by scripts/fuzz-native.mjs. Arguments: count, seed. Ends with 0 when nothing was found and every load that should fail did.
#include <fcntl.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "block_planes.h"
#include "file_loader.h"
#include "super_blocks.h"

namespace tunebook {
void fail(const char* format, ...) {
  OpError error;
  va_list list;
  va_start(list, format);
  vsnprintf(error.message, sizeof(error.message), format, list);
  va_end(list);
  throw error;
}
}  // namespace tunebook

using namespace tunebook;

namespace {

struct Waiting {
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  static void ended(FileLoad* load) {
    Waiting* w = static_cast<Waiting*>(load->owner);
    std::lock_guard<std::mutex> lock(w->mutex);
    w->over = true;
    w->changed.notify_all();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return over; });
  }
};

template <class T>
std::unique_ptr<T[]> exactly(int64_t count) {
  return std::unique_ptr<T[]>(new T[static_cast<size_t>(count)]);
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc > 1 ? atol(argv[1]) : 20000;
  std::mt19937_64 random(argc > 2 ? strtoull(argv[2], nullptr, 10) : 1);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };

  char path[] = "/tmp/tunebook-fuzz-XXXXXX";
  const int fd = mkstemp(path);
  if (fd < 0) return 2;
  unlink(path);
  const int64_t most = 1 << 20;
  std::vector<uint8_t> noise(static_cast<size_t>(most));
  for (uint8_t& b : noise) b = static_cast<uint8_t>(random());
  if (write(fd, noise.data(), noise.size()) != static_cast<ssize_t>(noise.size())) return 2;

  static const Backend none{};
  FileLoader loader(none, nullptr);
  long refused = 0, cut = 0, read = 0;
  for (long i = 0; i < count; i++) {
    const int kind = static_cast<int>(below(3 + kSuperKinds + 1));  // 0 to 2 planes, then restored, the last one plain
    Waiting waiting;
    FileLoad load;
    BlockPlanes planes;
    Restored restored;
    load.fd = fd;
    load.owner = &waiting;
    load.ended = Waiting::ended;
    load.group = static_cast<int32_t>(i);
    load.offset = below(4) == 0 ? most - below(4000) : below(most / 2);
    const bool plain = kind == 3 + kSuperKinds, super = kind >= 3 && !plain;
    const int64_t unit = kind < 3 ? bytes_of_block(static_cast<BlockKind>(kind)) : super ? bytes_of_super(static_cast<SuperKind>(kind - 3)) : 1;
    const int64_t elements = kind < 3 ? 32 : super ? elements_of_super(static_cast<SuperKind>(kind - 3)) : 1;
    // Mostly whole rows and heads, sometimes whatever a damaged header may say.
    int64_t row_blocks = 1 + below(5), rows = 2 * (1 + below(20)), head_rows = below(2) == 0 ? 0 : rows;
    if (head_rows > 0 && rows % 4 == 0 && below(2) == 0) head_rows = rows / 2;
    int64_t columns = row_blocks * elements, bytes = rows * row_blocks * unit;
    if (below(4) == 0) bytes += below(70) - 35;
    if (below(8) == 0) head_rows = below(2) == 0 ? -below(9) : below(rows + 3);
    if (below(8) == 0) columns = below(3) == 0 ? static_cast<int64_t>(random()) : columns + below(64) - 32;
    if (below(64) == 0) bytes = static_cast<int64_t>(random());
    std::unique_ptr<uint8_t[]> codes;
    std::unique_ptr<uint16_t[]> scale, minimum;
    std::unique_ptr<float[]> floats;
    try {
      if (plain) {
        if (bytes < 0 || bytes > 4 * most) fail("too large");
        codes = exactly<uint8_t>(bytes);
        load.to = reinterpret_cast<char*>(codes.get());
      } else {
        const int64_t found = rows_of_blocks(bytes, unit, elements, columns, head_rows);
        if (bytes > 4 * most) fail("too large");
        const int64_t blocks = found * (columns / elements);
        load.unit = unit;
        if (super) {
          floats = exactly<float>(found * columns);
          restored = {static_cast<SuperKind>(kind - 3), floats.get(), columns / elements, head_rows};
          load.place = place_restored;
          load.context = &restored;
        } else {
          codes = exactly<uint8_t>(blocks * (kind == 0 ? 32 : 16));
          scale = exactly<uint16_t>(blocks);
          if (kind != 0) minimum = exactly<uint16_t>(blocks);
          planes = {static_cast<BlockKind>(kind), codes.get(), scale.get(), minimum.get(), columns / 32, head_rows};
          load.place = place_blocks;
          load.context = &planes;
        }
      }
    } catch (const OpError&) {
      refused++;
      continue;
    }
    load.bytes = bytes;
    loader.add(&load);
    const bool cancel = below(16) == 0;
    if (cancel) loader.cancel(load.group);
    waiting.wait();
    if (cancel || below(64) == 0) loader.forget(load.group);  // which ends the threads
    const bool beyond = load.offset + bytes > most;
    if (load.cut_at >= 0) cut++;
    else if (!load.failed()) read++;
    if (beyond && !load.failed() && bytes > 0) {
      printf("a load beyond the end of the file did not fail\n");
      return 1;
    }
    if (!beyond && load.failed() && !load.cancelled) {
      printf("a load within the file failed: %s\n", load.trouble.c_str());
      return 1;
    }
  }
  close(fd);
  printf("%ld loads: %ld read, %ld cut short, %ld refused\n", count, read, cut, refused);
  return 0;
}
