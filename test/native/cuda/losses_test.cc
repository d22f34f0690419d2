#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

struct Logits {
  int64_t rows, classes;
};
constexpr Logits kLogits[] = {{1, 1},    {1, 5},   {3, 17},
                              {9, 32},   {64, 65}, {kRaceDetection ? 15 : 1500, 10},
                              {2, 4099}, {3, 2056}};

template <class T>
void checkCrossEntropy(const Logits& shape, bool inPlace) {
  CAPTURE(shape.rows);
  CAPTURE(shape.classes);
  CAPTURE(inPlace);
  const auto classes = static_cast<size_t>(shape.classes);
  const int64_t count = shape.rows * shape.classes;
  std::vector<T> logits = someValues<T>(count, 1);
  for (T& x : logits) x = storeAs(T{}, 4.0f * toFloat(x));
  // Far from zero, where exponentials overflow unless the largest is taken out.
  for (size_t i = 0; i < classes; ++i) logits[i] = storeAs(T{}, toFloat(logits[i]) + 200.0f);
  std::vector<int32_t> names;
  for (int64_t row = 0; row < shape.rows; ++row)
    names.push_back(static_cast<int32_t>(row * 7 % shape.classes));
  const Array<T> x(logits), other(count);
  const Array<int32_t> targets(names), outside(int64_t{1});
  const Array<float> loss(int64_t{1}), partials(shape.rows);
  const Array<T>& gradient = inPlace ? x : other;
  runEverywhere(Op::crossEntropy, [&](Side side) {
    return CrossEntropyArgs{x.at(side),        targets.at(side),  loss.at(side),
                            gradient.at(side), partials.at(side), outside.at(side),
                            shape.rows,        shape.classes,     DTypeOf<T>::value};
  });
  partials.cuda();
  REQUIRE(outside.cuda()[0] == 0);
  const auto rows = static_cast<double>(shape.rows);
  std::vector<double> expected = asDoubles(logits);
  double mean = 0.0;
  for (size_t row = 0; row < names.size(); ++row) {
    double* const of = expected.data() + row * classes;
    double most = of[0], sum = 0.0;
    for (size_t c = 0; c < classes; ++c) most = std::fmax(most, of[c]);
    for (size_t c = 0; c < classes; ++c) sum += std::exp(of[c] - most);
    const auto target = static_cast<size_t>(names[row]);
    mean += (std::log(sum) + most - of[target]) / rows;
    for (size_t c = 0; c < classes; ++c)
      of[c] = (std::exp(of[c] - most) / sum - (c == target ? 1.0 : 0.0)) / rows;
  }
  requireClose(asDoubles(loss.cuda()), {mean}, 3e-6);
  requireClose(asDoubles(loss.cuda()), asDoubles(loss.cpu()), 3e-6);
  requireClose(asDoubles(gradient.cuda()), expected, 3e-6 + kRounding<T>);
  requireClose(asDoubles(gradient.cuda()), asDoubles(gradient.cpu()), 3e-6 + 2.02 * kRounding<T>);
}

TEST_CASE_TEMPLATE("crossEntropy: the CPU and float64", T, float, BFloat16) {
  for (const Logits& shape : kLogits)
    for (const bool inPlace : {false, true}) checkCrossEntropy<T>(shape, inPlace);
}

TEST_CASE("crossEntropy: logits and targets that give no number") {
  const auto lossOf = [](const std::vector<float>& logits, const std::vector<int32_t>& names,
                         int64_t classes, int32_t wrong = 0) {
    const auto rows = static_cast<int64_t>(names.size());
    const Array<float> x(logits), gradient(rows * classes), loss(int64_t{1}), partials(rows);
    const Array<int32_t> targets(names), outside(int64_t{1});
    for (const Side side : {Side::kCuda, Side::kCudaAgain}) {
      const CrossEntropyArgs arguments = {
          x.at(side),        targets.at(side), loss.at(side), gradient.at(side),
          partials.at(side), outside.at(side), rows,          classes,
          DType::kFloat32};
      runOn(side, Op::crossEntropy, &arguments);
    }
    gradient.cuda();
    REQUIRE(outside.cuda()[0] == wrong);
    return loss.cuda()[0];
  };
  REQUIRE(std::isnan(lossOf({}, {}, 3)));
  REQUIRE(std::isnan(lossOf({0.0f, NAN, 1.0f}, {0}, 3)));
  REQUIRE(std::isnan(lossOf({0.0f, INFINITY, 1.0f}, {0}, 3)));
  REQUIRE(lossOf({0.0f, -INFINITY, 0.0f}, {0}, 3) == doctest::Approx(std::log(2.0)));
  REQUIRE(lossOf({0.0f, -INFINITY, 0.0f}, {1}, 3) == INFINITY);
  for (const int32_t target : {-1, 3, INT32_MAX, INT32_MIN})
    REQUIRE(std::isnan(lossOf({0.0f, 1.0f, 2.0f, 0.0f, 1.0f, 2.0f}, {1, target}, 3, 1)));
}

TEST_CASE_TEMPLATE("mse: the CPU and float64", T, float, BFloat16) {
  for (const int64_t count : {1, 3, 5, 8, 17, 65, 4097, 8191, 8192, 8193, 50001})
    for (const bool inPlace : {false, true}) {
      CAPTURE(count);
      const std::vector<T> a = someValues<T>(count, 1), b = someValues<T>(count, 2);
      const Array<T> x(a), y(b), other(count);
      const Array<float> loss(int64_t{1}), partials(msePartials(count));
      const Array<T>& gradient = inPlace ? y : other;
      runEverywhere(Op::mse, [&](Side side) {
        return MseArgs{x.at(side),        y.at(side), loss.at(side),    gradient.at(side),
                       partials.at(side), count,      DTypeOf<T>::value};
      });
      partials.cuda();
      REQUIRE(sameBits(gradient.cuda(), gradient.cpu()));
      const std::vector<double> left = asDoubles(a), right = asDoubles(b);
      std::vector<double> expected;
      double mean = 0.0;
      for (size_t i = 0; i < left.size(); ++i) {
        const double d = left[i] - right[i];
        mean += d * d / static_cast<double>(count);
        expected.push_back(2.0 * d / static_cast<double>(count));
      }
      requireClose(asDoubles(loss.cuda()), {mean}, 1e-6);
      requireClose(asDoubles(loss.cuda()), asDoubles(loss.cpu()), 1e-6);
      requireClose(asDoubles(gradient.cuda()), expected, 2e-7 + kRounding<T>);
    }
}

TEST_CASE("mse: of nothing, and of a NaN") {
  for (const int64_t count : {0, 9}) {
    std::vector<float> values = someValues<float>(count, 1);
    if (count > 0) values[4] = NAN;
    const Array<float> x(values), y(someValues<float>(count, 2)), gradient(count), loss(int64_t{1}),
        partials(msePartials(count));
    runEverywhere(Op::mse, [&](Side side) {
      return MseArgs{x.at(side),        y.at(side), loss.at(side),  gradient.at(side),
                     partials.at(side), count,      DType::kFloat32};
    });
    REQUIRE(std::isnan(loss.cuda()[0]));
    const std::vector<float> cuda = gradient.cuda();
    requireEach(cuda.size(), [&](size_t i) { return std::isnan(cuda[i]) == (i == 4); });
  }
}

}  // namespace
}  // namespace didr::test
