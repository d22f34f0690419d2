// Failing an op for the non-finite values that it counted. Out of line, since kernels are compiled once per instruction
// level and must not share inline library code.
#pragma once

#include <cstdint>

#include "native/core/op.h"

namespace didr {

// What `counts` [batch] say: OK if none is above zero, else ERR_NONFINITE with `op`, the first sample and its count.
Status nonFiniteStatus(const char* op, const int32_t* counts, int64_t batch);

// What gradientNorm says when the norm is not finite: tensor `first` of `tensors` has `count`
// elements that are not, or, with `first` = -1, none has.
Status gradientStatus(int64_t tensors, int64_t first, int64_t count);

// Fails `context` so.
void refuseGradients(CpuContext& context, int64_t tensors, int64_t first, int64_t count);

// Fails `context` under the name `op` if any of `counts` [batch] is above zero.
void refuseNonFinite(CpuContext& context, const char* op, const int32_t* counts, int64_t batch);

}  // namespace didr
