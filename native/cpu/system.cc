// isa: none
#include "system.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

#include "backend.h"

namespace tunebook {
namespace {

constexpr int64_t kMapped = int64_t{256} << 10;  // from this size on a block has its own pages, which go back to the system when freed
constexpr int64_t kHuge = int64_t{2} << 20;
constexpr int64_t kRegion = 16 * kHuge;  // of address space: its pages are the system's until something is written there

std::string read_text(const std::string& path) {
  std::string text;
  if (FILE* file = fopen(path.c_str(), "r")) {
    char buffer[4096];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, n);
    fclose(file);
  }
  return text;
}

// Calls f(text) for a file of this process's control group and of every group above it (version 2).
template <class F>
void each_group(const char* file, F f) {
  const std::string all = read_text("/proc/self/cgroup");
  const size_t at = all.find("0::/");
  if (at == std::string::npos) return;
  std::string path = all.substr(at + 3, all.find('\n', at) - at - 3);
  for (;;) {
    if (path == "/") path.clear();
    f(read_text("/sys/fs/cgroup" + path + "/" + file));
    const size_t slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return;
    path.resize(slash);
  }
}

double quota() {
  double least = 1e9;
  auto consider = [&](double limit, double period) {
    if (limit > 0 && period > 0 && limit / period < least) least = limit / period;
  };
  each_group("cpu.max", [&](const std::string& text) {
    double limit = 0, period = 0;
    if (sscanf(text.c_str(), "%lf %lf", &limit, &period) == 2) consider(limit, period);
  });
  const std::string limit = read_text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), period = read_text("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (!limit.empty() && !period.empty()) consider(atof(limit.c_str()), atof(period.c_str()));
  return least;
}

// Pages from the system, huge ones where possible, beginning at the border of one. nullptr: exhausted.
char* map_aligned(int64_t bytes) {
  const int64_t extra = bytes >= kHuge ? kHuge : 0;
  void* mapped = mmap(nullptr, bytes + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* data = static_cast<char*>(mapped);
  if (extra == 0) return data;
  // More was mapped: the ends go back.
  char* aligned = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(data) + kHuge - 1) / kHuge * kHuge);
  if (aligned > data) munmap(data, aligned - data);
  char* end = data + bytes + extra;
  if (aligned + bytes < end) munmap(aligned + bytes, end - (aligned + bytes));
#ifdef MADV_HUGEPAGE
  madvise(aligned, bytes, MADV_HUGEPAGE);
#endif
  return aligned;
}

}  // namespace

void* alloc_pages(int64_t bytes) {
  if (bytes < kMapped) {
    void* data = nullptr;
    return posix_memalign(&data, 64, bytes > 0 ? static_cast<size_t>((bytes + 63) / 64 * 64) : 64) == 0 ? data : nullptr;
  }
  const int64_t page = sysconf(_SC_PAGESIZE), rounded = (bytes + page - 1) / page * page;
  if (rounded > kRegion / 4) return map_aligned(rounded);
  // One behind the other, so that huge pages serve what is smaller than they are: a model of 540 MB takes 8,000 faults instead of 80,000.
  static std::mutex mutex;
  static char *at = nullptr, *end = nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  if (end - at < rounded) {
    char* region = map_aligned(kRegion);
    if (region == nullptr) return map_aligned(rounded);
    if (at < end) munmap(at, end - at);
    at = region;
    end = region + kRegion;
  }
  void* data = at;
  at += rounded;
  return data;
}

void free_pages(void* data, int64_t bytes) {
  if (data == nullptr) return;
  if (bytes < kMapped) {
    ::free(data);
  } else {
    munmap(data, bytes);
  }
}

int default_threads() {
  if (const char* asked = getenv("TUNEBOOK_THREADS")) {
    const int n = atoi(asked);
    if (n >= 1 && n <= 1024) return n;
    fail("TUNEBOOK_THREADS must be a number from 1 to 1024, but is \"%s\"", asked);
  }
  int threads = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) threads = CPU_COUNT(&set);
#endif
  const double limit = quota();
  if (limit < threads) threads = static_cast<int>(limit + 0.999);
  return threads < 1 ? 1 : threads > 1024 ? 1024 : threads;
}

int64_t memory_limit() {
  if (const char* asked = getenv("TUNEBOOK_MEMORY_LIMIT")) {
    const double bytes = atof(asked);
    if (bytes > 0) return static_cast<int64_t>(bytes);
    fail("TUNEBOOK_MEMORY_LIMIT must be a number of bytes, but is \"%s\"", asked);
  }
  int64_t limit = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  each_group("memory.max", [&](const std::string& text) {
    const double bytes = atof(text.c_str());  // "max" reads as 0
    if (bytes > 0 && bytes < static_cast<double>(limit)) limit = static_cast<int64_t>(bytes);
  });
  const double old = atof(read_text("/sys/fs/cgroup/memory/memory.limit_in_bytes").c_str());
  if (old > 0 && old < static_cast<double>(limit)) limit = static_cast<int64_t>(old);
  return limit;
}

}  // namespace tunebook
