// What a denoising network predicts, as affine maps between its output, x_t, the clean sample and
// the noise.
//
// With x_t = alpha x0 + sigma eps:
//   epsilon   o = eps
//   x0        o = x0
//   v         o = alpha eps - sigma x0   (Salimans and Ho, arXiv 2202.00512)
//   flow      o = eps - x0               (Lipman et al., arXiv 2210.02747)
//
// Coefficients are formed once per sample in double precision and rounded once, at the element
// loop.
#pragma once

#include <cstdint>

#include "native/core/host_device.h"

namespace didr {

// The order is part of the interface with TypeScript.
enum class Prediction : int32_t { kEpsilon = 0, kX0 = 1, kV = 2, kFlow = 3 };

// The denoiser xhat0 = xt * x_t + output * o.
struct DenoiserCoefficients {
  double xt;
  double output;
};

// alpha > 0 for epsilon; alpha^2 + sigma^2 > 0 for v; alpha + sigma > 0 for flow.
DIDR_HOST_DEVICE DenoiserCoefficients denoiserOf(Prediction prediction, double alpha,
                                                 double sigma) {
  switch (prediction) {
    case Prediction::kEpsilon:
      return {1.0 / alpha, -sigma / alpha};
    case Prediction::kX0:
      return {0.0, 1.0};
    case Prediction::kV: {
      const double power = alpha * alpha + sigma * sigma;
      return {alpha / power, -sigma / power};
    }
    case Prediction::kFlow:
      return {1.0 / (alpha + sigma), -sigma / (alpha + sigma)};
  }
  return {0.0, 0.0};
}

// The regression target of denoising score matching, noise * eps + x0 * x0.
struct TargetCoefficients {
  double noise;
  double x0;
};

DIDR_HOST_DEVICE TargetCoefficients targetOf(Prediction prediction, double alpha, double sigma) {
  switch (prediction) {
    case Prediction::kEpsilon:
      return {1.0, 0.0};
    case Prediction::kX0:
      return {0.0, 1.0};
    case Prediction::kV:
      return {alpha, -sigma};
    case Prediction::kFlow:
      return {1.0, -1.0};
  }
  return {0.0, 0.0};
}

}  // namespace didr
