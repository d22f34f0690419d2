#include "native/ops/didr/denoising_loss.h"

#include <cmath>

#include "native/ops/random/normal.h"
#include "test/native/didr/schedules.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

constexpr uint64_t kSeed = 77;
constexpr uint64_t kOffset = uint64_t{5} << 33;

struct Expected {
  std::vector<double> loss, gradient;
};

// The definition, in float64, with the noise of the normal draw.
template <class T>
Expected reference(const Shape& shape, Prediction prediction, const std::vector<T>& x0,
                   const std::vector<T>& output, const std::vector<float>& coefficients,
                   const std::vector<float>& weights) {
  Expected expected;
  const double elements = static_cast<double>(shape.sampleSize);
  for (int64_t b = 0; b < shape.batch; ++b) {
    const double alpha = coefficients[static_cast<size_t>(2 * b)];
    const double sigma = coefficients[static_cast<size_t>(2 * b + 1)];
    const double weight = weights.empty() ? 1.0 : weights[static_cast<size_t>(b)];
    double sum = 0.0;
    for (int64_t j = 0; j < shape.sampleSize; ++j) {
      const int64_t i = b * shape.sampleSize + j;
      const double eps = normalDraw(kSeed, kOffset, static_cast<uint64_t>(i / 4)).value[i % 4];
      const double x = toFloat(x0[static_cast<size_t>(i)]);
      double target = 0.0;
      switch (prediction) {
        case Prediction::kEpsilon:
          target = eps;
          break;
        case Prediction::kX0:
          target = x;
          break;
        case Prediction::kV:
          target = alpha * eps - sigma * x;
          break;
        case Prediction::kFlow:
          target = eps - x;
          break;
      }
      const double difference = toFloat(output[static_cast<size_t>(i)]) - target;
      sum += difference * difference;
      expected.gradient.push_back(2.0 * weight * difference /
                                  (elements * static_cast<double>(shape.batch)));
    }
    expected.loss.push_back(shape.sampleSize == 0 ? 0.0 : weight * sum / elements);
  }
  return expected;
}

template <class T>
void checkLoss(const Shape& shape, Schedule schedule, Prediction prediction, bool weighted) {
  CAPTURE(shape.batch);
  CAPTURE(shape.sampleSize);
  CAPTURE(static_cast<int>(prediction));
  CAPTURE(static_cast<int>(schedule));
  const int64_t count = shape.batch * shape.sampleSize;
  const std::vector<T> clean = someValues<T>(count, 1), output = someValues<T>(count, 2, 1.5f);
  std::vector<float> coefficients = coefficientsOf(schedule, shape.batch), weights;
  if (weighted)
    for (int64_t b = 0; b < shape.batch; ++b) weights.push_back(0.25f + static_cast<float>(b % 5));
  const Expected expected = reference(shape, prediction, clean, output, coefficients, weights);
  atEveryLevel([&](const auto& launch) {
    Guarded<T> x0(clean), outputs(output), gradient(count);
    Guarded<float> alphaSigma(coefficients), factors(weights), loss(shape.batch);
    Guarded<int32_t> nonFinite(shape.batch);
    Guarded<double> workspace(denoisingLossWorkspace(shape.batch, shape.sampleSize));
    launch(
        Op::denoisingLoss,
        DenoisingLossArgs{prediction == Prediction::kEpsilon ? nullptr : x0.data(), outputs.data(),
                          alphaSigma.data(), weighted ? factors.data() : nullptr, loss.data(),
                          gradient.data(), nonFinite.data(), workspace.data(), shape.batch,
                          shape.sampleSize, kSeed, kOffset, prediction, DTypeOf<T>::value});
    const double relative = sizeof(T) == 4 ? 1e-5 : 1e-2;
    int64_t wrong = 0;
    for (int64_t b = 0; b < shape.batch; ++b) {
      const double value = expected.loss[static_cast<size_t>(b)];
      wrong += !(std::fabs(loss.data()[b] - value) <= 1e-5 * value);
      double largest = 0.0;
      const int64_t begin = b * shape.sampleSize, end = begin + shape.sampleSize;
      for (int64_t i = begin; i < end; ++i)
        largest = std::max(largest, std::fabs(expected.gradient[static_cast<size_t>(i)]));
      for (int64_t i = begin; i < end; ++i)
        wrong += !(std::fabs(toFloat(gradient.data()[i]) -
                             expected.gradient[static_cast<size_t>(i)]) <= relative * largest);
    }
    CHECK(wrong == 0);
    CHECK(nonFinite.values() == std::vector<int32_t>(static_cast<size_t>(shape.batch), 0));
    Bytes bytes;
    bytes.add(loss.values());
    bytes.add(gradient.values());
    return bytes;
  });
}

TEST_CASE_TEMPLATE("denoisingLoss equals its definition in float64", T, float, BFloat16) {
  for (const Prediction prediction : kPredictions) {
    for (const Schedule schedule : kSchedules) checkLoss<T>({13, 129}, schedule, prediction, true);
    for (const Shape& shape : kShapes) checkLoss<T>(shape, Schedule::kFlow, prediction, false);
  }
}

TEST_CASE("denoisingLoss on a million elements") {
  checkLoss<float>({1, 1000003}, Schedule::kFlow, Prediction::kFlow, false);
  checkLoss<float>({3, 100001}, Schedule::kVp, Prediction::kX0, true);
}

TEST_CASE_TEMPLATE("denoisingLoss counts infinities and NaNs by sample, in what it reads", T, float,
                   BFloat16) {
  for (const Prediction prediction : kPredictions) {
    for (const int64_t sampleSize : {1, 5, 64, 20000}) {
      CAPTURE(static_cast<int>(prediction));
      CAPTURE(sampleSize);
      const int64_t batch = 4;
      std::vector<T> clean = someValues<T>(batch * sampleSize, 4),
                     output = someValues<T>(batch * sampleSize, 5);
      std::vector<int32_t> expected(4);
      clean[static_cast<size_t>(sampleSize)] = storeAs(T{}, INFINITY);
      expected[1] += prediction != Prediction::kEpsilon;
      output[static_cast<size_t>(2 * sampleSize - 1)] = storeAs(T{}, NAN);
      expected[1] += 1;
      output[static_cast<size_t>(3 * sampleSize)] = storeAs(T{}, -INFINITY);
      expected[3] += 1;
      clean[0] = storeAs(T{}, 3e38f);  // its square overflows, but it is finite
      Guarded<float> alphaSigma(coefficientsOf(Schedule::kFlow, batch));
      atEveryLevel([&](const auto& launch) {
        Guarded<T> x0(clean), outputs(output), gradient(batch * sampleSize);
        Guarded<float> loss(batch);
        Guarded<int32_t> nonFinite(batch);
        Guarded<double> workspace(denoisingLossWorkspace(batch, sampleSize));
        launch(Op::denoisingLoss,
               DenoisingLossArgs{x0.data(), outputs.data(), alphaSigma.data(), nullptr, loss.data(),
                                 gradient.data(), nonFinite.data(), workspace.data(), batch,
                                 sampleSize, kSeed, kOffset, prediction, DTypeOf<T>::value});
        CHECK(nonFinite.values() == expected);
        CHECK(std::isfinite(loss.data()[2]));
        CHECK_FALSE(std::isfinite(loss.data()[1]));
        return Bytes();
      });
    }
  }
}

}  // namespace
}  // namespace didr::test
