#include "native/ops/didr/integral_kl.h"

#include <algorithm>
#include <cmath>

#include "native/ops/random/normal.h"
#include "test/native/didr/schedules.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

constexpr Weighting kWeightings[] = {Weighting::kX0, Weighting::kSigma2, Weighting::kDmd,
                                     Weighting::kUniform, Weighting::kCustom};
constexpr float kGuidance = 3.5f;
constexpr float kScale = 0.5f;
constexpr int32_t kBins = 7;

// One call's inputs.
template <class T>
struct Case {
  Shape shape;
  Schedule schedule;
  Prediction assistantPrediction, teacherPrediction;
  Weighting weighting;
  bool guided, rewarded;
  std::vector<T> x0, xt, assistant, teacher, uncond, drs;
  std::vector<float> coefficients, weights;
  std::vector<int32_t> bins;

  Case(const Shape& shape, Schedule schedule, Prediction assistantPrediction,
       Prediction teacherPrediction, Weighting weighting, bool guided, bool rewarded)
      : shape(shape),
        schedule(schedule),
        assistantPrediction(assistantPrediction),
        teacherPrediction(teacherPrediction),
        weighting(weighting),
        guided(guided),
        rewarded(rewarded),
        coefficients(coefficientsOf(schedule, shape.batch)) {
    const int64_t count = shape.batch * shape.sampleSize;
    x0 = someValues<T>(count, 1);
    xt = someValues<T>(count, 2);
    assistant = someValues<T>(count, 3);
    teacher = someValues<T>(count, 4);
    uncond = someValues<T>(count, 5);
    drs = someValues<T>(count, 6, 0.3f);
    for (int64_t b = 0; b < shape.batch; ++b) {
      weights.push_back(0.5f + 0.25f * static_cast<float>(b % 6));
      bins.push_back(static_cast<int32_t>(b % (kBins + 2)) - 1);  // some outside, on both sides
    }
  }
};

// A guess at xhat0 in float64, from the definition of each prediction.
double denoised(Prediction prediction, double alpha, double sigma, double xt, double output) {
  switch (prediction) {
    case Prediction::kEpsilon:
      return (xt - sigma * output) / alpha;
    case Prediction::kX0:
      return output;
    case Prediction::kV:  // alpha xt - sigma v = (alpha^2 + sigma^2) x0
      return (alpha * xt - sigma * output) / (alpha * alpha + sigma * sigma);
    case Prediction::kFlow:  // xt - sigma o = (alpha + sigma) x0
      return (xt - sigma * output) / (alpha + sigma);
  }
  return NAN;
}

struct Expected {
  std::vector<double> gradient, target, reference;
};

// By way of scores, unlike the kernel: s = (alpha xhat0 - xt) / sigma^2.
template <class T>
Expected expectedOf(const Case<T>& c) {
  Expected expected;
  for (int64_t b = 0; b < c.shape.batch; ++b) {
    const double alpha = c.coefficients[static_cast<size_t>(2 * b)];
    const double sigma = c.coefficients[static_cast<size_t>(2 * b + 1)];
    double distance = 0.0, target = 0.0, reference = 0.0;
    std::vector<double> scores;
    for (int64_t j = 0; j < c.shape.sampleSize; ++j) {
      const auto i = static_cast<size_t>(b * c.shape.sampleSize + j);
      const double xt = toFloat(c.xt[i]);
      const auto score = [&](Prediction prediction, const std::vector<T>& output) {
        return (alpha * denoised(prediction, alpha, sigma, xt, toFloat(output[i])) - xt) /
               (sigma * sigma);
      };
      const double own = score(c.assistantPrediction, c.assistant);
      double teacher = score(c.teacherPrediction, c.teacher);
      if (c.guided) {
        const double uncond = score(c.teacherPrediction, c.uncond);
        teacher = uncond + static_cast<double>(kGuidance) * (teacher - uncond);
      }
      const double reward = c.rewarded ? toFloat(c.drs[i]) : 0.0;
      scores.push_back(own - teacher - reward);
      target += std::pow(sigma * (own - teacher - reward), 2);
      reference += std::pow(sigma * (own - teacher), 2);
      distance += std::fabs(toFloat(c.x0[i]) - (sigma * sigma * teacher + xt) / alpha);
    }
    double weight = 1.0;
    switch (c.weighting) {
      case Weighting::kX0:
        weight = sigma * sigma / (alpha * alpha);
        break;
      case Weighting::kSigma2:
        weight = sigma * sigma;
        break;
      case Weighting::kDmd:
        weight =
            sigma * sigma / (alpha * alpha) / (distance / static_cast<double>(c.shape.sampleSize));
        break;
      case Weighting::kUniform:
        break;
      case Weighting::kCustom:
        weight = c.weights[static_cast<size_t>(b)];
        break;
    }
    for (const double s : scores)
      expected.gradient.push_back(static_cast<double>(kScale) * weight * alpha * s);
    expected.target.push_back(target);
    expected.reference.push_back(reference);
  }
  return expected;
}

