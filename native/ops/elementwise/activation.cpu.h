// The activations as vector functions, for the elementwise op and for what fuses them.
#pragma once

#include "native/core/simd.h"
#include "native/core/simd_math.h"

namespace didr {
namespace DIDR_LEVEL {
namespace simd {

// The most negative finite float in the place of -inf: -inf times a zero would be NaN.
DIDR_SIMD F32 aboveMinusInfinity(F32 x) { return max(broadcast(-0x1.fffffep127f), x); }

DIDR_SIMD F32 relu(F32 x) { return max(zero(), x); }
DIDR_SIMD F32 silu(F32 x) { return aboveMinusInfinity(x) * sigmoid(x); }
DIDR_SIMD F32 gelu(F32 x) { return aboveMinusInfinity(x) * normalCdf(x); }
// (1 + tanh u) / 2 = sigmoid(2u), without the cancellation for negative u.
DIDR_SIMD F32 geluTanh(F32 x) {
  constexpr float kTwiceSqrt2OverPi = 0x1.988454p0f;
  const F32 cubic = x * fma(x * x, broadcast(0.044715f), broadcast(1.0f));
  return aboveMinusInfinity(x) * sigmoid(cubic * kTwiceSqrt2OverPi);
}

}  // namespace simd
}  // namespace DIDR_LEVEL
}  // namespace didr
