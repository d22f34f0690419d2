// Contract of `arange`: y_i = start + i * step in float64, then as `fill` converts its value.
// Every element is computed from its index, so errors do not add up.
// Bytes: y is written once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct ArangeArgs {
  void* y;
  int64_t count;
  DType dtype;
  double start;
  double step;
};

}  // namespace didr