// Outputs of one or more calls on consecutive parts of the batch, with one accumulator.
struct Result {
  std::vector<double> accumulator;
  std::vector<float> target, reference;
  std::vector<int32_t> nonFinite;
  std::vector<double> gradient;
  Bytes bytes;
};

template <class T, class Launch>
Result runCase(const Case<T>& c, const std::vector<int64_t>& parts, const Launch& launch) {
  Result result;
  Guarded<double> accumulator(std::vector<double>(3 * kBins, 0.0));
  const bool dmd = c.weighting == Weighting::kDmd;
  int64_t first = 0;
  for (const int64_t batch : parts) {
    const int64_t count = batch * c.shape.sampleSize;
    const auto slice = [&](const auto& values, int64_t perSample) {
      return std::vector(values.begin() + first * perSample,
                         values.begin() + (first + batch) * perSample);
    };
    const int64_t size = c.shape.sampleSize;
    Guarded<T> x0(slice(c.x0, size)), xt(slice(c.xt, size)), assistant(slice(c.assistant, size)),
        teacher(slice(c.teacher, size)), uncond(slice(c.uncond, size)), drs(slice(c.drs, size)),
        gradient(count);
    Guarded<float> alphaSigma(slice(c.coefficients, 2)), weights(slice(c.weights, 1)),
        target(batch), reference(batch);
    Guarded<int32_t> bins(slice(c.bins, 1)), nonFinite(batch);
    Guarded<double> workspace(integralKLWorkspace(batch, size));
    IntegralKLArgs arguments{};
    arguments.x0 = dmd ? x0.data() : nullptr;
    arguments.xt = dmd || c.assistantPrediction != c.teacherPrediction ? xt.data() : nullptr;
    arguments.assistant = assistant.data();
    arguments.teacher = teacher.data();
    arguments.teacherUncond = c.guided ? uncond.data() : nullptr;
    arguments.drs = c.rewarded ? drs.data() : nullptr;
    arguments.coefficients = alphaSigma.data();
    arguments.weights = c.weighting == Weighting::kCustom ? weights.data() : nullptr;
    arguments.bins = bins.data();
    arguments.gradient = gradient.data();
    arguments.target = target.data();
    arguments.reference = reference.data();
    arguments.nonFinite = nonFinite.data();
    arguments.accumulator = accumulator.data();
    arguments.workspace = workspace.data();
    arguments.batch = batch;
    arguments.sampleSize = size;
    arguments.guidance = kGuidance;
    arguments.gradientScale = kScale;
    arguments.binCount = kBins;
    arguments.assistantPrediction = c.assistantPrediction;
    arguments.teacherPrediction = c.teacherPrediction;
    arguments.weighting = c.weighting;
    arguments.dtype = DTypeOf<T>::value;
    launch(Op::integralKL, arguments);
    for (const T g : gradient.values()) result.gradient.push_back(toFloat(g));
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(result.target, target.values());
    append(result.reference, reference.values());
    append(result.nonFinite, nonFinite.values());
    first += batch;
  }
  result.accumulator = accumulator.values();
  result.bytes.add(result.gradient);
  result.bytes.add(result.target);
  result.bytes.add(result.reference);
  result.bytes.add(result.accumulator);
  result.bytes.add(result.nonFinite);
  return result;
}

