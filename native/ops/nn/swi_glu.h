// Contracts of `swiGlu`: y = silu(a) b, and `swiGluBackward`: da = dy b silu'(a), db = dy silu(a).
//
// silu(a) = a s, silu'(a) = s (1 + a (1 - s)), s = sigmoid(a) (Shazeer, "GLU variants improve
// transformer", arXiv 2002.05202).
// dtypes: float32; bfloat16, computed in float32 and rounded once.
// Aliasing: y may be a or b; da and db may be a, b or dy, each another one.
// Bytes: every operand once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct SwiGluArgs {
  const void* a;
  const void* b;
  void* y;
  int64_t count;
  DType dtype;
};

struct SwiGluBackwardArgs {
  const void* a;
  const void* b;
  const void* dy;
  void* da;
  void* db;
  int64_t count;
  DType dtype;
};

}  // namespace didr
