// The kernels of attention for bfloat16 on tensor cores, which attention.cu chooses where they apply.
#pragma once

#include "native/core/cuda_launch.h"
#include "native/ops/nn/attention.h"

namespace didr {

inline constexpr int64_t kMostTensorCoreElements = 128;  // of a head

void attentionBFloat16(const AttentionArgs& arguments, CudaContext& context);
void attentionBackwardBFloat16(const AttentionBackwardArgs& arguments, CudaContext& context);

}  // namespace didr
