// Contract of `denoisingLoss`: denoising score matching for the assistant (Vincent, "A connection
// between score matching and denoising autoencoders", 2011), value and gradient in one pass.
//
//   target_bj     by the prediction type (prediction.h) from eps_bj and x0_bj; eps is drawn again
//                 from (seed, offset) and is the float32 noise of `perturb` bit for bit, so it is
//                 never stored
//   loss_b        weight_b * mean_j (output_bj - target_bj)^2
//   gradient_bj   2 weight_b (output_bj - target_bj) / (sampleSize * batch), the gradient of the
//                 mean of loss_b
//
// Shapes: x0, output, gradient [batch, sampleSize]; coefficients [batch][2] = (alpha, sigma);
// weights, loss, nonFinite [batch].
// dtypes: float32 and bfloat16, the same for x0, output and gradient; losses are float32.
// Reads only what the prediction needs: x0 is not read for `epsilon` (it may be null), no noise is
// drawn for `x0`.
// Aliasing: gradient may be output; bad values are counted in what was written then. Nothing else
// overlaps.
// A sample of no elements has loss 0.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"
#include "native/ops/didr/prediction.h"

namespace didr {

struct DenoisingLossArgs {
  const void* x0;
  const void* output;         // the network's raw output
  const float* coefficients;  // per sample: alpha, sigma
  const float* weights;       // per sample; null: 1
  float* loss;                // per sample, weighted
  void* gradient;
  int32_t* nonFinite;  // per sample: infinities and NaNs in what was read; overwritten
  double* workspace;   // denoisingLossWorkspace() doubles
  int64_t batch;
  int64_t sampleSize;
  uint64_t seed;
  uint64_t offset;
  Prediction prediction;
  DType dtype;
};

// Elements per partial sum. Runs start at multiples of this in the flat [batch * sampleSize] order
// (where random blocks are aligned) and end at sample boundaries too; the piece of sample b in run
// k has workspace slot b + k.
inline constexpr int64_t kDenoisingLossRun = 8192;

DIDR_HOST_DEVICE int64_t denoisingLossWorkspace(int64_t batch, int64_t sampleSize) {
  return batch + (batch * sampleSize + kDenoisingLossRun - 1) / kDenoisingLossRun;
}

}  // namespace didr
