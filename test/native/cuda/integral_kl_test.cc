#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

constexpr Prediction kPredictions[] = {Prediction::kEpsilon, Prediction::kX0, Prediction::kV,
                                       Prediction::kFlow};
constexpr Weighting kWeightings[] = {Weighting::kX0, Weighting::kSigma2, Weighting::kDmd,
                                     Weighting::kUniform, Weighting::kCustom};
constexpr int32_t kBinCount = 7;
constexpr float kGuidance = 2.5f;
constexpr float kGradientScale = 0.125f;

struct Options {
  Weighting weighting = Weighting::kX0;
  Prediction assistant = Prediction::kEpsilon;
  Prediction teacher = Prediction::kEpsilon;
  bool guided = false;
  bool drs = false;
};

// Inputs of a batch, and what the op has to make of them in float64.
template <class T>
struct Problem {
  Shape shape;
  Options options;
  std::vector<T> x0, xt, assistant, teacher, uncond, drs;
  std::vector<float> coefficients, weights;
  std::vector<int32_t> bins;

  Problem(Shape shape, Options options) : shape(shape), options(options) {
    const int64_t count = shape.batch * shape.sampleSize;
    x0 = someValues<T>(count, 1);
    xt = someValues<T>(count, 2);
    assistant = someValues<T>(count, 3);
    teacher = someValues<T>(count, 4);
    uncond = someValues<T>(count, 5);
    drs = someValues<T>(count, 6);
    coefficients = someCoefficients(shape.batch);
    for (int64_t b = 0; b < shape.batch; ++b) {
      weights.push_back(0.5f + static_cast<float>(b % 5));
      bins.push_back(static_cast<int32_t>((b * 5 + 2) % (kBinCount + 2)) -
                     1);  // -1 and 7 are outside
    }
  }

  double denoiser(Prediction prediction, double alpha, double sigma, double x, double o) const {
    switch (prediction) {
      case Prediction::kEpsilon:
        return (x - sigma * o) / alpha;
      case Prediction::kX0:
        return o;
      case Prediction::kV:
        return (alpha * x - sigma * o) / (alpha * alpha + sigma * sigma);
      case Prediction::kFlow:
        return (x - sigma * o) / (alpha + sigma);
    }
    return 0.0;
  }

  struct Expected {
    std::vector<double> gradient, gradientScale;  // and the size of its terms, per element
    std::vector<double> target, reference, sumScale;
  };

  // By way of the scores, as the method is written; the kernels stay among denoisers.
  Expected expected() const {
    Expected result;
    for (int64_t b = 0; b < shape.batch; ++b) {
      const auto s = static_cast<size_t>(b);
      const double alpha = coefficients[2 * s], sigma = coefficients[2 * s + 1];
      double weight = 1.0;
      switch (options.weighting) {
        case Weighting::kX0:
        case Weighting::kDmd:
          weight = sigma * sigma / (alpha * alpha);
          break;
        case Weighting::kSigma2:
          weight = sigma * sigma;
          break;
        case Weighting::kUniform:
          break;
        case Weighting::kCustom:
          weight = weights[s];
          break;
      }
      double distance = 0.0, distanceScale = 0.0;
      double target = 0.0, reference = 0.0, sumScale = 0.0;
      std::vector<double> gradients, scales;
      for (int64_t j = 0; j < shape.sampleSize; ++j) {
        const auto i = static_cast<size_t>(b * shape.sampleSize + j);
        const double x = toFloat(xt[i]);
        const double cond = denoiser(options.teacher, alpha, sigma, x, toFloat(teacher[i]));
        const double free = denoiser(options.teacher, alpha, sigma, x, toFloat(uncond[i]));
        const double mine = denoiser(options.assistant, alpha, sigma, x, toFloat(assistant[i]));
        const double guided = options.guided ? free + kGuidance * (cond - free) : cond;
        const auto score = [&](double denoised) {
          return (alpha * denoised - x) / (sigma * sigma);
        };
        const double reward = options.drs ? toFloat(drs[i]) : 0.0;
        const double between = score(mine) - score(guided);
        distance += std::fabs(toFloat(x0[i]) - guided);
        gradients.push_back(kGradientScale * weight * alpha * (between - reward));
        target += sigma * sigma * (between - reward) * (between - reward);
        reference += sigma * sigma * between * between;
        const double teacherTerms =
            (options.guided ? 1.0 + 2.0 * kGuidance : 1.0) * (std::fabs(cond) + std::fabs(free)) +
            std::fabs(x) * (1.0 + 1.0 / alpha);
        const double terms =
            alpha / (sigma * sigma) * (std::fabs(mine) + teacherTerms) + std::fabs(reward);
        distanceScale += std::fabs(toFloat(x0[i])) + teacherTerms;
        scales.push_back(kGradientScale * weight * alpha * terms);
        sumScale += sigma * sigma * terms * terms;
      }
      double divisor = 1.0;
      if (options.weighting == Weighting::kDmd)
        divisor = std::fmax(distance / static_cast<double>(shape.sampleSize), kDmdFloor);
      // A mean distance that is small by chance is as uncertain as its terms are large.
      const double uncertainty =
          options.weighting == Weighting::kDmd && distance > 0.0 ? distanceScale / distance : 0.0;
      for (size_t j = 0; j < gradients.size(); ++j) {
        result.gradient.push_back(gradients[j] / divisor);
        result.gradientScale.push_back((scales[j] + uncertainty * std::fabs(gradients[j])) /
                                       divisor);
      }
      result.target.push_back(target);
      result.reference.push_back(reference);
      result.sumScale.push_back(sumScale);
    }
    return result;
  }

