#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

constexpr uint64_t kSeed = 0x9e3779b97f4a7c15ull, kOffset = 11;

template <class T>
void checkPerturb(const Shape& shape, bool wantsNoise, bool inPlace) {
  CAPTURE(shape.batch);
  CAPTURE(shape.sampleSize);
  const int64_t count = shape.batch * shape.sampleSize;
  const std::vector<T> clean = someValues<T>(count, 1);
  const std::vector<float> coefficients = someCoefficients(shape.batch);
  const Array<T> x0(clean), xt(count), noise(wantsNoise ? count : 0);
  const Array<float> alphaSigma(coefficients);
  const Array<int32_t> nonFinite(shape.batch);
  const Array<T>& result = inPlace ? x0 : xt;
  runEverywhere(Op::perturb, [&](Side side) {
    return PerturbArgs{x0.at(side),
                       result.at(side),
                       wantsNoise ? noise.at(side) : nullptr,
                       alphaSigma.at(side),
                       nonFinite.at(side),
                       shape.batch,
                       shape.sampleSize,
                       kSeed,
                       kOffset,
                       DTypeOf<T>::value};
  });
  REQUIRE(nonFinite.cuda() == std::vector<int32_t>(static_cast<size_t>(shape.batch), 0));

  const std::vector<T> cuda = result.cuda(), cudaNoise = noise.cuda();
  REQUIRE(sameBits(cudaNoise, noise.cpu()));
  REQUIRE(sameBits(cuda, result.cpu()));
  if (!inPlace) REQUIRE(asDoubles(x0.cuda()) == asDoubles(clean));

  // Against float64, with the float32 noise of the normal draw.
  const Array<float> eps(count);
  runEverywhere(Op::normal, [&](Side side) {
    return NormalArgs{eps.at(side), count, kSeed, kOffset, 0.0f, 1.0f, DType::kFloat32};
  });
  const std::vector<float> draw = eps.cpu();
  requireEach(cuda.size(), [&](size_t i) {
    const size_t b = i / static_cast<size_t>(shape.sampleSize);
    const double signal = static_cast<double>(coefficients[2 * b]) * toFloat(clean[i]);
    const double expected = signal + static_cast<double>(coefficients[2 * b + 1]) * draw[i];
    // One rounding of the product, one of the sum, one to T.
    const double bound = (std::fabs(signal) + std::fabs(expected)) * 0x1p-24 +
                         std::fabs(expected) * kRounding<T> * 1.01 + 1e-44;
    return std::fabs(toFloat(cuda[i]) - expected) <= bound &&
           (!wantsNoise || toFloat(cudaNoise[i]) == toFloat(storeAs(T{}, draw[i])));
  });
}

TEST_CASE_TEMPLATE("perturb: the CPU's bits and float64", T, float, BFloat16) {
  for (const Shape& shape : kShapes) checkPerturb<T>(shape, true, false);
}

TEST_CASE_TEMPLATE("perturb: a million elements, in place, no noise out", T, float, BFloat16) {
  checkPerturb<T>({1, kRaceDetection ? 10003 : 1000003}, false, true);
  checkPerturb<T>({17, 777}, false, true);
}

TEST_CASE_TEMPLATE("perturb: non-finite values are counted per sample", T, float, BFloat16) {
  for (const Shape& shape : {Shape{5, 3}, {4, 64}, {3, 1027}}) {
    CAPTURE(shape.sampleSize);
    std::vector<T> values = someValues<T>(shape.batch * shape.sampleSize, 2);
    const auto at = [&](int64_t b, int64_t j) -> T& {
      return values[static_cast<size_t>(b * shape.sampleSize + j)];
    };
    at(0, 0) = storeAs(T{}, NAN);
    at(1, shape.sampleSize - 1) = storeAs(T{}, INFINITY);
    at(1, 0) = storeAs(T{}, -INFINITY);
    at(2, 1) = storeAs(T{}, 1e-40f);  // subnormal: finite
    const Array<T> x0(values), xt(shape.batch * shape.sampleSize);
    const Array<float> alphaSigma(someCoefficients(shape.batch));
    const Array<int32_t> nonFinite(shape.batch);
    runEverywhere(Op::perturb, [&](Side side) {
      return PerturbArgs{x0.at(side),
                         xt.at(side),
                         nullptr,
                         alphaSigma.at(side),
                         nonFinite.at(side),
                         shape.batch,
                         shape.sampleSize,
                         kSeed,
                         kOffset,
                         DTypeOf<T>::value};
    });
    std::vector<int32_t> expected(static_cast<size_t>(shape.batch), 0);
    expected[0] = 1;
    expected[1] = 2;
    REQUIRE(nonFinite.cuda() == expected);
    REQUIRE(nonFinite.cpu() == expected);
    const std::vector<T> cpu = xt.cpu(), cuda = xt.cuda();
    requireEach(cpu.size(), [&](size_t i) {
      return toFloat(cpu[i]) == toFloat(cuda[i]) ||
             (std::isnan(toFloat(cpu[i])) && std::isnan(toFloat(cuda[i])));
    });
  }
}

}  // namespace
}  // namespace didr::test