template <class T>
void checkCase(const Case<T>& c) {
  CAPTURE(c.shape.batch);
  CAPTURE(c.shape.sampleSize);
  CAPTURE(static_cast<int>(c.schedule));
  CAPTURE(static_cast<int>(c.assistantPrediction));
  CAPTURE(static_cast<int>(c.teacherPrediction));
  CAPTURE(static_cast<int>(c.weighting));
  CAPTURE(c.guided);
  CAPTURE(c.rewarded);
  const Expected expected = expectedOf(c);
  atEveryLevel([&](const auto& launch) {
    const Result result = runCase(c, {c.shape.batch}, launch);
    const double relative = sizeof(T) == 4 ? 1e-5 : 1e-2;
    int64_t wrong = 0;
    std::vector<double> accumulated(3 * kBins);
    for (int64_t b = 0; b < c.shape.batch; ++b) {
      const auto s = static_cast<size_t>(b);
      const auto begin = expected.gradient.begin() + b * c.shape.sampleSize;
      double largest = 0.0;
      for (auto g = begin; g != begin + c.shape.sampleSize; ++g)
        largest = std::max(largest, std::fabs(*g));
      for (int64_t j = 0; j < c.shape.sampleSize; ++j)
        wrong += !(std::fabs(result.gradient[static_cast<size_t>(b * c.shape.sampleSize + j)] -
                             begin[j]) <= relative * largest);
      // Sums do not pass through the storage type.
      wrong += !(std::fabs(result.target[s] - expected.target[s]) <= 2e-5 * expected.target[s]);
      wrong +=
          !(std::fabs(result.reference[s] - expected.reference[s]) <= 2e-5 * expected.reference[s]);
      const int32_t bin = c.bins[s];
      if (bin < 0 || bin >= kBins) continue;
      accumulated[static_cast<size_t>(bin)] += expected.target[s];
      accumulated[static_cast<size_t>(kBins + bin)] += expected.reference[s];
      accumulated[static_cast<size_t>(2 * kBins + bin)] += 1.0;
    }
    for (size_t i = 0; i < accumulated.size(); ++i)
      wrong += !(std::fabs(result.accumulator[i] - accumulated[i]) <= 2e-5 * accumulated[i]);
    CHECK(wrong == 0);
    CHECK(result.nonFinite == std::vector<int32_t>(static_cast<size_t>(c.shape.batch), 0));
    return result.bytes;
  });
}

TEST_CASE_TEMPLATE(
    "integralKL equals the difference of scores, for every prediction, weighting and schedule", T,
    float, BFloat16) {
  for (const Schedule schedule : kSchedules)
    for (const Prediction own : kPredictions)
      for (const Prediction other : kPredictions)
        for (const Weighting weighting : kWeightings)
          checkCase(Case<T>({5, 65}, schedule, own, other, weighting, true, true));
}

TEST_CASE_TEMPLATE("integralKL on every shape, with and without guidance and reward", T, float,
                   BFloat16) {
  for (const Shape& shape : kShapes)
    for (const bool guided : {false, true})
      for (const bool rewarded : {false, true}) {
        checkCase(Case<T>(shape, Schedule::kFlow, Prediction::kFlow, Prediction::kFlow,
                          Weighting::kX0, guided, rewarded));
        checkCase(Case<T>(shape, Schedule::kVp, Prediction::kV, Prediction::kEpsilon,
                          Weighting::kDmd, guided, rewarded));
      }
}

TEST_CASE("integralKL on a million elements") {
  checkCase(Case<float>({1, 1000003}, Schedule::kFlow, Prediction::kX0, Prediction::kFlow,
                        Weighting::kDmd, true, true));
}

TEST_CASE("integralKL accumulates the same bits however the samples are split into batches") {
  for (const Weighting weighting : {Weighting::kX0, Weighting::kDmd})
    for (const int64_t sampleSize : {3, 1000, 8193}) {
      const Case<float> c({24, sampleSize}, Schedule::kVp, Prediction::kEpsilon, Prediction::kV,
                          weighting, true, true);
      atEveryLevel([&](const auto& launch) {
        const Bytes whole = runCase(c, {24}, launch).bytes;
        CHECK(runCase(c, {1, 23}, launch).bytes == whole);
        CHECK(runCase(c, {7, 9, 8}, launch).bytes == whole);
        CHECK(runCase(c, std::vector<int64_t>(24, 1), launch).bytes == whole);
        return whole;
      });
    }
}

