// Contract of `where`: y = condition != 0 ? a : b with broadcasting.
//
// y is contiguous of `shape`; the inputs are read through strides in elements, 0 where they are
// broadcast. Rank 0 is one element. Elements move as bits, so every dtype is supported and NaN
// payloads are kept.
// Aliasing: y may be a or b where that one is not broadcast and has the strides of y.
// Bytes: the condition, a and b are read at most once, y is written once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct WhereArgs {
  const uint8_t* condition;
  const void* a;
  const void* b;
  void* y;
  DType dtype;  // of a, b and y
  int32_t rank;
  int64_t shape[8];
  int64_t cStrides[8];
  int64_t aStrides[8];
  int64_t bStrides[8];
};

}  // namespace didr
