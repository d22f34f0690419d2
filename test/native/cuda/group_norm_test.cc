#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

struct GroupCase {
  int64_t batch, channels, pixels, groups;
};
#if defined(__SANITIZE_THREAD__)
constexpr GroupCase kCases[] = {{2, 6, 17, 2}, {3, 4, 64, 4}, {1, 66, 16, 2}, {1, 1, 2500, 1}};
#else
constexpr GroupCase kCases[] = {{0, 4, 9, 2},   {2, 4, 0, 2},  {1, 1, 1, 1},    {2, 6, 1, 3},
                                {2, 6, 17, 2},  {3, 4, 64, 4}, {1, 5, 65, 1},   {2, 2, 5000, 1},
                                {1, 66, 16, 2}, {9, 8, 8, 8},  {1, 2, 8200, 2}, {1, 1, 20003, 1}};
#endif
constexpr double kEpsilon = 1e-5;

struct Expected {
  std::vector<double> y, dx, dweight, dbias, mean, rstd;
  double term = 1e-30;  // the largest of the terms whose difference a dx is
};

template <class T>
struct Operands {
  std::vector<T> x, dy, weight, bias;  // the last two empty where absent
};

template <class T>
Expected groupNormOf(const GroupCase& shape, bool silu, const Operands<T>& of) {
  const auto pixels = static_cast<size_t>(shape.pixels);
  const auto channels = static_cast<size_t>(shape.channels);
  const size_t elements = channels / static_cast<size_t>(shape.groups) * pixels;
  const auto count = static_cast<double>(elements);
  Expected result;
  result.dweight.resize(channels);
  result.dbias.resize(channels);
  for (size_t begin = 0; begin < of.x.size(); begin += elements) {
    const auto x = [&](size_t i) { return static_cast<double>(toFloat(of.x[i])); };
    double mean = 0.0, square = 0.0;
    for (size_t i = begin; i < begin + elements; ++i) mean += x(i) / count;
    for (size_t i = begin; i < begin + elements; ++i) square += (x(i) - mean) * (x(i) - mean);
    const double rstd = 1.0 / std::sqrt(square / count + kEpsilon);
    result.mean.push_back(mean);
    result.rstd.push_back(rstd);
    double alongXhat = 0.0, alongOnes = 0.0;
    std::vector<double> scaled;
    for (size_t i = begin; i < begin + elements; ++i) {
      const size_t channel = i / pixels % channels;
      const double w = of.weight.empty() ? 1.0 : toFloat(of.weight[channel]);
      const double b = of.bias.empty() ? 0.0 : toFloat(of.bias[channel]);
      const double xhat = (x(i) - mean) * rstd;
      const double z = xhat * w + b;
      const double s = 1.0 / (1.0 + std::exp(-z));
      const double dz = toFloat(of.dy[i]) * (silu ? s * (1.0 + z * (1.0 - s)) : 1.0);
      result.y.push_back(silu ? z * s : z);
      result.dweight[channel] += dz * xhat;
      result.dbias[channel] += dz;
      scaled.push_back(dz * w);
      alongXhat += dz * w * xhat / count;
      alongOnes += dz * w / count;
    }
    for (size_t i = 0; i < elements; ++i) {
      const double xhat = (x(begin + i) - mean) * rstd;
      result.dx.push_back(rstd * (scaled[i] - alongOnes - xhat * alongXhat));
      result.term = std::fmax(result.term, rstd * std::fabs(scaled[i]));
    }
  }
  return result;
}

// Within `relative` of `scale`, or of the largest expected value where that is more.
void requireNear(const std::vector<double>& actual, const std::vector<double>& expected,
                 double relative, double scale) {
  REQUIRE(actual.size() == expected.size());
  for (const double x : expected) scale = std::fmax(scale, std::fabs(x));
  requireEach(actual.size(),
              [&](size_t i) { return std::fabs(actual[i] - expected[i]) <= relative * scale; });
}

