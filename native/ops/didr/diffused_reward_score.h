// Contracts of the particle estimators of the diffused reward score (arXiv 2605.24001): weights,
// weighted particles and weighted reward gradients.
//
//   w_nb                     softmax over n of rewards_nb * inverseBeta (the largest reward is
//                            subtracted first)
//   effectiveSampleSize_b    1 / sum_n w_nb^2: 1 when one particle has all the weight,
//                            particleCount when all have the same
//   softmaxWeights           writes w alone
//   diffusedRewardScore      score_b = (alpha/sigma^2) (sum_n w_n x_n - mean_n x_n) for posterior
//                            samples x_n of x0 given x_t: the score of p*_t less that of p_t.
//                            Computed as sum_n (w_n - 1/N) (x_n - x_0): the coefficients add up to
//                            zero, so a common part may be taken out of all particles, and rounding
//                            then scales with their spread instead of their size.
//   weightedRewardGradient   score_b = factor_b sum_n w_n g_n, then scaled down to an L2 norm of
//                            maxNorm over the sample where it is above (maxNorm 0: never). factor
//                            is 1/beta, or 1/(beta + kappa v_t) for the `damped` estimator (arXiv
//                            2606.02884).
//
// Shapes: rewards, weights [particleCount, batch]; particles, gradients [particleCount, batch,
// sampleSize]; score [batch, sampleSize]; coefficients [batch][2] = (alpha, sigma); factor,
// effectiveSampleSize, norm, nonFinite [batch]. particleCount >= 1.
// dtypes: float32 and bfloat16 for particles, gradients and score; rewards and weights are float32.
// Nothing overlaps.
// Bytes: every particle is read once; score is written once (read and written again where a sample
// is clipped).
#pragma once

#include <cstdint>

#include "native/core/dtype.h"
#include "native/core/host_device.h"

namespace didr {

struct SoftmaxWeightsArgs {
  const float* rewards;
  float* weights;
  float* effectiveSampleSize;
  int32_t* nonFinite;  // per sample: infinities and NaNs in rewards; overwritten
  int64_t particleCount;
  int64_t batch;
  float inverseBeta;
};

struct DiffusedRewardScoreArgs {
  const void* particles;
  const float* rewards;
  const float* coefficients;
  void* score;
  float* weights;  // an output, and where the kernel keeps them: never null
  float* effectiveSampleSize;
  int32_t* nonFinite;  // per sample: infinities and NaNs in rewards and particles; overwritten
  int64_t particleCount;
  int64_t batch;
  int64_t sampleSize;
  float inverseBeta;
  DType dtype;
};

struct WeightedRewardGradientArgs {
  const void* gradients;
  const float* rewards;
  const float* factor;
  void* score;
  float* weights;  // an output, and where the kernel keeps them: never null
  float* effectiveSampleSize;
  float* norm;         // per sample: L2 norm of the score before clipping
  int32_t* nonFinite;  // per sample: infinities and NaNs in rewards and gradients; overwritten
  double* workspace;   // weightedRewardGradientWorkspace() doubles
  int64_t particleCount;
  int64_t batch;
  int64_t sampleSize;
  float inverseBeta;
  float maxNorm;
  DType dtype;
};

// Elements of one sample that are summed over all particles at once; partial norms are per run,
// added in order.
inline constexpr int64_t kParticleRun = 1024;

DIDR_HOST_DEVICE int64_t particleRunsPerSample(int64_t sampleSize) {
  return (sampleSize + kParticleRun - 1) / kParticleRun;
}
DIDR_HOST_DEVICE int64_t weightedRewardGradientWorkspace(int64_t batch, int64_t sampleSize) {
  return batch * particleRunsPerSample(sampleSize);
}

}  // namespace didr