  struct Result {
    std::vector<T> gradient[2];  // CPU, CUDA
    std::vector<float> target[2], reference[2];
    std::vector<double> accumulator[2];
    std::vector<int32_t> nonFinite[2];
  };

  // Samples [first, first + batch) of the problem, into an accumulator that holds `before`.
  Result run(int64_t first, int64_t batch, const std::vector<double>& before,
             bool inPlace = false) const {
    const auto slice = [&]<class V>(const std::vector<V>& values, int64_t perSample) {
      return std::vector<V>(values.begin() + first * perSample,
                            values.begin() + (first + batch) * perSample);
    };
    const int64_t size = shape.sampleSize, count = batch * size;
    const Array<T> clean(slice(x0, size)), noisy(slice(xt, size)), mine(slice(assistant, size)),
        cond(slice(teacher, size)), free(slice(uncond, size)), reward(slice(drs, size)),
        separate(count);
    const Array<T>& gradient = inPlace ? mine : separate;
    const Array<float> alphaSigma(slice(coefficients, 2)), weight(slice(weights, 1)), target(batch),
        reference(batch);
    const Array<int32_t> bin(slice(bins, 1)), nonFinite(batch);
    const Array<double> accumulator(before), workspace(integralKLWorkspace(batch, size));
    const bool readsXt =
        options.weighting == Weighting::kDmd || options.assistant != options.teacher;
    runEverywhere(Op::integralKL, [&](Side side) {
      IntegralKLArgs a = {};
      a.x0 = options.weighting == Weighting::kDmd ? clean.at(side) : nullptr;
      a.xt = readsXt ? noisy.at(side) : nullptr;
      a.assistant = mine.at(side);
      a.teacher = cond.at(side);
      a.teacherUncond = options.guided ? free.at(side) : nullptr;
      a.drs = options.drs ? reward.at(side) : nullptr;
      a.coefficients = alphaSigma.at(side);
      a.weights = options.weighting == Weighting::kCustom ? weight.at(side) : nullptr;
      a.bins = before.empty() ? nullptr : bin.at(side);
      a.gradient = gradient.at(side);
      a.target = target.at(side);
      a.reference = reference.at(side);
      a.nonFinite = nonFinite.at(side);
      a.accumulator = before.empty() ? nullptr : accumulator.at(side);
      a.workspace = workspace.at(side);
      a.batch = batch;
      a.sampleSize = size;
      a.guidance = kGuidance;
      a.gradientScale = kGradientScale;
      a.binCount = kBinCount;
      a.assistantPrediction = options.assistant;
      a.teacherPrediction = options.teacher;
      a.weighting = options.weighting;
      a.dtype = DTypeOf<T>::value;
      return a;
    });
    workspace.cuda();
    return {{gradient.cpu(), gradient.cuda()},
            {target.cpu(), target.cuda()},
            {reference.cpu(), reference.cuda()},
            {accumulator.cpu(), accumulator.cuda()},
            {nonFinite.cpu(), nonFinite.cuda()}};
  }
};

