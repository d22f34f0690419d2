// silu together with its derivative, which share a sigmoid.
#pragma once

#include "native/ops/elementwise/activation.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace simd {

struct Silu {
  F32 value;  // x s, s = sigmoid(x)
  F32 slope;  // s (1 + x (1 - s))
};
DIDR_SIMD Silu siluWithSlope(F32 x) {
  const F32 s = sigmoid(x);
  const F32 value = aboveMinusInfinity(x) * s;
  // Far out 1 - s is an exact zero, which an infinite value would turn into NaN.
  return {value, fma(min(broadcast(120.0f), value), 1.0f - s, s)};
}

}  // namespace simd
}  // namespace DIDR_LEVEL
}  // namespace didr