template <class T>
void checkGroupNorm(const GroupCase& shape, bool affine, bool silu, bool inPlace) {
  CAPTURE(shape.batch);
  CAPTURE(shape.channels);
  CAPTURE(shape.pixels);
  CAPTURE(shape.groups);
  CAPTURE(affine);
  CAPTURE(silu);
  CAPTURE(inPlace);
  const int64_t count = shape.batch * shape.channels * shape.pixels;
  const int64_t parameters = affine ? shape.channels : 0;
  const int64_t statistics = shape.batch * shape.groups;
  const Operands<T> of = {someValues<T>(count, 1), someValues<T>(count, 2),
                          someValues<T>(parameters, 3), someValues<T>(parameters, 4)};
  const Array<T> x(of.x), xAgain(of.x), dy(of.dy), weight(of.weight), bias(of.bias), otherY(count),
      otherDx(count);
  const Array<float> mean(statistics), rstd(statistics), dweight(parameters), dbias(parameters),
      partials(2 * shape.batch * shape.channels);
  const Array<T>& y = inPlace ? xAgain : otherY;
  const Array<T>& dx = inPlace ? dy : otherDx;
  runEverywhere(Op::groupNorm, [&](Side side) {
    return GroupNormArgs{(inPlace ? xAgain : x).at(side),
                         affine ? weight.at(side) : nullptr,
                         affine ? bias.at(side) : nullptr,
                         y.at(side),
                         mean.at(side),
                         rstd.at(side),
                         shape.batch,
                         shape.channels,
                         shape.pixels,
                         shape.groups,
                         static_cast<float>(kEpsilon),
                         silu,
                         DTypeOf<T>::value};
  });
  runEverywhere(Op::groupNormBackward, [&](Side side) {
    return GroupNormBackwardArgs{x.at(side),
                                 dy.at(side),
                                 affine ? weight.at(side) : nullptr,
                                 affine ? bias.at(side) : nullptr,
                                 mean.at(side),
                                 rstd.at(side),
                                 dx.at(side),
                                 affine ? dweight.at(side) : nullptr,
                                 affine ? dbias.at(side) : nullptr,
                                 partials.at(side),
                                 shape.batch,
                                 shape.channels,
                                 shape.pixels,
                                 shape.groups,
                                 silu,
                                 DTypeOf<T>::value};
  });
  REQUIRE(sameBits(x.cuda(), of.x));
  partials.cuda();
  if (shape.pixels == 0) {
    mean.cuda();  // of nothing
    for (const float g : dweight.cuda()) REQUIRE(g == 0.0f);
    return;
  }

  const Expected expected = groupNormOf(shape, silu, of);
  const auto check = [](const auto& result, const std::vector<double>& want, double relative,
                        double scale) {
    requireNear(asDoubles(result.cuda()), want, relative, scale);
    requireNear(asDoubles(result.cuda()), asDoubles(result.cpu()), relative, scale);
  };
  check(mean, expected.mean, 1e-6, 1.0);
  check(rstd, expected.rstd, 1e-6, 0.0);
  // The CPU's result may be the neighbouring number of the dtype.
  const double rounding = 2.02 * kRounding<T>;
  check(y, expected.y, 3e-6 + rounding, 1.0);
  check(dx, expected.dx, 1e-5 + rounding, expected.term);
  // Sums of terms of either sign: their rounding scales with the terms.
  const double terms = std::sqrt(static_cast<double>(shape.batch * shape.pixels));
  if (!affine) return;
  check(dweight, expected.dweight, 1e-5, terms);
  check(dbias, expected.dbias, 1e-5, terms);
}

TEST_CASE_TEMPLATE("groupNorm: the CPU and float64, forward and backward", T, float, BFloat16) {
  for (const GroupCase& shape : kCases)
    for (const bool affine : {false, true})
      for (const bool silu : {false, true}) checkGroupNorm<T>(shape, affine, silu, affine != silu);
}

