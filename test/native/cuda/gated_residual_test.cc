#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

struct Rows {
  int64_t samples, perSample, size;
};
constexpr Rows kRows[] = {{0, 1, 5},   {2, 3, 0},    {1, 1, 1},   {2, 3, 17},  {3, 65, 5},
                          {1, 77, 32}, {2, 130, 40}, {5, 1, 264}, {1, 3, 1027}};

template <class T>
void checkGatedResidual(const Rows& shape, bool tanh, bool inPlace) {
  CAPTURE(shape.samples);
  CAPTURE(shape.perSample);
  CAPTURE(shape.size);
  CAPTURE(tanh);
  CAPTURE(inPlace);
  const int64_t rows = shape.samples * shape.perSample;
  const int64_t count = rows * shape.size;
  const std::vector<T> x = someValues<T>(count, 1), h = someValues<T>(count, 2),
                       dy = someValues<T>(count, 3),
                       gate = someValues<T>(shape.samples * shape.size, 4);
  const Array<T> ax(x), ah(h), ady(dy), agate(gate), other(count), otherGradient(count);
  const Array<float> dgate(shape.samples * shape.size),
      partials(rowBlocks(rows, shape.perSample) * shape.size);
  const Array<T>& y = inPlace ? ax : other;
  const Array<T>& dh = inPlace ? ady : otherGradient;
  runEverywhere(Op::gatedResidual, [&](Side side) {
    return GatedResidualArgs{ax.at(side), ah.at(side),     agate.at(side), y.at(side),       rows,
                             shape.size,  shape.perSample, tanh,           DTypeOf<T>::value};
  });
  runEverywhere(Op::gatedResidualBackward, [&](Side side) {
    return GatedResidualBackwardArgs{ah.at(side), agate.at(side),   ady.at(side),
                                     dh.at(side), dgate.at(side),   partials.at(side),
                                     rows,        shape.size,       shape.perSample,
                                     tanh,        DTypeOf<T>::value};
  });
  REQUIRE(sameBits(y.cuda(), y.cpu()));
  REQUIRE(sameBits(dh.cuda(), dh.cpu()));
  REQUIRE(sameBits(ah.cuda(), h));
  partials.cuda();

  std::vector<double> expected, expectedGradient,
      gateGradient(static_cast<size_t>(shape.samples * shape.size), 0.0);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t row = i / static_cast<size_t>(shape.size);
    const size_t at = row / static_cast<size_t>(shape.perSample) * static_cast<size_t>(shape.size) +
                      i % static_cast<size_t>(shape.size);
    const double g = toFloat(gate[at]);
    const double factor = tanh ? std::tanh(g) : g;
    expected.push_back(toFloat(x[i]) + factor * toFloat(h[i]));
    expectedGradient.push_back(factor * toFloat(dy[i]));
    gateGradient[at] +=
        (tanh ? 1.0 - factor * factor : 1.0) * static_cast<double>(toFloat(dy[i])) * toFloat(h[i]);
  }
  requireClose(asDoubles(y.cuda()), expected, 3e-7 + kRounding<T>);
  requireClose(asDoubles(dh.cuda()), expectedGradient, 3e-7 + kRounding<T>);
  requireClose(asDoubles(dgate.cuda()), gateGradient, 3e-6);
  requireClose(asDoubles(dgate.cuda()), asDoubles(dgate.cpu()), 3e-6);
}

TEST_CASE_TEMPLATE("gatedResidual: the CPU's bits and float64, forward and backward", T, float,
                   BFloat16) {
  for (const Rows& shape : kRows)
    for (const bool tanh : {false, true}) checkGatedResidual<T>(shape, tanh, tanh);
}

TEST_CASE_TEMPLATE("gatedResidual: infinite gates saturate, NaN spreads to its column alone", T,
                   float, BFloat16) {
  constexpr int64_t kPerSample = 9, kSize = 24;
  std::vector<T> gate = someValues<T>(kSize, 4);
  gate[3] = storeAs(T{}, INFINITY);
  gate[4] = storeAs(T{}, -INFINITY);
  gate[7] = storeAs(T{}, NAN);
  const std::vector<T> h = someValues<T>(kPerSample * kSize, 2);
  const Array<T> ah(h), ady(h), agate(gate), y(kPerSample * kSize), dh(kPerSample * kSize);
  const Array<float> dgate(kSize), partials(kSize);
  runEverywhere(Op::gatedResidual, [&](Side side) {
    return GatedResidualArgs{ah.at(side), ah.at(side), agate.at(side), y.at(side),       kPerSample,
                             kSize,       kPerSample,  true,           DTypeOf<T>::value};
  });
  runEverywhere(Op::gatedResidualBackward, [&](Side side) {
    return GatedResidualBackwardArgs{
        ah.at(side), agate.at(side), ady.at(side), dh.at(side), dgate.at(side),   partials.at(side),
        kPerSample,  kSize,          kPerSample,   true,        DTypeOf<T>::value};
  });
  const std::vector<T> result = y.cuda(), gradient = dh.cuda();
  requireEach(result.size(), [&](size_t i) {
    const double value = toFloat(result[i]), of = toFloat(h[i]);
    switch (i % kSize) {
      case 3:
        return std::fabs(value - 2.0 * of) <= std::fabs(value) * kRounding<T> &&
               toFloat(gradient[i]) == of;
      case 4:
        return value == 0.0 && toFloat(gradient[i]) == -of;
      case 7:
        return std::isnan(value) && std::isnan(toFloat(gradient[i]));
      default:
        return std::isfinite(value) && std::isfinite(toFloat(gradient[i]));
    }
  });
  const std::vector<float> sums = dgate.cuda();
  requireEach(sums.size(), [&](size_t i) {
    return i == 7 ? std::isnan(sums[i]) : i == 3 || i == 4 ? sums[i] == 0.0f : sums[i] > 0.0f;
  });
}

}  // namespace
}  // namespace didr::test
