// Finds and opens cuBLASLt.
#include "cublaslt.h"

#include <dlfcn.h>
#include <glob.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "device.cuh"

namespace tunebook {
namespace cuda {
namespace lt {
namespace {

const char* const kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};

std::string variable(const char* name) {
  const char* value = getenv(name);
  return value != nullptr ? value : "";
}

// Folders to look in after the dynamic linker's own (LD_LIBRARY_PATH, ld.so.cache): toolkits, then pip's nvidia-cublas beside each Python of PATH.
std::vector<std::string> folders() {
  std::vector<std::string> patterns;
  for (const char* home : {"CUDA_HOME", "CUDA_PATH"}) {
    if (!variable(home).empty()) patterns.push_back(variable(home) + "/lib64");
  }
  std::vector<std::string> prefixes;
  for (const char* prefix : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (!variable(prefix).empty()) prefixes.push_back(variable(prefix));
  }
  const std::string path = variable("PATH");
  for (size_t at = 0; at < path.size();) {
    const size_t end = path.find(':', at) == std::string::npos ? path.size() : path.find(':', at);
    const std::string entry = path.substr(at, end - at);
    if (entry.size() > 4 && entry.compare(entry.size() - 4, 4, "/bin") == 0) prefixes.push_back(entry.substr(0, entry.size() - 4));
    at = end + 1;
  }
  if (!variable("HOME").empty()) prefixes.push_back(variable("HOME") + "/.local");
  for (const std::string& prefix : prefixes) {
    for (const char* packages : {"/lib/python3*/site-packages", "/lib/python3*/dist-packages"}) {
      patterns.push_back(prefix + packages + "/nvidia/cu1[23]/lib");
      patterns.push_back(prefix + packages + "/nvidia/cublas/lib");
    }
  }
  patterns.push_back("/usr/local/cuda*/lib64");
  patterns.push_back("/usr/local/cuda*/targets/*/lib");
  std::vector<std::string> found;
  for (const std::string& pattern : patterns) {
    glob_t matches;
    if (glob(pattern.c_str(), GLOB_NOSORT, nullptr, &matches) == 0) {
      for (size_t i = 0; i < matches.gl_pathc; i++) found.push_back(matches.gl_pathv[i]);
    }
    globfree(&matches);
  }
  return found;
}

void* open_file(const std::string& file, std::string& why) {
  void* handle = dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (handle == nullptr) why = dlerror();
  return handle;
}

// The first of the known names in a folder.
void* open_in(const std::string& folder, std::string& why) {
  for (const char* name : kNames) {
    const std::string file = folder + "/" + name;
    struct stat about;
    if (stat(file.c_str(), &about) != 0) continue;
    if (void* handle = open_file(file, why)) return handle;
  }
  return nullptr;
}

void* open_library() {
  std::string why;
  const std::string asked = variable("TUNEBOOK_CUBLASLT");
  if (!asked.empty()) {
    struct stat about;
    const bool is_folder = stat(asked.c_str(), &about) == 0 && S_ISDIR(about.st_mode);
    void* handle = is_folder ? open_in(asked, why) : open_file(asked, why);
    if (handle == nullptr)
      fail("TUNEBOOK_CUBLASLT is \"%.200s\", but cuBLASLt could not be opened there: %.200s", asked.c_str(),
           why.empty() ? "it holds no libcublasLt.so.13, .so.12 or .so" : why.c_str());
    return handle;
  }
  for (const char* name : kNames) {
    if (void* handle = open_file(name, why)) return handle;
  }
  why.clear();
  const std::vector<std::string> places = folders();
  for (const std::string& folder : places) {
    if (void* handle = open_in(folder, why)) return handle;
  }
  fail("matrix products on the GPU need cuBLASLt, and libcublasLt.so.13 (or .so.12) was found neither by the dynamic linker (LD_LIBRARY_PATH) nor in %d folders of "
       "CUDA toolkits and of Python's packages%s%.120s. Install it with \"pip install nvidia-cublas\" or the CUDA toolkit, or set TUNEBOOK_CUBLASLT to the file",
       (int)places.size(), why.empty() ? "" : "; last error: ", why.c_str());
}

template <class F>
void bind(void* handle, F& to, const char* name) {
  to = reinterpret_cast<F>(dlsym(handle, name));
  if (to == nullptr) fail("the cuBLASLt that was opened has no %s: install version 12 or 13 (pip install nvidia-cublas)", name);
}

Library bind_all(void* handle) {
  Library l;
  bind(handle, l.create, "cublasLtCreate");
  bind(handle, l.destroy, "cublasLtDestroy");
  bind(handle, l.version, "cublasLtGetVersion");
  bind(handle, l.descriptor_create, "cublasLtMatmulDescCreate");
  bind(handle, l.descriptor_destroy, "cublasLtMatmulDescDestroy");
  bind(handle, l.descriptor_set, "cublasLtMatmulDescSetAttribute");
  bind(handle, l.layout_create, "cublasLtMatrixLayoutCreate");
  bind(handle, l.layout_destroy, "cublasLtMatrixLayoutDestroy");
  bind(handle, l.layout_set, "cublasLtMatrixLayoutSetAttribute");
  bind(handle, l.preference_create, "cublasLtMatmulPreferenceCreate");
  bind(handle, l.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  bind(handle, l.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  bind(handle, l.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  bind(handle, l.matmul, "cublasLtMatmul");
  return l;
}

const char* words_of(Status status) {
  switch (status) {
    case 1: return "the library could not start (is the driver new enough for it?)";
    case 3: return "out of memory inside the library";
    case 7: return "a value it does not accept";
    case 8: return "the GPU is too old for this product";
    case 13: return "the kernel failed on the GPU";
    case 14: return "an internal error";
    case 15: return "no kernel for these shapes and types";
    default: return "an error";
  }
}

}  // namespace

const Library& library() {
  static const Library opened = bind_all(open_library());  // tried anew after a failure
  return opened;
}

Context* context() {
  static Context* made = nullptr;
  static int made_for = -1;
  if (made_for != device.index) {
    Context* next = nullptr;
    check(library().create(&next), "opening cuBLASLt");
    made = next;
    made_for = device.index;
  }
  return made;
}

void check(Status status, const char* what) {
  if (status != kSuccess) fail("%s: cuBLASLt reports %s (status %d)", what, words_of(status), status);
}

}  // namespace lt
}  // namespace cuda
}  // namespace tunebook
