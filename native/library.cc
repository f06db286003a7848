#include "library.h"

#include <dlfcn.h>

#include <cstring>
#include <string>

#include "layout.gen.h"

namespace tunebook {
namespace {

const Copies* copies = nullptr;

// The folder of the library that this function is in.
std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&open_cuda), &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string file = info.dli_fname;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "." : file.substr(0, slash);
}

template <class F>
F* symbol(void* library, const char* name, const std::string& file) {
  void* found = dlsym(library, name);
  if (found == nullptr) fail("%s has no %s: run \"npm run build\"", file.c_str(), name);
  return reinterpret_cast<F*>(found);
}

}  // namespace

const Backend& open_cuda(int index) {
  const std::string file = own_folder() + "/tunebook_cuda.so";
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);  // stays open: it is opened once a process
  if (library == nullptr) {
    const char* why = dlerror();
    if (FILE* there = fopen(file.c_str(), "rb")) {
      fclose(there);
      fail("%s cannot be opened: %s", file.c_str(), why);
    }
    fail("this build has no CUDA backend: %s does not exist. Install CUDA's compiler (nvcc 12 or newer) and run \"npm run build\"", file.c_str());
  }
  const char* layout = symbol<const char*()>(library, "tunebook_cuda_layout", file)();
  if (strcmp(layout, TUNEBOOK_LAYOUT) != 0) fail("%s was built from other sources than the addon: run \"npm run build\"", file.c_str());
  char why[512] = "";
  const Backend* backend = symbol<const Backend*(int, char*, int)>(library, "tunebook_open_cuda", file)(index, why, sizeof why);
  if (backend == nullptr) fail("%s", why);
  copies = symbol<const Copies*()>(library, "tunebook_cuda_copies", file)();
  return *backend;
}

const Copies* copies_of_cuda() { return copies; }

}  // namespace tunebook
