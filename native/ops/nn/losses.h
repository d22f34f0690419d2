// Contracts of the losses: value and gradient in one pass.
//
//   crossEntropy:  loss = mean over rows n of logSumExp(x_n) - x_n[target_n]
//                  gradient[n, c] = (softmax(x_n)[c] - [c = target_n]) / rows
//   mse:           loss = mean over i of (x_i - y_i)^2,  gradient_i = 2 (x_i - y_i) / count,
//                  with respect to x (that of y is its negative)
//
// Shapes: crossEntropy: x, gradient [rows, classes], targets [rows]; mse: x, y, gradient [count];
// loss: one float. No rows or elements: loss NaN. A target outside [0, classes) is refused: the op
// fails (ERR_RANGE) at the next wait and the outputs are not to be used. A device whose kernels cannot
// fail an op counts such targets in `outside`, for the op to fail by; the loss is NaN. The CPU leaves
// `outside` alone.
// dtypes: x, y and gradient float32 or bfloat16 (computed in float32); targets int32; loss float32.
// `partials` is scratch of `rows` or msePartials() floats, for the losses per row or run; only CUDA
// uses it. The sum runs over fixed blocks, in float64 across blocks: threads and levels change no
// bit.
// Aliasing: gradient may be x (mse: or y). Bytes: each operand once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

// Elements per partial sum of mse.
inline constexpr int64_t kMseRun = 8192;

constexpr int64_t msePartials(int64_t count) { return (count + kMseRun - 1) / kMseRun; }

inline constexpr const char* kTargetOutside = "a target lies outside the classes";

struct CrossEntropyArgs {
  const void* x;
  const int32_t* targets;
  float* loss;
  void* gradient;
  float* partials;
  int32_t* outside;  // one
  int64_t rows;
  int64_t classes;
  DType dtype;
};

struct MseArgs {
  const void* x;
  const void* y;
  float* loss;
  void* gradient;
  float* partials;
  int64_t count;
  DType dtype;
};

}  // namespace didr
