#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

struct Weights {
  std::vector<double> weights, effectiveSampleSize;
};

Weights softmaxOf(const std::vector<float>& rewards, int64_t particles, int64_t batch,
                  float inverseBeta) {
  Weights result;
  result.weights.resize(rewards.size());
  for (int64_t b = 0; b < batch; ++b) {
    double largest = -INFINITY, sum = 0.0, squares = 0.0;
    const auto at = [&](int64_t n) { return static_cast<size_t>(n * batch + b); };
    for (int64_t n = 0; n < particles; ++n)
      largest = std::fmax(largest, static_cast<double>(rewards[at(n)]) * inverseBeta);
    for (int64_t n = 0; n < particles; ++n)
      sum += std::exp(static_cast<double>(rewards[at(n)]) * inverseBeta - largest);
    for (int64_t n = 0; n < particles; ++n) {
      const double w = std::exp(static_cast<double>(rewards[at(n)]) * inverseBeta - largest) / sum;
      result.weights[at(n)] = w;
      squares += w * w;
    }
    result.effectiveSampleSize.push_back(1.0 / squares);
  }
  return result;
}

// Spread so that a few particles matter, not one alone.
std::vector<float> someRewards(int64_t particles, int64_t batch) {
  std::vector<float> rewards = someValues<float>(particles * batch, 5);
  for (float& r : rewards) r *= 1.5f;
  return rewards;
}

constexpr int64_t kParticleCounts[] = {1, 2, 3, 7, 33, 64, 200};

TEST_CASE("softmaxWeights: the CPU and float64") {
  for (const int64_t particles : {1, 2, 5, 31, 32, 33, 513, kRaceDetection ? 600 : 5000})
    for (const int64_t batch : {0, 1, 3, 17}) {
      CAPTURE(particles);
      CAPTURE(batch);
      const std::vector<float> values = someRewards(particles, batch);
      const Array<float> rewards(values), weights(particles * batch), size(batch);
      const Array<int32_t> nonFinite(batch);
      runEverywhere(Op::softmaxWeights, [&](Side side) {
        return SoftmaxWeightsArgs{rewards.at(side),
                                  weights.at(side),
                                  size.at(side),
                                  nonFinite.at(side),
                                  particles,
                                  batch,
                                  0.7f};
      });
      const Weights expected = softmaxOf(values, particles, batch, 0.7f);
      requireClose(asDoubles(weights.cuda()), expected.weights, 2e-6);
      requireClose(asDoubles(size.cuda()), expected.effectiveSampleSize, 2e-6);
      requireClose(asDoubles(weights.cuda()), asDoubles(weights.cpu()), 2e-6);
      requireClose(asDoubles(size.cuda()), asDoubles(size.cpu()), 2e-6);
      REQUIRE(nonFinite.cuda() == std::vector<int32_t>(static_cast<size_t>(batch), 0));
    }
}

TEST_CASE("softmaxWeights: rewards of any size, and non-finite ones") {
  const std::vector<float> values = {3e38f, -3e38f, 0.0f,     1.0f,  // particle 0
                                     1e30f, -3e38f, INFINITY, 1.0f,  // particle 1
                                     0.0f,  -3e38f, NAN,      1.0f};
  const Array<float> rewards(values), weights(12), size(4);
  const Array<int32_t> nonFinite(4);
  runEverywhere(Op::softmaxWeights, [&](Side side) {
    return SoftmaxWeightsArgs{
        rewards.at(side), weights.at(side), size.at(side), nonFinite.at(side), 3, 4, 1.0f};
  });
  REQUIRE(nonFinite.cuda() == std::vector<int32_t>{0, 0, 2, 0});
  REQUIRE(nonFinite.cpu() == std::vector<int32_t>{0, 0, 2, 0});
  const std::vector<float> w = weights.cuda(), ess = size.cuda();
  REQUIRE(w[0] == 1.0f);
  REQUIRE(w[4] == 0.0f);
  REQUIRE(ess[0] == 1.0f);
  for (const size_t i : {1, 5, 9, 3, 7, 11}) REQUIRE(w[i] == doctest::Approx(1.0 / 3.0));
  REQUIRE(ess[1] == doctest::Approx(3.0));
}

