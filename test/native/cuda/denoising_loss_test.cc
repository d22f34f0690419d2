#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

constexpr uint64_t kSeed = 77, kOffset = 3;
constexpr Prediction kPredictions[] = {Prediction::kEpsilon, Prediction::kX0, Prediction::kV,
                                       Prediction::kFlow};

template <class T>
struct DenoisingCase {
  Shape shape;
  Prediction prediction;
  bool weighted;
  std::vector<T> clean, raw;
  std::vector<float> coefficients, weights;

  DenoisingCase(Shape shape, Prediction prediction, bool weighted)
      : shape(shape),
        prediction(prediction),
        weighted(weighted),
        clean(someValues<T>(shape.batch * shape.sampleSize, 1)),
        raw(someValues<T>(shape.batch * shape.sampleSize, 2)),
        coefficients(someCoefficients(shape.batch)) {
    for (const float x : someValues<float>(shape.batch, 3)) weights.push_back(1.0f + 0.4f * x);
  }

  // `gradientOverOutput`: the gradient takes the place of the network's output.
  struct Result {
    std::vector<float> loss[2];  // CPU, CUDA
    std::vector<T> gradient[2];
    std::vector<int32_t> nonFinite[2];
  };
  Result run(bool gradientOverOutput) const {
    const int64_t count = shape.batch * shape.sampleSize;
    const Array<T> x0(clean), output(raw), separate(count);
    const Array<T>& gradient = gradientOverOutput ? output : separate;
    const Array<float> alphaSigma(coefficients), weight(weights), loss(shape.batch);
    const Array<int32_t> nonFinite(shape.batch);
    const Array<double> workspace(denoisingLossWorkspace(shape.batch, shape.sampleSize));
    runEverywhere(Op::denoisingLoss, [&](Side side) {
      return DenoisingLossArgs{prediction == Prediction::kEpsilon ? nullptr : x0.at(side),
                               output.at(side),
                               alphaSigma.at(side),
                               weighted ? weight.at(side) : nullptr,
                               loss.at(side),
                               gradient.at(side),
                               nonFinite.at(side),
                               workspace.at(side),
                               shape.batch,
                               shape.sampleSize,
                               kSeed,
                               kOffset,
                               prediction,
                               DTypeOf<T>::value};
    });
    workspace.cuda();
    return {{loss.cpu(), loss.cuda()},
            {gradient.cpu(), gradient.cuda()},
            {nonFinite.cpu(), nonFinite.cuda()}};
  }
};

template <class T>
void checkDenoisingLoss(const Shape& shape, Prediction prediction, bool weighted, bool inPlace) {
  CAPTURE(shape.batch);
  CAPTURE(shape.sampleSize);
  CAPTURE(static_cast<int>(prediction));
  const DenoisingCase<T> problem(shape, prediction, weighted);
  const auto result = problem.run(inPlace);
  const std::vector<int32_t> none(static_cast<size_t>(shape.batch), 0);
  REQUIRE(result.nonFinite[1] == none);

  const int64_t count = shape.batch * shape.sampleSize;
  const Array<float> draw(count);
  runEverywhere(Op::normal, [&](Side side) {
    return NormalArgs{draw.at(side), count, kSeed, kOffset, 0.0f, 1.0f, DType::kFloat32};
  });
  const std::vector<float> eps = draw.cpu();
  std::vector<double> losses, gradients;
  for (int64_t b = 0; b < shape.batch; ++b) {
    const auto s = static_cast<size_t>(b);
    const double alpha = problem.coefficients[2 * s], sigma = problem.coefficients[2 * s + 1];
    const double weight = weighted ? problem.weights[s] : 1.0;
    double sum = 0.0;
    for (int64_t j = 0; j < shape.sampleSize; ++j) {
      const auto i = static_cast<size_t>(b * shape.sampleSize + j);
      const double x0 = toFloat(problem.clean[i]);
      double target = 0.0;
      switch (prediction) {
        case Prediction::kEpsilon:
          target = eps[i];
          break;
        case Prediction::kX0:
          target = x0;
          break;
        case Prediction::kV:
          target = alpha * eps[i] - sigma * x0;
          break;
        case Prediction::kFlow:
          target = eps[i] - x0;
          break;
      }
      const double d = toFloat(problem.raw[i]) - target;
      sum += d * d;
      gradients.push_back(2.0 * weight * d / static_cast<double>(count));
    }
    losses.push_back(shape.sampleSize > 0 ? weight * sum / static_cast<double>(shape.sampleSize)
                                          : 0.0);
  }
  requireClose(asDoubles(result.loss[1]), losses, 2e-6);
  requireClose(asDoubles(result.gradient[1]), gradients, 2e-6 + 1.01 * kRounding<T>);
  requireClose(asDoubles(result.loss[1]), asDoubles(result.loss[0]), 2e-6);
  requireClose(asDoubles(result.gradient[1]), asDoubles(result.gradient[0]),
               2e-6 + 1.01 * kRounding<T>);
}

TEST_CASE_TEMPLATE("denoisingLoss: the CPU and float64", T, float, BFloat16) {
  int variant = 0;
  for (const Shape& shape : kShapes)
    for (const Prediction prediction : kPredictions) {
      checkDenoisingLoss<T>(shape, prediction, variant % 2 == 0, variant % 3 == 0);
      ++variant;
    }
}

TEST_CASE_TEMPLATE("denoisingLoss: non-finite values are counted per sample", T, float, BFloat16) {
  for (const Shape& shape : {Shape{4, 7}, {3, 3000}, {3, 8195}}) {
    for (const Prediction prediction : {Prediction::kEpsilon, Prediction::kFlow}) {
      CAPTURE(shape.sampleSize);
      DenoisingCase<T> problem(shape, prediction, true);
      const auto last = static_cast<size_t>(shape.sampleSize - 1);
      problem.clean[last] = storeAs(T{}, INFINITY);         // sample 0
      problem.raw[last + 1] = storeAs(T{}, NAN);            // sample 1
      problem.raw[2 * last + 1] = storeAs(T{}, -INFINITY);  // sample 1, its last
      const auto result = problem.run(false);
      std::vector<int32_t> expected(static_cast<size_t>(shape.batch), 0);
      expected[0] = prediction == Prediction::kEpsilon ? 0 : 1;  // which does not read x0
      expected[1] = 2;
      REQUIRE(result.nonFinite[1] == expected);
      REQUIRE(result.nonFinite[0] == expected);
      REQUIRE(std::isfinite(result.loss[1][2]));
    }
  }
}

}  // namespace
}  // namespace didr::test
