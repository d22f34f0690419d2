// Contract of `ema`: moves a list of averages towards a list of values.
//
//   average += (1 - decay) (value - average)
//
// average: float32, since what a step adds is below the resolution of bfloat16. value: float32 or bfloat16. Both of a row
// have `count` elements and do not overlap.
#pragma once

#include "native/ops/optim/tensor_list.h"

namespace didr {

struct EmaRow {
  float* average;
  const void* value;
  int64_t count;
  int64_t firstBlock;
  DType dtype;  // of value
};

struct EmaArgs {
  const EmaRow* rows;
  int64_t tensors;
  int64_t blocks;
  double decay;
};

}  // namespace didr
