// How fast memory can be read: threads that do nothing but load, as a contender of the benchmarks that takes its turn with the others.
//   read-probe THREADS BYTES: a line {"ready": true}, then a line {"seconds": best of a few passes over BYTES} for every line that comes in.
// Each thread reads pieces of 24 KiB, in turns or those of a part of its own, with and without asking ahead; the best way counts.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

typedef uint64_t Line __attribute__((vector_size(64)));

constexpr int64_t kPiece = 24576, kAhead = 4096;

template <bool kAsk>
static uint64_t read_piece(const char* from) {
  Line sums[4] = {};
  for (int64_t i = 0; i < kPiece; i += 256) {
    for (int l = 0; l < 4; l++) {
      if (kAsk) __builtin_prefetch(from + i + l * 64 + kAhead);
      Line line;
      memcpy(&line, from + i + l * 64, 64);
      sums[l] ^= line;
    }
  }
  const Line all = (sums[0] ^ sums[1]) ^ (sums[2] ^ sums[3]);
  return all[0] ^ all[1] ^ all[2] ^ all[3] ^ all[4] ^ all[5] ^ all[6] ^ all[7];
}

int main(int, char** argv) {
  const int threads = atoi(argv[1]);
  const int64_t pieces = atoll(argv[2]) / kPiece;
  char* memory = static_cast<char*>(aligned_alloc(1 << 21, (static_cast<size_t>(pieces * kPiece) / (1 << 21) + 1) << 21));
  for (int64_t i = 0; i < pieces * kPiece; i += 8) memcpy(memory + i, &i, 8);
  std::atomic<uint64_t> seen{0};
  const auto pass = [&](uint64_t (*read)(const char*), bool turns) {
    std::atomic<int64_t> next{0};
    std::atomic<int> waiting{threads};
    const auto work = [&](int self) {
      waiting--;
      while (waiting > 0) {
      }
      uint64_t sum = 0;
      if (turns) {
        for (int64_t i = next++; i < pieces; i = next++) sum ^= read(memory + i * kPiece);
      } else {
        for (int64_t i = self * pieces / threads; i < (self + 1) * pieces / threads; i++) sum ^= read(memory + i * kPiece);
      }
      seen ^= sum;
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(work, i);
    while (waiting > 1) {
    }
    const auto begun = std::chrono::steady_clock::now();
    work(0);
    for (std::thread& t : others) t.join();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  };
  std::cout << "{\"ready\": true}" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    double best = 1e9;
    for (int i = 0; i < 4; i++) {
      for (const bool turns : {true, false}) best = std::min({best, pass(read_piece<false>, turns), pass(read_piece<true>, turns)});
    }
    std::cout << "{\"seconds\": " << best << ", \"seen\": " << (seen & 1) << "}" << std::endl;
  }
}
