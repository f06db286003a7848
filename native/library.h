// The CUDA backend stands in a library of its own, which is opened only when a GPU is asked for.
#pragma once
#include "backend.h"
#include "copies.h"

namespace tunebook {

// The table of GPU `index`, from tunebook_cuda.so beside this addon. Throws OpError with the reason in plain words.
const Backend& open_cuda(int index);
// Of the GPU that was opened.
const Copies* copies_of_cuda();

// TUNEBOOK_FAKE_CUDA=1 puts a stand-in in its place: the CPU's ops behind a stream of their own, late like a GPU. For tests alone.
bool fake_cuda_asked();
const Backend& open_fake_cuda(const Backend& cpu);
const Copies* copies_of_fake_cuda();

}  // namespace tunebook
