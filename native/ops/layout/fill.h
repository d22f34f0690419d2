// Contract of `fill`: every element of y is `value`, rounded to float32 and then to the dtype;
// for int32 and uint8 truncated towards zero and saturated, NaN gives 0.
// Bytes: y is written once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct FillArgs {
  void* y;
  int64_t count;
  DType dtype;
  double value;
};

}  // namespace didr
