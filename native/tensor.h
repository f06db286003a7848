// Buffers, dtypes and the argument type of every op. No dependency but the standard library.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tunebook {

// The numbers are part of the boundary: src/tensor/dtype.ts holds the same ones.
enum class DType : int32_t { Float32 = 0, BFloat16 = 1, Float16 = 2, Int32 = 3, UInt8 = 4 };

inline size_t size_of(DType t) {
  switch (t) {
    case DType::Float32: case DType::Int32: return 4;
    case DType::BFloat16: case DType::Float16: return 2;
    case DType::UInt8: return 1;
  }
  return 0;
}

// A tensor as an op sees it: where its elements stand and how many bytes belong to it. Shapes and strides travel as the op's integers.
struct Ref {
  void* data = nullptr;   // nullptr: the optional tensor is absent
  int64_t bytes = 0;
  DType dtype = DType::Float32;

  explicit operator bool() const { return data != nullptr; }
  template <class T> T* as() const { return static_cast<T*>(data); }
  float* f32() const { return as<float>(); }
  int32_t* i32() const { return as<int32_t>(); }
  uint8_t* u8() const { return as<uint8_t>(); }
};

// A list of tensors ("*name" in ops.def).
struct RefList {
  const Ref* items = nullptr;
  int32_t count = 0;
  const Ref& operator[](int i) const { return items[i]; }
};

}  // namespace tunebook
