// Contract of `scaledAdd`: y = a + scale * b, a and b of one shape.
//
// One fused multiply-add per element, rounded once. dtypes: float32; bfloat16, computed in float32 and rounded once.
// Aliasing: y may be a or b. Bytes: a and b are read once, y is written once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct ScaledAddArgs {
  const void* a;
  const void* b;
  void* y;
  int64_t count;
  DType dtype;
  float scale;
};

}  // namespace didr
