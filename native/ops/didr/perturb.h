// Contract of `perturb`: x_t = alpha_b x0 + sigma_b eps, eps drawn in registers.
//
//   eps     of sample b, element j: element b*sampleSize + j of the standard normal draw (seed,
//           offset) of native/ops/random/random.h, in float32
//   xt      fma(sigma_b, eps, alpha_b * x0), rounded to `dtype` at the end
//   noise   eps rounded to `dtype`
//
// Shapes: x0, xt, noise [batch, sampleSize]; coefficients [batch][2] = (alpha, sigma); nonFinite
// [batch].
// dtypes: float32 and bfloat16, the same for x0, xt and noise.
// Aliasing: xt may be x0; where an input is bad, values that overflow in xt are counted with it
// then. Nothing else overlaps.
// Bytes per element: reads x0, writes xt (and noise).
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct PerturbArgs {
  const void* x0;
  void* xt;
  void* noise;                // or null
  const float* coefficients;  // per sample: alpha, sigma
  int32_t* nonFinite;         // per sample: infinities and NaNs in x0; overwritten
  int64_t batch;
  int64_t sampleSize;
  uint64_t seed;
  uint64_t offset;
  DType dtype;
};

}  // namespace didr
