// Files into tensors, beside the ops and off the JavaScript thread: threads read pieces of what is asked for, in the order in which it was asked for. Where tensors
// stand in host memory a piece is read to its place; else into pinned memory, from which the device copies it while the next one is read.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "backend.h"
#include "copies.h"

namespace tunebook {

// Takes a piece that has been read to where it belongs: `at` counts the load's bytes before it. Threads call it at once for different pieces.
using PlacePiece = void (*)(void* context, int64_t at, const char* piece, int64_t bytes);

// A stretch of an open file on its way into memory.
struct FileLoad {
  int fd = -1;  // its own
  int64_t offset = 0, bytes = 0;
  char* to = nullptr;
  int64_t unit = 1;            // pieces are whole multiples of this
  PlacePiece place = nullptr;  // host memory only: instead of `to`
  void* context = nullptr;     // of place
  void* owner = nullptr;       // for ended
  int32_t group = 0;           // what is cancelled together
  void (*ended)(FileLoad*) = nullptr;  // called once, from any thread, when nothing touches the memory any more

  // What came of it; all of it at rest: everything is there.
  bool cancelled = false;
  int64_t cut_at = -1;    // the file ends at this byte
  std::string trouble;    // what the system says
  int trouble_code = 0;   // errno
  bool refused = false;   // by the device, see error
  OpError error;

  bool failed() const { return cancelled || cut_at >= 0 || trouble_code != 0 || refused; }

 private:
  friend class FileLoader;
  int64_t next = 0;  // the first byte that nobody has claimed
  int64_t left = 0;  // pieces that are being read or copied
};

class FileLoader {
 public:
  // copies: how bytes get from host memory to the tensors; nullptr: they stand there.
  FileLoader(const Backend& backend, const Copies* copies);
  ~FileLoader() { stop(); }

  // Begins with a load whose memory nothing else uses. Any thread.
  void add(FileLoad* load);
  // Ends the loads of a group, those that are added later too, until `forget`. Pieces that are being read are finished.
  void cancel(int32_t group);
  // The group is over, and none of its loads is on its way. When no other has any, threads and pinned memory are given back.
  void forget(int32_t group);
  // Ends everything; later loads are cancelled at once.
  void stop();

  // For tests and reports: bytes of the working memory.
  int64_t staged_bytes();

 private:
  struct Slot {
    char* memory = nullptr;
    FileLoad* load = nullptr;  // whose piece is being copied
    bool pinned = false;
  };
  struct Piece {
    FileLoad* load;
    int64_t at, bytes;
  };
  void work(int worker, uint64_t generation);
  bool claim(Piece* piece, uint64_t generation, bool wait);
  void read(const Piece& piece, Slot& slot, int lane);
  bool fill(const Piece& piece, char* to);
  void drain(Slot& slot, int lane);
  void fail(FileLoad* load, const std::function<void()>& note);
  void done(FileLoad* load);
  bool obtain(Slot& slot);
  void start_threads();
  void end_threads(std::unique_lock<std::mutex>& lock);

  const Backend& backend_;
  const Copies* const copies_;
  const int workers_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<FileLoad*> open_;  // with pieces that nobody has claimed
  std::set<int32_t> cancelled_;
  int64_t on_their_way_ = 0;  // loads added and not ended
  int64_t staged_ = 0;
  bool stop_ = false;
  uint64_t generation_ = 0;  // of the threads: those of an older one end
  std::vector<std::thread> threads_;
};

}  // namespace tunebook
