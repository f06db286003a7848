// Time, waiting and switches by the environment, for whatever runs threads. Internal linkage: files are compiled for several instruction sets.
#pragma once
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace tunebook {

// Of a clock that never goes back.
static inline uint64_t nanoseconds() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

// Of a processor that waits for another thread in a loop.
static inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whether a variable of the environment is 1.
static inline bool asked_for(const char* variable) {
  const char* value = getenv(variable);
  return value != nullptr && strcmp(value, "1") == 0;
}

}  // namespace tunebook
