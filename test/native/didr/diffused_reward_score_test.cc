#include "native/ops/didr/diffused_reward_score.h"

#include <algorithm>
#include <cmath>

#include "native/ops/random/normal.h"
#include "test/native/didr/schedules.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

struct Weights {
  std::vector<double> weights, effectiveSampleSize;
};

Weights expectedWeights(const std::vector<float>& rewards, int64_t particles, int64_t batch,
                        double inverseBeta) {
  Weights expected{std::vector<double>(rewards.size()), {}};
  for (int64_t b = 0; b < batch; ++b) {
    double largest = -INFINITY, sum = 0.0, squares = 0.0;
    for (int64_t n = 0; n < particles; ++n)
      largest = std::max(largest, static_cast<double>(rewards[static_cast<size_t>(n * batch + b)]));
    for (int64_t n = 0; n < particles; ++n) {
      const auto i = static_cast<size_t>(n * batch + b);
      expected.weights[i] = std::exp((static_cast<double>(rewards[i]) - largest) * inverseBeta);
      sum += expected.weights[i];
    }
    for (int64_t n = 0; n < particles; ++n) {
      double& weight = expected.weights[static_cast<size_t>(n * batch + b)];
      weight /= sum;
      squares += weight * weight;
    }
    expected.effectiveSampleSize.push_back(1.0 / squares);
  }
  return expected;
}

bool close(double actual, double expected, double relative, double absolute = 0.0) {
  return std::fabs(actual - expected) <= relative * std::fabs(expected) + absolute;
}

TEST_CASE("softmaxWeights in float64, and the effective sample size") {
  for (const int64_t particles : {1, 2, 3, 64, 65, 1000})
    for (const int64_t batch : {0, 1, 3, 4, 5, 17, 64, 130})
      for (const float inverseBeta : {0.0f, 1.0f, 25.0f}) {
        CAPTURE(particles);
        CAPTURE(batch);
        CAPTURE(inverseBeta);
        const std::vector<float> rewards = someFloats(particles * batch, 3, 2.0f);
        const Weights expected =
            expectedWeights(rewards, particles, batch, static_cast<double>(inverseBeta));
        atEveryLevel([&](const auto& launch) {
          Guarded<float> reward(rewards), weights(particles * batch), sampleSize(batch);
          Guarded<int32_t> nonFinite(batch);
          launch(Op::softmaxWeights,
                 SoftmaxWeightsArgs{reward.data(), weights.data(), sampleSize.data(),
                                    nonFinite.data(), particles, batch, inverseBeta});
          int64_t wrong = 0;
          // Exponents reach 100 and carry a float's relative error.
          for (size_t i = 0; i < rewards.size(); ++i)
            wrong += !close(weights.data()[i], expected.weights[i], 2e-5, 1e-37);
          for (size_t b = 0; b < static_cast<size_t>(batch); ++b)
            wrong += !close(sampleSize.data()[b], expected.effectiveSampleSize[b], 2e-5);
          CHECK(wrong == 0);
          CHECK(nonFinite.values() == std::vector<int32_t>(static_cast<size_t>(batch), 0));
          Bytes bytes;
          bytes.add(weights.values());
          bytes.add(sampleSize.values());
          return bytes;
        });
      }
}

TEST_CASE("softmaxWeights does not overflow, and says when one particle has all the weight") {
  ThreadPool pool(1);
  CpuContext context{pool, "softmaxWeights", {}};
  const std::vector<float> rewards = {3e38f, 1000.0f, -3e38f, 1000.0f, 0.0f, 1000.0f};
  Guarded<float> reward(rewards), weights(6), sampleSize(2);
  Guarded<int32_t> nonFinite(2);
  const SoftmaxWeightsArgs arguments{
      reward.data(), weights.data(), sampleSize.data(), nonFinite.data(), 3, 2, 100.0f};
  cpuOps().kernels[static_cast<int>(Op::softmaxWeights)](&arguments, context);
  CHECK(weights.values() == std::vector<float>{1.0f, 1.0f / 3, 0.0f, 1.0f / 3, 0.0f, 1.0f / 3});
  CHECK(sampleSize.data()[0] == 1.0f);
  CHECK(sampleSize.data()[1] == doctest::Approx(3.0));
  CHECK(nonFinite.values() == std::vector<int32_t>{0, 0});
}

