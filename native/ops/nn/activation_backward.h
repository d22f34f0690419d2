// Contract of `activationBackward`: dx_i = dy_i f'(x_i), x the input of the activation.
//
// Activations are those of `matmul` and `unary`; none gives dx = dy. relu'(0) = 0. Infinite inputs
// have the limits of the derivatives, NaN gives NaN.
// dtypes: float32; bfloat16, computed in float32 and rounded once.
// Aliasing: dx may be dy or x. Bytes: x and dy are read once, dx written once.
#pragma once

#include <cstdint>

#include "native/ops/matmul/matmul.h"

namespace didr {

struct ActivationBackwardArgs {
  const void* x;
  const void* dy;
  void* dx;
  int64_t count;
  Activation activation;
  DType dtype;
};

}  // namespace didr
