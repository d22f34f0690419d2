// Contract of `integralKL`: the cotangent of the Integral KL on x0 and each sample's score
// differences, in one pass.
//
// With denoisers xhat0 = a x_t + b o of the raw network outputs o (prediction.h), the guided
// teacher o~ = uncond + guidance (cond - uncond) (affine, so the same in output space as in score
// space), and s_r the diffused reward score (arXiv 2605.24001):
//
//   difference    xhat0_assistant - xhat0_teacher = (sigma^2 / alpha) (s_psi - s_ref)
//   residual      difference - (sigma^2 / alpha) s_r
//   gradient      gradientScale w (alpha^2 / sigma^2) residual
//                 = gradientScale w alpha (s_psi - s_ref - s_r)
//   target_b      sum_j (alpha/sigma residual_bj)^2 = || sigma (s_psi - s_ref - s_r) ||^2
//   reference_b   sum_j (alpha/sigma difference_bj)^2 = || sigma (s_psi - s_ref) ||^2
//
// Weightings:
//   x0        w = sigma^2 / alpha^2
//   sigma2    w = sigma^2
//   dmd       as x0, divided by max(mean_j |x0 - xhat0_teacher|, kDmdFloor) of the sample (DMD2,
//             arXiv 2405.14867)
//   uniform   w = 1
//   custom    w = weights[b]
//
// The accumulator has one double per bin and row. A sample with bin k adds target_b to row 0,
// reference_b to row 1 and 1 to row 2, in sample order, so that batches of any size that visit the
// same samples leave the same bits. A sample adds nothing when its bin is negative or not below
// binCount, or when one of its two sums is not finite.
//
// Shapes: x0, xt, assistant, teacher, teacherUncond, drs, gradient [batch, sampleSize];
// coefficients [batch][2] = (alpha, sigma), both positive; weights, bins, target, reference,
// nonFinite [batch]; accumulator [3][binCount].
// dtypes: float32 and bfloat16, the same for all arrays of elements; target and reference are
// float32 outputs of float64 totals.
// Reads only what is needed: x0 for dmd alone; xt for dmd, or where the two predictions differ.
// What is not read may be null and is not checked for finite values.
// Aliasing: except with dmd, gradient may be any one of the element inputs; bad values are counted
// in what was written there then. Nothing else overlaps.
// Sums: in runs of kIntegralKLRun elements from the sample's start, runs added in order in float64.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"
#include "native/ops/didr/prediction.h"

namespace didr {

// The order is part of the interface with TypeScript.
enum class Weighting : int32_t { kX0 = 0, kSigma2 = 1, kDmd = 2, kUniform = 3, kCustom = 4 };

struct IntegralKLArgs {
  const void* x0;
  const void* xt;
  const void* assistant;
  const void* teacher;        // the conditional teacher
  const void* teacherUncond;  // null: the teacher as it is, guidance is not used
  const void* drs;            // null: zero
  const float* coefficients;  // per sample: alpha, sigma
  const float* weights;       // per sample, custom weighting only
  const int32_t* bins;        // per sample; not read when accumulator is null
  void* gradient;
  float* target;        // per sample
  float* reference;     // per sample
  int32_t* nonFinite;   // per sample: infinities and NaNs in what was read; overwritten
  double* accumulator;  // or null
  double* workspace;    // integralKLWorkspace() doubles
  int64_t batch;
  int64_t sampleSize;
  float guidance;
  float gradientScale;
  int32_t binCount;
  Prediction assistantPrediction;
  Prediction teacherPrediction;  // of teacher and teacherUncond
  Weighting weighting;
  DType dtype;
};

// Keeps the dmd cotangent finite when the teacher already agrees with x0 everywhere.
inline constexpr double kDmdFloor = 1e-6;

inline constexpr int64_t kIntegralKLRun = 8192;

DIDR_HOST_DEVICE int64_t integralKLRunsPerSample(int64_t sampleSize) {
  return (sampleSize + kIntegralKLRun - 1) / kIntegralKLRun;
}
// Per run: target sum, reference sum, dmd sum.
DIDR_HOST_DEVICE int64_t integralKLWorkspace(int64_t batch, int64_t sampleSize) {
  return 3 * batch * integralKLRunsPerSample(sampleSize);
}

// The per-sample scalars of the formulas above, without the dmd divisor.
struct IntegralKLCoefficients {
  double assistantXt, assistantOutput;
  double teacherXt, teacherOutput;
  double drs;       // sigma^2 / alpha
  double gradient;  // gradientScale w alpha^2 / sigma^2
  double norm;      // (alpha / sigma)^2
};

DIDR_HOST_DEVICE IntegralKLCoefficients integralKLCoefficients(const IntegralKLArgs& arguments,
                                                               int64_t sample) {
  const double alpha = arguments.coefficients[2 * sample];
  const double sigma = arguments.coefficients[2 * sample + 1];
  const DenoiserCoefficients assistant = denoiserOf(arguments.assistantPrediction, alpha, sigma);
  const DenoiserCoefficients teacher = denoiserOf(arguments.teacherPrediction, alpha, sigma);
  const double norm = (alpha / sigma) * (alpha / sigma);
  double weight = 1.0;  // w alpha^2 / sigma^2
  switch (arguments.weighting) {
    case Weighting::kX0:
    case Weighting::kDmd:
      break;
    case Weighting::kSigma2:
      weight = alpha * alpha;
      break;
    case Weighting::kUniform:
      weight = norm;
      break;
    case Weighting::kCustom:
      weight = arguments.weights[sample] * norm;
      break;
  }
  return {assistant.xt,
          assistant.output,
          teacher.xt,
          teacher.output,
          sigma * sigma / alpha,
          weight * arguments.gradientScale,
          norm};
}

DIDR_HOST_DEVICE bool integralKLReadsXt(const IntegralKLArgs& arguments) {
  return arguments.weighting == Weighting::kDmd ||
         arguments.assistantPrediction != arguments.teacherPrediction;
}

}  // namespace didr