template <class T>
void checkScore(int64_t particles, const Shape& shape, Schedule schedule) {
  CAPTURE(particles);
  CAPTURE(shape.batch);
  CAPTURE(shape.sampleSize);
  CAPTURE(static_cast<int>(schedule));
  const int64_t rowSize = shape.batch * shape.sampleSize;
  const std::vector<T> values = someValues<T>(particles * rowSize, 1);
  const std::vector<float> rewards = someFloats(particles * shape.batch, 2, 2.0f);
  const std::vector<float> coefficients = coefficientsOf(schedule, shape.batch);
  std::vector<float> factor;
  for (int64_t b = 0; b < shape.batch; ++b) factor.push_back(0.1f + static_cast<float>(b % 3));
  const Weights expected = expectedWeights(rewards, particles, shape.batch, 1.5);
  std::vector<double> score(static_cast<size_t>(rowSize)), gradient(score), norm;
  for (int64_t b = 0; b < shape.batch; ++b) {
    const double alpha = coefficients[static_cast<size_t>(2 * b)];
    const double sigma = coefficients[static_cast<size_t>(2 * b + 1)];
    double squares = 0.0;
    for (int64_t j = 0; j < shape.sampleSize; ++j) {
      double weighted = 0.0, mean = 0.0;
      for (int64_t n = 0; n < particles; ++n) {
        const double x =
            toFloat(values[static_cast<size_t>(n * rowSize + b * shape.sampleSize + j)]);
        weighted += expected.weights[static_cast<size_t>(n * shape.batch + b)] * x;
        mean += x / static_cast<double>(particles);
      }
      const auto i = static_cast<size_t>(b * shape.sampleSize + j);
      score[i] = alpha / (sigma * sigma) * (weighted - mean);
      gradient[i] = static_cast<double>(factor[static_cast<size_t>(b)]) * weighted;
      squares += gradient[i] * gradient[i];
    }
    norm.push_back(std::sqrt(squares));
  }
  const float maxNorm = norm.empty() ? 0.0f : static_cast<float>(norm[norm.size() / 2] * 0.999);
  const double relative = sizeof(T) == 4 ? 1e-5 : 1e-2;
  atEveryLevel([&](const auto& launch) {
    Guarded<T> x(values), out(rowSize), sum(rowSize), clipped(rowSize);
    Guarded<float> reward(rewards), alphaSigma(coefficients), factors(factor),
        weights(particles * shape.batch), sampleSize(shape.batch), norms(shape.batch);
    Guarded<int32_t> nonFinite(shape.batch);
    Guarded<double> workspace(weightedRewardGradientWorkspace(shape.batch, shape.sampleSize));
    launch(Op::diffusedRewardScore,
           DiffusedRewardScoreArgs{x.data(), reward.data(), alphaSigma.data(), out.data(),
                                   weights.data(), sampleSize.data(), nonFinite.data(), particles,
                                   shape.batch, shape.sampleSize, 1.5f, DTypeOf<T>::value});
    for (Guarded<T>* target : {&sum, &clipped})
      launch(Op::weightedRewardGradient,
             WeightedRewardGradientArgs{x.data(), reward.data(), factors.data(), target->data(),
                                        weights.data(), sampleSize.data(), norms.data(),
                                        nonFinite.data(), workspace.data(), particles, shape.batch,
                                        shape.sampleSize, 1.5f, target == &clipped ? maxNorm : 0.0f,
                                        DTypeOf<T>::value});
    int64_t wrong = 0;
    for (size_t i = 0; i < expected.weights.size(); ++i)
      wrong += !close(weights.data()[i], expected.weights[i], 1e-5);
    for (int64_t b = 0; b < shape.batch; ++b) {
      const auto s = static_cast<size_t>(b);
      wrong += !close(sampleSize.data()[b], expected.effectiveSampleSize[s], 1e-5);
      wrong += !close(norms.data()[b], norm[s], 1e-5);
      const double clip =
          norm[s] > static_cast<double>(maxNorm) ? static_cast<double>(maxNorm) / norm[s] : 1.0;
      // Relative to the sample's terms: a mean and a weighted mean may be close to each other.
      const double alpha = coefficients[2 * s], sigma = coefficients[2 * s + 1];
      const double terms = particles == 1 ? 0.0 : alpha / (sigma * sigma);
      for (int64_t j = 0; j < shape.sampleSize; ++j) {
        const auto i = static_cast<size_t>(b * shape.sampleSize + j);
        wrong += !close(toFloat(out.data()[i]), score[i], relative, 1e-6 * terms);
        wrong += !close(toFloat(sum.data()[i]), gradient[i], relative,
                        1e-6 * static_cast<double>(factor[s]));
        wrong += !close(toFloat(clipped.data()[i]), gradient[i] * clip, 2 * relative,
                        1e-6 * static_cast<double>(factor[s]));
      }
    }
    CHECK(wrong == 0);
    CHECK(nonFinite.values() == std::vector<int32_t>(static_cast<size_t>(shape.batch), 0));
    Bytes bytes;
    bytes.add(out.values());
    bytes.add(sum.values());
    bytes.add(clipped.values());
    bytes.add(norms.values());
    return bytes;
  });
}

