// Contract of `unary`: y_i = f(x_i).
//
//   neg abs square sqrt reciprocal relu sign floor   as in C; relu(x) = x < 0 ? 0 : x
//   rsqrt      1 / sqrt(x)
//   exp log tanh sin cos sigmoid                     sigmoid(x) = 1 / (1 + exp(-x))
//   silu       x sigmoid(x)
//   gelu       x/2 (1 + erf(x / sqrt 2))             (Hendrycks and Gimpel, arXiv 1606.08415)
//   geluTanh   x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
//   clip       min(max(x, lo), hi), lo <= hi; for int32 the bounds are truncated towards zero and
//              saturated first, a NaN bound gives 0
//   isFinite   1 where x is neither infinite nor NaN
//   logicalNot 1 where x is 0 (of either sign), so 0 for NaN
// NaN gives NaN, also in relu, sign and clip. sign keeps a zero's sign. int32 wraps: neg and abs of
// the smallest integer are itself.
//
// dtypes: float32; bfloat16, computed in float32 and rounded once; int32 for neg, abs, square, sign
// and clip; uint8 and int32 also for logicalNot. isFinite and logicalNot write uint8, the others
// the dtype of x.
// Accuracy: native/core/simd_math.h. The same bits at every instruction level and thread count.
// Aliasing: y may be x where the result has the dtype of x. No other overlap.
// Bytes: x is read once, y written once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"
#include "native/core/host_device.h"

namespace didr {

// The order is part of the interface with TypeScript (lib/tensor/elementwise.ts).
enum class Unary : int32_t {
  kNeg,
  kAbs,
  kSquare,
  kSqrt,
  kRsqrt,
  kReciprocal,
  kExp,
  kLog,
  kTanh,
  kSigmoid,
  kSilu,
  kGelu,
  kGeluTanh,
  kRelu,
  kSign,
  kFloor,
  kSin,
  kCos,
  kIsFinite,
  kLogicalNot,
  kClip,
};
inline constexpr Unary kLastUnary = Unary::kClip;

struct UnaryArgs {
  const void* x;
  void* y;
  int64_t count;
  Unary kind;
  DType dtype;  // of x
  double lo;    // clip only; rounded to float32 beside floats
  double hi;
};

DIDR_HOST_DEVICE constexpr bool supports(Unary kind, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kBFloat16:
      return true;
    case DType::kInt32:
      return kind == Unary::kNeg || kind == Unary::kAbs || kind == Unary::kSquare ||
             kind == Unary::kSign || kind == Unary::kClip || kind == Unary::kLogicalNot;
    case DType::kUint8:
      return kind == Unary::kLogicalNot;
    case DType::kFloat16:
      return false;
  }
  return false;
}

// The dtype of y.
DIDR_HOST_DEVICE constexpr DType resultOf(Unary kind, DType dtype) {
  return kind == Unary::kIsFinite || kind == Unary::kLogicalNot ? DType::kUint8 : dtype;
}

}  // namespace didr
