// Contract of `softmax`: y[o, a, i] = exp(x[o, a, i] - m) / sum_a exp(x[o, a, i] - m), m the
// largest element along a.
//
// x and y are contiguous [outer, axis, inner]. A slice with a NaN or +inf, or of -inf alone, is NaN.
// dtypes: float32; bfloat16, computed in float32 and rounded once. Sums are float32 over 16 logical
// lanes within fixed blocks, blocks added in float64.
// Aliasing: y may be x. Bytes: x is read and y written once where a slice fits the second cache.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct SoftmaxArgs {
  const void* x;
  void* y;
  DType dtype;
  int64_t outer;
  int64_t axis;
  int64_t inner;
};

}  // namespace didr
