// Contracts of the random draws.
//
// Element i of a draw is a function of (seed, offset, i) alone: word i mod 4 (uniform), or a normal
// made from words 0 and 1, or 2 and 3 (normal), of the Philox4x32-10 block with counter (i div 4,
// offset) and key seed; see philox.h and normal.h. So a draw of n elements is the prefix of every
// longer one, and no thread count, instruction level or device changes a bit of it.
//
//   uniform   y = low + (high - low) u, where u = (word >> 8) / 2^24. A float32 result is below
//             high; a bfloat16 one may round to it.
//   normal    y = fma(std, n, mean)
//
// dtypes: float32; bfloat16, which is the float32 draw rounded.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct UniformArgs {
  void* y;
  int64_t count;
  uint64_t seed;
  uint64_t offset;
  float low;
  float high;
  DType dtype;
};

struct NormalArgs {
  void* y;
  int64_t count;
  uint64_t seed;
  uint64_t offset;
  float mean;
  float std;
  DType dtype;
};

}  // namespace didr
