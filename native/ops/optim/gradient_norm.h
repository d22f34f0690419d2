// Contract of `gradientNorm`: the Euclidean norm of a list of gradients taken as one vector, and what to do about it.
//
//   norm = sqrt(sum over tensors and elements of g^2)
//   clip = min(1, maxNorm / (norm + 1e-6))     as torch.nn.utils.clip_grad_norm_; maxNorm = infinity: 1
//   clip = NaN                                 when norm is not finite: `adamw` then changes nothing
//
// A norm that is not finite is the op's failure (ERR_NONFINITE, with the first tensor that has such elements and their
// number) at the next wait. Squares and sums are float64, so no finite float32 gradient overflows on the way. The order
// of summation depends on the sizes alone: on the CPU 16 lanes per block, blocks one after another.
//
// Gradients: float32 or bfloat16, each its own. norm, clip: float32 [1]. partials: one double per
// block. fault: what is wrong with the gradients, for a device whose kernels cannot fail an op; the
// CPU leaves it alone. Nothing overlaps.
#pragma once

#include "native/ops/optim/tensor_list.h"

namespace didr {

struct GradientRow {
  const void* gradient;
  int64_t count;
  int64_t firstBlock;
  DType dtype;
};

// Of `tensors`, the first with elements that are not finite, and their number. `tensors` is 0 where
// the norm is finite; `first` is -1 where the elements are, and only their norm is past float32.
struct GradientFault {
  int64_t tensors;
  int64_t first;
  int64_t count;
};

struct GradientNormArgs {
  const GradientRow* rows;
  int64_t tensors;
  int64_t blocks;
  double* partials;
  float* norm;
  float* clip;
  double maxNorm;
  GradientFault* fault = nullptr;
};

}  // namespace didr
