// Contract of `adamw`: one AdamW step (Loshchilov and Hutter, arXiv 1711.05101, in the form of torch.optim.AdamW) of a list of
// parameters, in one pass.
//
//   step += 1
//   g = clip * gradient
//   m += (1 - beta1) (g - m)
//   v  = beta2 v + (1 - beta2) g^2
//   p -= learningRate (weightDecay p + m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps))
//
// The clip factor and the step counts are read on the device, so nothing waits for the host: `gradientNorm` writes
// clip, and where that is NaN (a gradient is not finite) nothing at all is changed. Every parameter has a count of its
// own, since one that gets no gradient takes no step.
//
// parameter: float32, or bfloat16 with a float32 master copy that holds the value between steps; the rounded value is
// written in the same pass. gradient: float32 or bfloat16. Moments: float32. step: int32 [1] each. All of one row have
// `count` elements. Nothing overlaps.
#pragma once

#include "native/ops/optim/tensor_list.h"

namespace didr {

struct AdamwRow {
  void* parameter;
  const void* gradient;
  float* firstMoment;
  float* secondMoment;
  float* master;  // null for a float32 parameter
  int32_t* step;
  int64_t count;
  int64_t firstBlock;
  double learningRate;
  double beta1;
  double beta2;
  double eps;
  double weightDecay;
  DType parameterDType;
  DType gradientDType;
};

struct AdamwArgs {
  const AdamwRow* rows;
  int64_t tensors;
  int64_t blocks;
  const float* clip;
};

}  // namespace didr