TEST_CASE_TEMPLATE("weighted particles and gradients in float64", T, float, BFloat16) {
  for (const Shape& shape : kShapes) {
    if (shape.batch > 100) continue;
    checkScore<T>(4, shape, Schedule::kFlow);
    checkScore<T>(1, shape, Schedule::kVp);
  }
  for (const Schedule schedule : kSchedules)
    for (const int64_t particles : {2, 15, 16, 17, 33, 100})
      checkScore<T>(particles, {5, 37}, schedule);
  checkScore<T>(2, {1, 100003}, Schedule::kVp);
}

TEST_CASE("equal particles have no score, whatever their size and rewards") {
  const int64_t particles = 37, size = 50;
  std::vector<float> values;
  const std::vector<float> particle = someFloats(size, 1, 1000.0f);
  for (int64_t n = 0; n < particles; ++n)
    values.insert(values.end(), particle.begin(), particle.end());
  const std::vector<float> rewards = someFloats(particles, 2, 3.0f);
  atEveryLevel([&](const auto& launch) {
    Guarded<float> x(values), reward(rewards), alphaSigma(std::vector<float>{0.98f, 0.02f}),
        out(size), weights(particles), sampleSize(1);
    Guarded<int32_t> nonFinite(1);
    launch(Op::diffusedRewardScore,
           DiffusedRewardScoreArgs{x.data(), reward.data(), alphaSigma.data(), out.data(),
                                   weights.data(), sampleSize.data(), nonFinite.data(), particles,
                                   1, size, 1.0f, DType::kFloat32});
    CHECK(out.values() == std::vector<float>(static_cast<size_t>(size), 0.0f));
    return Bytes();
  });
}

TEST_CASE_TEMPLATE("bad rewards and particles are counted by sample", T, float, BFloat16) {
  for (const int64_t size : {1, 17, 3000}) {
    CAPTURE(size);
    const int64_t particles = 20, batch = 5;
    std::vector<T> values = someValues<T>(particles * batch * size, 1);
    std::vector<float> rewards = someFloats(particles * batch, 2);
    const auto at = [&](int64_t n, int64_t b, int64_t j) {
      return static_cast<size_t>((n * batch + b) * size + j);
    };
    values[at(0, 1, 0)] = storeAs(T{}, NAN);
    values[at(19, 1, size - 1)] = storeAs(T{}, INFINITY);
    values[at(7, 3, size / 2)] = storeAs(T{}, -INFINITY);
    values[at(3, 4, 0)] = storeAs(T{}, 3e38f);
    rewards[static_cast<size_t>(5 * batch + 2)] = NAN;
    rewards[static_cast<size_t>(6 * batch + 2)] = INFINITY;
    rewards[static_cast<size_t>(6 * batch + 3)] = -INFINITY;
    const std::vector<int32_t> expected = {0, 2, 2, 2, 0};
    atEveryLevel([&](const auto& launch) {
      Guarded<T> x(values), out(batch * size);
      Guarded<float> reward(rewards), alphaSigma(coefficientsOf(Schedule::kFlow, batch)),
          factors(std::vector<float>(5, 1.0f)), weights(particles * batch), sampleSize(batch),
          norms(batch);
      Guarded<int32_t> nonFinite(batch), ofRewards(batch), ofGradients(batch);
      Guarded<double> workspace(weightedRewardGradientWorkspace(batch, size));
      launch(Op::diffusedRewardScore,
             DiffusedRewardScoreArgs{x.data(), reward.data(), alphaSigma.data(), out.data(),
                                     weights.data(), sampleSize.data(), nonFinite.data(), particles,
                                     batch, size, 1.0f, DTypeOf<T>::value});
      launch(Op::softmaxWeights,
             SoftmaxWeightsArgs{reward.data(), weights.data(), sampleSize.data(), ofRewards.data(),
                                particles, batch, 1.0f});
      launch(Op::weightedRewardGradient,
             WeightedRewardGradientArgs{x.data(), reward.data(), factors.data(), out.data(),
                                        weights.data(), sampleSize.data(), norms.data(),
                                        ofGradients.data(), workspace.data(), particles, batch,
                                        size, 1.0f, 1.0f, DTypeOf<T>::value});
      CHECK(nonFinite.values() == expected);
      CHECK(ofGradients.values() == expected);
      CHECK(ofRewards.values() == std::vector<int32_t>{0, 0, 2, 1, 0});
      return Bytes();
    });
  }
}

