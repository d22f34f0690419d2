// Element types and the scalar conversions between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "native/core/host_device.h"

namespace didr {

// The order is part of the interface with TypeScript (lib/tensor/dtype.ts).
enum class DType : uint8_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kInt32 = 3, kUint8 = 4 };
inline constexpr int kDTypeCount = 5;

constexpr size_t sizeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
    case DType::kUint8:
      return 1;
  }
  return 0;
}

constexpr const char* nameOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    case DType::kInt32:
      return "int32";
    case DType::kUint8:
      return "uint8";
  }
  return "?";
}

// Storage types: the bits alone, so that no arithmetic happens in them by accident.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

DIDR_HOST_DEVICE uint32_t bitsOf(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
DIDR_HOST_DEVICE float floatOf(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

DIDR_HOST_DEVICE float toFloat(float x) { return x; }
DIDR_HOST_DEVICE float toFloat(int32_t x) { return static_cast<float>(x); }
DIDR_HOST_DEVICE float toFloat(uint8_t x) { return static_cast<float>(x); }
DIDR_HOST_DEVICE float toFloat(BFloat16 x) { return floatOf(static_cast<uint32_t>(x.bits) << 16); }

// IEEE 754 binary16 to binary32, exact for every input (subnormals by scaling, NaN payloads kept).
DIDR_HOST_DEVICE float toFloat(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return floatOf(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude < 0x0400u) {
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return floatOf(sign | bitsOf(value));
  }
  return floatOf(sign | ((magnitude << 13) + (112u << 23)));
}

// Round to nearest, ties to even; a NaN stays a (quiet) NaN.
DIDR_HOST_DEVICE BFloat16 toBFloat16(float x) {
  const uint32_t u = bitsOf(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

// binary32 to binary16: nearest even, overflow to infinity, gradual underflow.
DIDR_HOST_DEVICE Float16 toFloat16(float x) {
  const uint32_t u = bitsOf(x);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t magnitude = u & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    half = 0x7c00u;
  } else if (magnitude <
             0x38800000u) {  // below 2^-14: adding 0.5 aligns the subnormal's last bit with ours
    half = bitsOf(floatOf(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::kBFloat16;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType value = DType::kFloat16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kInt32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kUint8;
};

}  // namespace didr
