// Coefficients (alpha, sigma) at the noise levels where the fused ops are tested.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "native/ops/didr/prediction.h"

namespace didr::test {

// Which schedule a batch's samples come from; their noise levels spread over its range.
enum class Schedule { kFlow, kVp, kEdm };
inline constexpr Schedule kSchedules[] = {Schedule::kFlow, Schedule::kVp, Schedule::kEdm};
inline constexpr Prediction kPredictions[] = {Prediction::kEpsilon, Prediction::kX0, Prediction::kV,
                                              Prediction::kFlow};

inline std::vector<float> coefficientsOf(Schedule schedule, int64_t batch) {
  std::vector<float> coefficients;
  for (int64_t b = 0; b < batch; ++b) {
    // 0.02 to 0.98, as in training.
    const double t = 0.02 + 0.96 * (static_cast<double>(b) + 0.5) / static_cast<double>(batch);
    double alpha = 1.0, sigma = 0.0;
    switch (schedule) {
      case Schedule::kFlow:
        alpha = 1.0 - t;
        sigma = t;
        break;
      case Schedule::kVp:
        alpha = std::cos(1.5707963267948966 * t);
        sigma = std::sin(1.5707963267948966 * t);
        break;
      case Schedule::kEdm:
        sigma = 0.002 * std::pow(80.0 / 0.002, t);
        break;
    }
    coefficients.push_back(static_cast<float>(alpha));
    coefficients.push_back(static_cast<float>(sigma));
  }
  return coefficients;
}

// Batches and sample sizes at the kernels' edges: nothing, one element, around vectors, groups,
// tiles and runs.
struct Shape {
  int64_t batch, sampleSize;
};
inline constexpr Shape kShapes[] = {
    {0, 5},  {3, 0},   {1, 1},    {7, 1},    {5, 3},    {3, 5},    {11, 17},   {3, 63},   {3, 64},
    {3, 65}, {2, 767}, {3, 1024}, {1, 8191}, {1, 8192}, {2, 8193}, {1, 24001}, {600, 33},
};

}  // namespace didr::test
