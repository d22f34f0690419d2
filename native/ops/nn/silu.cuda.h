// silu together with its derivative, which share a sigmoid: silu.cpu.h for a CUDA thread.
#pragma once

#include "native/core/cuda_math.h"

namespace didr {

struct Silu {
  float value;  // x s, s = sigmoid(x)
  float slope;  // s (1 + x (1 - s))
};
__device__ inline Silu siluWithSlope(float x) {
  const float s = scalar::sigmoid(x);
  const float value = scalar::aboveMinusInfinity(x) * s;
  // Far out 1 - s is an exact zero, which an infinite value would turn into NaN.
  return {value, __fmaf_rn(scalar::min(120.0f, value), 1.0f - s, s)};
}

}  // namespace didr
