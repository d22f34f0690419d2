// Contracts of `upsampleNearest2x`: y[p, 2i + u, 2j + w] = x[p, i, j] for u, w in {0, 1}, and of
// its backward pass: dx[p, i, j] = sum over u, w of dy[p, 2i + u, 2j + w].
//
// Shapes: x, dx [planes, height, width], y, dy [planes, 2 height, 2 width]; a plane is one channel
// of one image. dtypes: float32; bfloat16, added in float32 and rounded once.
// Aliasing: none. Bytes: x and y once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct UpsampleArgs {
  const void* x;
  void* y;
  int64_t planes;
  int64_t height;  // of x
  int64_t width;
  DType dtype;
};

struct UpsampleBackwardArgs {
  const void* dy;
  void* dx;
  int64_t planes;
  int64_t height;  // of dx
  int64_t width;
  DType dtype;
};

}  // namespace didr