template <class T>
void checkScore(const Shape& shape, int64_t particles) {
  CAPTURE(shape.batch);
  CAPTURE(shape.sampleSize);
  CAPTURE(particles);
  const int64_t count = shape.batch * shape.sampleSize;
  std::vector<T> values = someValues<T>(particles * count, 6);
  // Away from zero: what all particles share must not cost digits.
  for (T& x : values) x = storeAs(T{}, toFloat(x) + 3.0f);
  const std::vector<float> rewardValues = someRewards(particles, shape.batch);
  const std::vector<float> coefficients = someCoefficients(shape.batch);
  const Array<T> x(values), score(count);
  const Array<float> rewards(rewardValues), alphaSigma(coefficients),
      weights(particles * shape.batch), size(shape.batch);
  const Array<int32_t> nonFinite(shape.batch);
  runEverywhere(Op::diffusedRewardScore, [&](Side side) {
    return DiffusedRewardScoreArgs{
        x.at(side),    rewards.at(side),   alphaSigma.at(side), score.at(side), weights.at(side),
        size.at(side), nonFinite.at(side), particles,           shape.batch,    shape.sampleSize,
        1.25f,         DTypeOf<T>::value};
  });
  REQUIRE(nonFinite.cuda() == std::vector<int32_t>(static_cast<size_t>(shape.batch), 0));
  const Weights expected = softmaxOf(rewardValues, particles, shape.batch, 1.25f);
  requireClose(asDoubles(weights.cuda()), expected.weights, 2e-6);
  requireClose(asDoubles(size.cuda()), expected.effectiveSampleSize, 2e-6);
  const std::vector<double> cuda = asDoubles(score.cuda()), cpu = asDoubles(score.cpu());
  requireEach(cuda.size(), [&](size_t i) {
    const auto b = static_cast<int64_t>(i) / shape.sampleSize;
    const auto s = static_cast<size_t>(b);
    const double alpha = coefficients[2 * s], sigma = coefficients[2 * s + 1];
    double tilted = 0.0, mean = 0.0;
    for (int64_t n = 0; n < particles; ++n) {
      const double value = toFloat(values[static_cast<size_t>(n * count) + i]);
      tilted += expected.weights[static_cast<size_t>(n * shape.batch + b)] * value;
      mean += value / static_cast<double>(particles);
    }
    const double scale = alpha / (sigma * sigma);
    const double want = scale * (tilted - mean);
    // Particles spread over +-2; rounding scales with that, not with the 3 they share.
    const double bound = std::fabs(scale) * 4e-6 + std::fabs(want) * 1.01 * kRounding<T>;
    return std::fabs(cuda[i] - want) <= bound && std::fabs(cuda[i] - cpu[i]) <= 2.0 * bound;
  });
}

TEST_CASE_TEMPLATE("diffusedRewardScore: the CPU and float64", T, float, BFloat16) {
  size_t variant = 0;
  for (const Shape& shape : kShapes) {
    checkScore<T>(shape, kParticleCounts[variant++ % 5]);
    if (shape.sampleSize < 1100) checkScore<T>(shape, kParticleCounts[5 + variant % 2]);
  }
}

