// Contract of `rope`: rotary position embedding of interleaved pairs.
//
//   (y_2i, y_2i+1) = (x_2i cos_i - x_2i+1 sin_i,  x_2i sin_i + x_2i+1 cos_i)
//   (Su et al., "RoFormer", arXiv 2104.09864); `inverse` rotates by the negative angle, which is
//   the backward pass of the forward rotation.
//
// Shapes: x, y [rows, heads, size], size even; cos, sin [tableRows, size / 2]; row r uses table row
// r mod tableRows (tableRows = tokens when every sample has the same positions, else rows).
// dtypes: x and y float32 or bfloat16, computed in float32 and rounded once; cos and sin float32.
// Aliasing: y may be x. Bytes: x and y once; a row's angles serve all heads from the first cache.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct RopeArgs {
  const void* x;
  const float* cos;
  const float* sin;
  void* y;
  int64_t rows;
  int64_t heads;
  int64_t size;
  int64_t tableRows;
  bool inverse;
  DType dtype;
};

}  // namespace didr
