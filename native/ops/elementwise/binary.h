// Contract of `binary`: y = f(a, b) with broadcasting.
//
// y is contiguous of `shape`; a and b are read through strides in elements, 0 where they are
// broadcast. Rank 0 is one element.
//
//   add sub mul div pow maximum minimum     dtype of a and b; maximum and minimum give NaN where
//                                           either is NaN, and take +0 above -0
//   equal notEqual less lessEqual greater greaterEqual   uint8, 0 or 1; with NaN only notEqual is 1
//   logicalAnd logicalOr                    uint8 in, uint8 out (any value but 0 counts as true)
// pow follows C's powf: pow(x, 0) = pow(1, y) = 1, NaN for x < 0 unless y is an integer.
// int32: add, sub, mul wrap; div truncates towards zero, x / 0 = 0 and the smallest integer / -1
// is itself (as it wraps).
//
// dtypes: float32; bfloat16, computed in float32 and rounded once; int32 for all but pow and the
// logical ones; uint8 for comparisons and the logical ones.
// Aliasing: y may be a or b where that one is not broadcast and has the dtype and strides of y.
// Bytes: what a and b hold is read once (a broadcast operand stays in cache), y is written once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"
#include "native/core/host_device.h"

namespace didr {

// The order is part of the interface with TypeScript (lib/tensor/elementwise.ts).
enum class Binary : int32_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kPow,
  kMaximum,
  kMinimum,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kLogicalAnd,
  kLogicalOr,
};
inline constexpr Binary kLastBinary = Binary::kLogicalOr;

struct BinaryArgs {
  const void* a;
  const void* b;
  void* y;
  Binary kind;
  DType dtype;  // of a and b
  int32_t rank;
  int64_t shape[8];
  int64_t aStrides[8];
  int64_t bStrides[8];
};

DIDR_HOST_DEVICE constexpr bool isComparison(Binary kind) {
  return kind >= Binary::kEqual && kind <= Binary::kGreaterEqual;
}

DIDR_HOST_DEVICE constexpr bool supports(Binary kind, DType dtype) {
  const bool logical = kind == Binary::kLogicalAnd || kind == Binary::kLogicalOr;
  switch (dtype) {
    case DType::kFloat32:
    case DType::kBFloat16:
      return !logical;
    case DType::kInt32:
      return !logical && kind != Binary::kPow;
    case DType::kUint8:
      return logical || isComparison(kind);
    case DType::kFloat16:
      return false;
  }
  return false;
}

// The dtype of y.
DIDR_HOST_DEVICE constexpr DType resultOf(Binary kind, DType dtype) {
  return isComparison(kind) ? DType::kUint8 : dtype;
}

}  // namespace didr