TEST_CASE("integralKL without an accumulator or bins") {
  Case<float> c({3, 100}, Schedule::kFlow, Prediction::kFlow, Prediction::kFlow,
                Weighting::kUniform, false, false);
  atEveryLevel([&](const auto& launch) {
    const auto bare = [&](Op op, IntegralKLArgs arguments) {
      arguments.accumulator = nullptr;
      arguments.bins = nullptr;
      launch(op, arguments);
    };
    const Result result = runCase(c, {3}, bare);
    CHECK(result.accumulator == std::vector<double>(3 * kBins, 0.0));
    CHECK(result.gradient == runCase(c, {3}, launch).gradient);
    return result.bytes;
  });
}

TEST_CASE_TEMPLATE("integralKL counts bad inputs by sample and keeps them out of the accumulator",
                   T, float, BFloat16) {
  for (const int64_t sampleSize : {1, 17, 9000}) {
    Case<T> c({8, sampleSize}, Schedule::kFlow, Prediction::kX0, Prediction::kFlow, Weighting::kDmd,
              true, true);
    c.bins = {0, 0, 0, 0, 0, 0, 0, 0};
    const auto last = static_cast<size_t>(sampleSize - 1);
    const auto at = [&](int64_t b) { return static_cast<size_t>(b * sampleSize); };
    c.assistant[at(1)] = storeAs(T{}, NAN);
    c.assistant[at(1) + last] = storeAs(T{}, NAN);
    c.teacher[at(2) + last] = storeAs(T{}, INFINITY);
    c.uncond[at(3)] = storeAs(T{}, -INFINITY);
    c.drs[at(4) + last] = storeAs(T{}, NAN);
    c.xt[at(5)] = storeAs(T{}, INFINITY);
    c.x0[at(6) + last] = storeAs(T{}, NAN);
    c.assistant[at(7)] = storeAs(T{}, 3e38f);  // finite, but its square is not
    std::vector<int32_t> expected = {0, sampleSize > 1 ? 2 : 1, 1, 1, 1, 1, 1, 0};
    atEveryLevel([&](const auto& launch) {
      const Result result = runCase(c, {8}, launch);
      CHECK(result.nonFinite == expected);
      // Samples 0 and 6: a bad x0 spoils the gradient alone.
      CHECK(result.accumulator[2 * kBins] == 2.0);
      CHECK(std::isfinite(result.accumulator[0]));
      CHECK(result.accumulator[0] == doctest::Approx(static_cast<double>(result.target[0]) +
                                                     static_cast<double>(result.target[6])));
      return Bytes();
    });
  }
}

TEST_CASE("the dmd weighting stays finite where the teacher agrees with x0") {
  Case<float> c({2, 50}, Schedule::kFlow, Prediction::kX0, Prediction::kX0, Weighting::kDmd, false,
                false);
  c.teacher = c.x0;
  atEveryLevel([&](const auto& launch) {
    const Result result = runCase(c, {2}, launch);
    for (size_t i = 0; i < 100; ++i)
      CHECK(result.gradient[i] ==
            doctest::Approx(static_cast<double>(kScale) *
                            (static_cast<double>(c.assistant[i]) - static_cast<double>(c.x0[i])) /
                            kDmdFloor)
                .epsilon(1e-5));
    return result.bytes;
  });
}

