// Contract of `cast`: y_i = x_i in another dtype, for every pair of dtypes.
//
// To float32, bfloat16 and float16: rounded once to nearest even; overflow to infinity; NaN stays
// NaN (native/core/dtype.h); int32 to a 16-bit float goes through float32, so it is rounded twice.
// To int32 and uint8: truncated towards zero and saturated; NaN gives 0.
// Aliasing: none. Bytes: x is read once, y written once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct CastArgs {
  const void* x;
  void* y;
  int64_t count;
  DType from;
  DType to;
};

}  // namespace didr