// x0 ~ N(0, 1) and reward r = -(kappa/2) (x0 - 1)^2 in one dimension: x0 | x_t is N(m, v), m =
// alpha x_t / (alpha^2 + sigma^2), v = sigma^2 / (alpha^2 + sigma^2); weighting by exp(r / beta)
// moves its mean to (m + k v) / (1 + k v), k = kappa / beta, so s_r = (alpha/sigma^2) of that less
// m.
TEST_CASE("exact posterior samples converge to the Gaussian's closed form as 1/sqrt(N)") {
  const double alpha = 0.8, sigma = 0.6, curvature = 2.0;
  constexpr int64_t kBatch = 64;
  ThreadPool pool(2);
  CpuContext context{pool, "diffusedRewardScore", {}};
  std::vector<double> logCount, logError;
  for (int64_t particles = 16; particles <= 65536; particles *= 4) {
    std::vector<float> values, rewards;
    std::vector<double> exact;
    for (int64_t i = 0; i < particles * kBatch; ++i) {
      const double xt = -2.0 + 4.0 * static_cast<double>(i % kBatch) / kBatch;
      const double mean = alpha * xt, variance = sigma * sigma;  // alpha^2 + sigma^2 = 1
      const double x = mean + std::sqrt(variance) * normalDraw(1, static_cast<uint64_t>(particles),
                                                               static_cast<uint64_t>(i / 4))
                                                        .value[i % 4];
      values.push_back(static_cast<float>(x));
      rewards.push_back(static_cast<float>(-0.5 * curvature * (x - 1.0) * (x - 1.0)));
      if (i < kBatch)
        exact.push_back(alpha / variance *
                        ((mean + curvature * variance) / (1.0 + curvature * variance) - mean));
    }
    std::vector<float> coefficients;
    for (int64_t b = 0; b < kBatch; ++b)
      coefficients.insert(coefficients.end(),
                          {static_cast<float>(alpha), static_cast<float>(sigma)});
    Guarded<float> x(values), reward(rewards), alphaSigma(coefficients), out(kBatch),
        weights(particles * kBatch), sampleSize(kBatch);
    Guarded<int32_t> nonFinite(kBatch);
    const DiffusedRewardScoreArgs arguments{x.data(),
                                            reward.data(),
                                            alphaSigma.data(),
                                            out.data(),
                                            weights.data(),
                                            sampleSize.data(),
                                            nonFinite.data(),
                                            particles,
                                            kBatch,
                                            1,
                                            1.0f,
                                            DType::kFloat32};
    cpuOps().kernels[static_cast<int>(Op::diffusedRewardScore)](&arguments, context);
    double squares = 0.0;
    for (int64_t b = 0; b < kBatch; ++b)
      squares += std::pow(out.data()[b] - exact[static_cast<size_t>(b)], 2);
    logCount.push_back(std::log(static_cast<double>(particles)));
    logError.push_back(0.5 * std::log(squares / kBatch));
  }
  const auto n = static_cast<double>(logCount.size());
  double x = 0.0, y = 0.0, xx = 0.0, xy = 0.0;
  for (size_t i = 0; i < logCount.size(); ++i) {
    x += logCount[i];
    y += logError[i];
    xx += logCount[i] * logCount[i];
    xy += logCount[i] * logError[i];
  }
  const double slope = (n * xy - x * y) / (n * xx - x * x);
  MESSAGE("slope " << slope << ", error at 65536 particles " << std::exp(logError.back()));
  CHECK(slope == doctest::Approx(-0.5).epsilon(0.1));
}

}  // namespace
}  // namespace didr::test