// p = N(1.2, 0.5^2) and q = N(-0.3, 1.1^2) in every dimension. For x_t = alpha x0 + sigma eps under
// a variance-preserving schedule, KL(p_0 || q_0) = KL(p_T || q_T) + 1/2 int E || sigma (s_p - s_q)
// ||^2 d(-lambda), lambda = log(alpha^2/sigma^2). At lambda = -14 the two are the same to 1e-6.
TEST_CASE("64 bins of log-SNR integrate to the known KL of two Gaussians within 1%") {
  constexpr int kLambdaBins = 64;
  constexpr int64_t kDimensions = 4096;
  constexpr double kLow = -14.0, kHigh = 14.0;
  constexpr double kWidth = (kHigh - kLow) / kLambdaBins;
  const double meanP = 1.2, deviationP = 0.5, meanQ = -0.3, deviationQ = 1.1;
  Guarded<float> coefficients(2 * kLambdaBins), assistant(kLambdaBins * kDimensions),
      teacher(kLambdaBins * kDimensions), gradient(kLambdaBins * kDimensions), target(kLambdaBins),
      reference(kLambdaBins);
  Guarded<int32_t> bins(kLambdaBins), nonFinite(kLambdaBins);
  Guarded<double> accumulator(std::vector<double>(3 * kLambdaBins, 0.0));
  Guarded<double> workspace(integralKLWorkspace(kLambdaBins, kDimensions));
  ThreadPool pool(2);
  CpuContext context{pool, "integralKL", {}};
  for (uint64_t batch = 0; batch < 4; ++batch) {
    for (int b = 0; b < kLambdaBins; ++b) {
      const double snr = std::exp(kLow + (b + 0.5) * kWidth);
      const double alpha = std::sqrt(snr / (1.0 + snr)), sigma = std::sqrt(1.0 / (1.0 + snr));
      coefficients.data()[2 * b] = static_cast<float>(alpha);
      coefficients.data()[2 * b + 1] = static_cast<float>(sigma);
      bins.data()[b] = b;
      const double varianceP = alpha * alpha * deviationP * deviationP + sigma * sigma;
      const double varianceQ = alpha * alpha * deviationQ * deviationQ + sigma * sigma;
      for (int64_t j = 0; j < kDimensions; ++j) {
        const int64_t i = b * kDimensions + j;
        const double n = normalDraw(9, batch, static_cast<uint64_t>(i / 4)).value[i % 4];
        const double xt = alpha * meanP + std::sqrt(varianceP) * n;
        // As epsilon predictions: -sigma times the score.
        assistant.data()[i] = static_cast<float>(sigma * (xt - alpha * meanP) / varianceP);
        teacher.data()[i] = static_cast<float>(sigma * (xt - alpha * meanQ) / varianceQ);
      }
    }
    IntegralKLArgs arguments{};
    arguments.assistant = assistant.data();
    arguments.teacher = teacher.data();
    arguments.coefficients = coefficients.data();
    arguments.bins = bins.data();
    arguments.gradient = gradient.data();
    arguments.target = target.data();
    arguments.reference = reference.data();
    arguments.nonFinite = nonFinite.data();
    arguments.accumulator = accumulator.data();
    arguments.workspace = workspace.data();
    arguments.batch = kLambdaBins;
    arguments.sampleSize = kDimensions;
    arguments.gradientScale = 1.0f;
    arguments.binCount = kLambdaBins;
    arguments.assistantPrediction = Prediction::kEpsilon;
    arguments.teacherPrediction = Prediction::kEpsilon;
    arguments.weighting = Weighting::kX0;
    arguments.dtype = DType::kFloat32;
    cpuOps().kernels[static_cast<int>(Op::integralKL)](&arguments, context);
  }
  double integral = 0.0;
  for (int b = 0; b < kLambdaBins; ++b) {
    CHECK(accumulator.data()[2 * kLambdaBins + b] == 4.0);
    integral += 0.5 * kWidth * accumulator.data()[kLambdaBins + b] /
                accumulator.data()[2 * kLambdaBins + b];
  }
  const double ratio = deviationP * deviationP / (deviationQ * deviationQ);
  const double offset = (meanP - meanQ) * (meanP - meanQ) / (deviationQ * deviationQ);
  const double exact =
      0.5 * (ratio - 1.0 - std::log(ratio) + offset) * static_cast<double>(kDimensions);
  MESSAGE("KL " << integral / exact << " of the closed form");
  CHECK(integral == doctest::Approx(exact).epsilon(0.01));
}

}  // namespace
}  // namespace didr::test