template <class T>
void checkGradient(const Shape& shape, int64_t particles, float maxNorm) {
  CAPTURE(shape.batch);
  CAPTURE(shape.sampleSize);
  CAPTURE(particles);
  CAPTURE(maxNorm);
  const int64_t count = shape.batch * shape.sampleSize;
  const std::vector<T> values = someValues<T>(particles * count, 7);
  const std::vector<float> rewardValues = someRewards(particles, shape.batch);
  std::vector<float> factors;
  for (int64_t b = 0; b < shape.batch; ++b)
    factors.push_back(1.0f / (0.5f + 0.3f * static_cast<float>(b % 7)));
  const Array<T> g(values), score(count);
  const Array<float> rewards(rewardValues), factor(factors), weights(particles * shape.batch),
      size(shape.batch), norm(shape.batch);
  const Array<int32_t> nonFinite(shape.batch);
  const Array<double> workspace(weightedRewardGradientWorkspace(shape.batch, shape.sampleSize));
  runEverywhere(Op::weightedRewardGradient, [&](Side side) {
    return WeightedRewardGradientArgs{g.at(side),
                                      rewards.at(side),
                                      factor.at(side),
                                      score.at(side),
                                      weights.at(side),
                                      size.at(side),
                                      norm.at(side),
                                      nonFinite.at(side),
                                      workspace.at(side),
                                      particles,
                                      shape.batch,
                                      shape.sampleSize,
                                      2.0f,
                                      maxNorm,
                                      DTypeOf<T>::value};
  });
  REQUIRE(nonFinite.cuda() == std::vector<int32_t>(static_cast<size_t>(shape.batch), 0));
  const Weights expected = softmaxOf(rewardValues, particles, shape.batch, 2.0f);
  std::vector<double> scores, norms;
  for (int64_t b = 0; b < shape.batch; ++b) {
    std::vector<double> sample;
    double square = 0.0;
    for (int64_t j = 0; j < shape.sampleSize; ++j) {
      double sum = 0.0;
      for (int64_t n = 0; n < particles; ++n)
        sum += expected.weights[static_cast<size_t>(n * shape.batch + b)] *
               toFloat(values[static_cast<size_t>(n * count + b * shape.sampleSize + j)]);
      sum *= factors[static_cast<size_t>(b)];
      sample.push_back(sum);
      square += sum * sum;
    }
    norms.push_back(std::sqrt(square));
    const double clip = maxNorm > 0.0f && norms.back() > maxNorm ? maxNorm / norms.back() : 1.0;
    for (const double x : sample) scores.push_back(clip * x);
  }
  workspace.cuda();
  // The norm may be that of the stored score: bfloat16 rounding averages out over the sample.
  requireClose(asDoubles(norm.cuda()), norms, 4e-6 + (sizeof(T) == 2 ? 0x1p-8 : 0.0));
  requireClose(asDoubles(norm.cuda()), asDoubles(norm.cpu()),
               4e-6 + (sizeof(T) == 2 ? 0x1p-8 : 0.0));
  // A clipped bfloat16 score may have been rounded twice.
  requireClose(asDoubles(score.cuda()), scores, 4e-6 + 2.02 * kRounding<T>);
  requireClose(asDoubles(score.cuda()), asDoubles(score.cpu()), 4e-6 + 4.04 * kRounding<T>);
}

TEST_CASE_TEMPLATE("weightedRewardGradient: the CPU and float64", T, float, BFloat16) {
  size_t variant = 0;
  for (const Shape& shape : kShapes) {
    const int64_t particles = kParticleCounts[variant++ % 5];
    checkGradient<T>(shape, particles, 0.0f);
    checkGradient<T>(shape, particles, 0.75f);  // clips all but the smallest samples
    if (shape.sampleSize < 1100) checkGradient<T>(shape, 200, 1e6f);
  }
}

TEST_CASE_TEMPLATE("particles: non-finite values are counted per sample", T, float, BFloat16) {
  for (const int64_t sampleSize : {3, 64, 1025}) {
    constexpr int64_t kParticles = 5, kBatch = 3;
    std::vector<T> values = someValues<T>(kParticles * kBatch * sampleSize, 8);
    std::vector<float> rewardValues = someRewards(kParticles, kBatch);
    const auto at = [&](int64_t n, int64_t b, int64_t j) -> T& {
      return values[static_cast<size_t>((n * kBatch + b) * sampleSize + j)];
    };
    at(4, 0, sampleSize - 1) = storeAs(T{}, NAN);
    at(0, 2, 0) = storeAs(T{}, INFINITY);
    at(3, 2, 1) = storeAs(T{}, -INFINITY);
    rewardValues[1 * kBatch + 2] = NAN;
    const Array<T> x(values), score(kBatch * sampleSize);
    const Array<float> rewards(rewardValues), alphaSigma(someCoefficients(kBatch)),
        weights(kParticles * kBatch), size(kBatch);
    const Array<int32_t> nonFinite(kBatch);
    runEverywhere(Op::diffusedRewardScore, [&](Side side) {
      return DiffusedRewardScoreArgs{
          x.at(side),    rewards.at(side),   alphaSigma.at(side), score.at(side), weights.at(side),
          size.at(side), nonFinite.at(side), kParticles,          kBatch,         sampleSize,
          1.0f,          DTypeOf<T>::value};
    });
    REQUIRE(nonFinite.cuda() == std::vector<int32_t>{1, 0, 3});
    REQUIRE(nonFinite.cpu() == std::vector<int32_t>{1, 0, 3});
  }
}

}  // namespace
}  // namespace didr::test