template <class T>
void checkIntegralKL(const Shape& shape, const Options& options, bool inPlace) {
  CAPTURE(shape.batch);
  CAPTURE(shape.sampleSize);
  CAPTURE(static_cast<int>(options.weighting));
  CAPTURE(static_cast<int>(options.assistant));
  CAPTURE(static_cast<int>(options.teacher));
  CAPTURE(options.guided);
  CAPTURE(options.drs);
  const Problem<T> problem(shape, options);
  const auto result = problem.run(0, shape.batch, {}, inPlace);
  REQUIRE(result.nonFinite[1] == std::vector<int32_t>(static_cast<size_t>(shape.batch), 0));

  const auto expected = problem.expected();
  requireEach(expected.gradient.size(), [&](size_t i) {
    const double want = expected.gradient[i];
    const double bound =
        1e-6 * expected.gradientScale[i] + 1.01 * kRounding<T> * std::fabs(want) + 1e-40;
    const double cuda = toFloat(result.gradient[1][i]), cpu = toFloat(result.gradient[0][i]);
    return std::fabs(cuda - want) <= bound && std::fabs(cuda - cpu) <= 2.0 * bound;
  });
  for (size_t b = 0; b < expected.target.size(); ++b) {
    const double bound = 1e-6 * expected.sumScale[b];
    REQUIRE(std::fabs(result.target[1][b] - expected.target[b]) <= bound);
    REQUIRE(std::fabs(result.reference[1][b] - expected.reference[b]) <= bound);
    REQUIRE(std::fabs(result.target[1][b] - result.target[0][b]) <= bound);
    REQUIRE(std::fabs(result.reference[1][b] - result.reference[0][b]) <= bound);
  }
}

TEST_CASE_TEMPLATE("integralKL: the CPU and float64, every weighting and pair of predictions", T,
                   float, BFloat16) {
  for (const Shape& shape : {Shape{3, 65}, {3, 1024}, {2, 8197}}) {
    if (kRaceDetection && shape.sampleSize > 65) continue;
    for (const Weighting weighting : kWeightings)
      for (const Prediction assistant : kPredictions)
        for (const Prediction teacher : kPredictions) {
          const int variant = static_cast<int>(assistant) + static_cast<int>(teacher);
          checkIntegralKL<T>(shape, {weighting, assistant, teacher, variant % 2 == 0, true}, false);
        }
  }
}

TEST_CASE_TEMPLATE("integralKL: the CPU and float64, every shape and option", T, float, BFloat16) {
  size_t variant = 0;
  for (const Shape& shape : kShapes)
    for (const bool guided : {false, true})
      for (const bool drs : {false, true})
        for (const Weighting weighting : {Weighting::kDmd, kWeightings[variant % 5]}) {
          const Options options = {weighting, kPredictions[variant % 4],
                                   kPredictions[(variant / 3) % 4], guided, drs};
          checkIntegralKL<T>(shape, options, weighting != Weighting::kDmd && variant % 2 == 0);
          ++variant;
        }
}

TEST_CASE_TEMPLATE("integralKL: dmd stays finite where the teacher agrees with x0", T, float,
                   BFloat16) {
  for (const Shape& shape : {Shape{2, 100}, {1, 9000}}) {
    Problem<T> problem(shape, {Weighting::kDmd, Prediction::kX0, Prediction::kX0, false, false});
    problem.teacher = problem.x0;
    const auto result = problem.run(0, shape.batch, {});
    for (const double x : asDoubles(result.gradient[1])) REQUIRE(std::isfinite(x));
    requireClose(asDoubles(result.gradient[1]), problem.expected().gradient,
                 2e-6 + 1.01 * kRounding<T>);
  }
}