TEST_CASE("groupNorm: a common offset stays out of the variance, equal elements have none") {
  constexpr int64_t kPixels = 3000;
  std::vector<float> values = someValues<float>(2 * kPixels, 1);
  double mean = 0.0, square = 0.0;
  for (int64_t i = 0; i < kPixels; ++i) {
    float& value = values[static_cast<size_t>(i)];
    value += 4096.0f;
    mean += value / static_cast<double>(kPixels);
    values[static_cast<size_t>(kPixels + i)] = 0.1f;
  }
  for (int64_t i = 0; i < kPixels; ++i)
    square += std::pow(values[static_cast<size_t>(i)] - mean, 2) / static_cast<double>(kPixels);
  const Array<float> x(values), y(2 * kPixels), means(2), rstd(2);
  runEverywhere(Op::groupNorm, [&](Side side) {
    return GroupNormArgs{
        x.at(side), nullptr, nullptr, y.at(side), means.at(side), rstd.at(side),  1,
        2,          kPixels, 2,       1e-5f,      false,          DType::kFloat32};
  });
  const std::vector<float> result = rstd.cuda();
  REQUIRE(std::fabs(result[0] * std::sqrt(square + kEpsilon) - 1.0) < 1e-6);
  REQUIRE(std::fabs(result[1] * std::sqrt(kEpsilon) - 1.0) < 1e-6);
  const std::vector<float> normalised = y.cuda();
  requireEach(kPixels, [&](size_t i) { return std::fabs(normalised[kPixels + i]) < 1e-4f; });
}

TEST_CASE_TEMPLATE("groupNorm: a NaN spoils its group alone", T, float, BFloat16) {
  constexpr int64_t kBatch = 2, kChannels = 4, kPixels = 24, kGroups = 2;
  constexpr int64_t kCount = kBatch * kChannels * kPixels,
                    kElements = kChannels / kGroups * kPixels;
  std::vector<T> x = someValues<T>(kCount, 1), dy = someValues<T>(kCount, 2);
  x[kElements + 7] = storeAs(T{}, INFINITY);
  dy[2 * kElements + 3] = storeAs(T{}, NAN);
  const Array<T> ax(x), ady(dy), y(kCount), dx(kCount);
  const Array<float> mean(kBatch * kGroups), rstd(kBatch * kGroups), dweight(kChannels),
      dbias(kChannels), partials(2 * kBatch * kChannels);
  runEverywhere(Op::groupNorm, [&](Side side) {
    return GroupNormArgs{ax.at(side),   nullptr, nullptr,          y.at(side), mean.at(side),
                         rstd.at(side), kBatch,  kChannels,        kPixels,    kGroups,
                         1e-5f,         true,    DTypeOf<T>::value};
  });
  runEverywhere(Op::groupNormBackward, [&](Side side) {
    return GroupNormBackwardArgs{ax.at(side),    ady.at(side),      nullptr,     nullptr,
                                 mean.at(side),  rstd.at(side),     dx.at(side), dweight.at(side),
                                 dbias.at(side), partials.at(side), kBatch,      kChannels,
                                 kPixels,        kGroups,           true,        DTypeOf<T>::value};
  });
  const std::vector<T> value = y.cuda(), gradient = dx.cuda();
  requireEach(value.size(), [&](size_t i) {
    const auto group = static_cast<int64_t>(i) / kElements;
    return std::isnan(toFloat(value[i])) == (group == 1) &&
           std::isnan(toFloat(gradient[i])) == (group == 1 || group == 2);
  });
  const std::vector<float> sums = dweight.cuda();  // group 1 has channels 2 and 3, the NaN is in 0
  REQUIRE(std::isnan(sums[0]));
  REQUIRE(std::isfinite(sums[1]));
  REQUIRE(std::isnan(sums[2]));
}

}  // namespace
}  // namespace didr::test