// The float64 sums of the bins, by samples in order, of totals that are known as floats.
TEST_CASE_TEMPLATE("integralKL: the accumulator, and the same bits for any split", T, float,
                   BFloat16) {
  for (const Shape& shape : {Shape{40, 3}, {13, 700}, {150, 65}, {11, 8200}})
    for (const Weighting weighting : {Weighting::kX0, Weighting::kDmd}) {
      if (kRaceDetection && shape.sampleSize > 1000) continue;
      CAPTURE(shape.sampleSize);
      const Problem<T> problem(shape,
                               {weighting, Prediction::kEpsilon, Prediction::kV, true, true});
      std::vector<double> before;
      for (int i = 0; i < 3 * kBinCount; ++i) before.push_back(0.25 * i);
      const auto whole = problem.run(0, shape.batch, before);

      std::vector<double> expected = before;
      for (size_t b = 0; b < problem.bins.size(); ++b) {
        const int32_t bin = problem.bins[b];
        if (bin < 0 || bin >= kBinCount) continue;
        const auto k = static_cast<size_t>(bin);
        expected[k] += whole.target[1][b];
        expected[kBinCount + k] += whole.reference[1][b];
        expected[2 * kBinCount + k] += 1.0;
      }
      const std::vector<double>& cuda = whole.accumulator[1];
      for (size_t i = 0; i < cuda.size(); ++i) {
        REQUIRE(cuda[i] == doctest::Approx(expected[i]).epsilon(1e-6));
        REQUIRE(cuda[i] == doctest::Approx(whole.accumulator[0][i]).epsilon(1e-6));
        if (i >= 2 * kBinCount) REQUIRE(cuda[i] == expected[i]);
      }

      for (const int64_t cut : {int64_t{1}, shape.batch / 3, shape.batch - 1}) {
        const auto head = problem.run(0, cut, before);
        const auto tail = problem.run(cut, shape.batch - cut, head.accumulator[1]);
        REQUIRE(sameBits(tail.accumulator[1], cuda));
        std::vector<T> gradient = head.gradient[1];
        gradient.insert(gradient.end(), tail.gradient[1].begin(), tail.gradient[1].end());
        REQUIRE(sameBits(gradient, whole.gradient[1]));
      }
    }
}

TEST_CASE_TEMPLATE("integralKL: non-finite values are counted and kept out of the bins", T, float,
                   BFloat16) {
  for (const int64_t sampleSize : {5, 640, 8300}) {
    CAPTURE(sampleSize);
    const auto last = static_cast<size_t>(sampleSize) - 1;
    for (const Weighting weighting : {Weighting::kX0, Weighting::kDmd}) {
      Problem<T> problem({4, sampleSize},
                         {weighting, Prediction::kEpsilon, Prediction::kX0, true, true});
      problem.bins = {2, 2, 2, 2};
      problem.x0[last] = storeAs(T{}, NAN);                  // sample 0, read by dmd alone
      problem.assistant[last + 1] = storeAs(T{}, INFINITY);  // sample 1
      problem.uncond[last + 2] = storeAs(T{}, -INFINITY);    // sample 1
      problem.drs[3 * last + 2] = storeAs(T{}, NAN);         // sample 2, its last
      problem.xt[3 * last + 3] = storeAs(T{}, NAN);          // sample 3, its first
      const auto result = problem.run(0, 4, std::vector<double>(3 * kBinCount, 0.0));
      const bool dmd = weighting == Weighting::kDmd;
      const std::vector<int32_t> expected = {dmd ? 1 : 0, 2, 1, 1};
      REQUIRE(result.nonFinite[1] == expected);
      REQUIRE(result.nonFinite[0] == expected);
      // x0 reaches the gradient's divisor, not the sums.
      REQUIRE(result.accumulator[1][2 * kBinCount + 2] == 1.0);
      REQUIRE(result.accumulator[1][2] == doctest::Approx(result.target[1][0]));
      REQUIRE(result.accumulator[0][2 * kBinCount + 2] == 1.0);
    }
  }
}

}  // namespace
}  // namespace didr::test
