#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

struct NormCase {
  int64_t samples, perSample, size;
};
// Rows of one element, of a warp, of a block, longer than what a block keeps in registers; blocks of
// rows that are whole and not.
#if defined(__SANITIZE_THREAD__)
constexpr NormCase kCases[] = {{2, 3, 17}, {1, 70, 40}, {1, 2, 1032}};
#else
constexpr NormCase kCases[] = {{0, 1, 5},    {1, 1, 1},    {2, 3, 17},   {3, 65, 5},
                               {1, 77, 32},  {2, 130, 40}, {5, 1, 256},  {1, 3, 1025},
                               {2, 2, 1032}, {1, 2, 5128}, {1, 2, 4099}, {20, 9, 8}};
#endif
constexpr double kEpsilon = 1e-5;

// Everything that norm and normBackward leave, in float64.
struct Expected {
  std::vector<double> y, dx, dweight, dbias, dscale, dshift, mean, rstd;
  double term = 1e-30;  // the largest of the terms whose difference a dx is
};

template <class T>
struct Operands {
  std::vector<T> x, dy, weight, bias, scale, shift;  // empty where absent, but x and dy
};

template <class T>
Expected normOf(NormKind kind, const NormCase& shape, const Operands<T>& of) {
  const auto size = static_cast<size_t>(shape.size);
  const auto samples = static_cast<size_t>(shape.samples);
  const auto count = static_cast<double>(shape.size);
  const auto at = [](const std::vector<T>& row, size_t i, double absent) {
    return row.empty() ? absent : static_cast<double>(toFloat(row[i]));
  };
  Expected result;
  result.dweight.resize(size);
  result.dbias.resize(size);
  result.dscale.resize(samples * size);
  result.dshift.resize(samples * size);
  for (size_t row = 0; row * size < of.x.size(); ++row) {
    const size_t sample = row / static_cast<size_t>(shape.perSample) * size;
    const auto x = [&](size_t i) { return static_cast<double>(toFloat(of.x[row * size + i])); };
    const auto dy = [&](size_t i) { return static_cast<double>(toFloat(of.dy[row * size + i])); };
    double mean = 0.0, square = 0.0;
    for (size_t i = 0; i < size; ++i) mean += x(i) / count;
    if (kind == NormKind::kRms) mean = 0.0;
    for (size_t i = 0; i < size; ++i) square += (x(i) - mean) * (x(i) - mean);
    const double rstd = 1.0 / std::sqrt(square / count + kEpsilon);
    result.mean.push_back(mean);
    result.rstd.push_back(rstd);
    double projection = 0.0, total = 0.0;
    for (size_t i = 0; i < size; ++i) {
      const double xhat = (x(i) - mean) * rstd;
      const double w = at(of.weight, i, 1.0), b = at(of.bias, i, 0.0);
      const double m = 1.0 + at(of.scale, sample + i, 0.0);
      result.y.push_back((xhat * w + b) * m + at(of.shift, sample + i, 0.0));
      projection += dy(i) * w * m * xhat / count;
      total += kind == NormKind::kLayer ? dy(i) * w * m / count : 0.0;
      result.dweight[i] += m * dy(i) * xhat;
      result.dbias[i] += m * dy(i);
      result.dscale[sample + i] += dy(i) * (xhat * w + b);
      result.dshift[sample + i] += dy(i);
    }
    for (size_t i = 0; i < size; ++i) {
      const double g = dy(i) * at(of.weight, i, 1.0) * (1.0 + at(of.scale, sample + i, 0.0));
      const double xhat = (x(i) - mean) * rstd;
      result.dx.push_back(rstd * (g - xhat * projection - total));
      result.term = std::fmax(result.term, rstd * std::fabs(g));
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
void checkNorm(NormKind kind, const NormCase& shape, bool affine, bool modulated, bool inPlace) {
  CAPTURE(shape.samples);
  CAPTURE(shape.perSample);
  CAPTURE(shape.size);
  CAPTURE(affine);
  CAPTURE(modulated);
  CAPTURE(inPlace);
  const bool layer = kind == NormKind::kLayer;
  CAPTURE(layer);
  const int64_t rows = shape.samples * shape.perSample;
  const int64_t count = rows * shape.size;
  const int64_t modulation = modulated ? shape.samples * shape.size : 0;
  const int64_t rowsPerSample = modulated ? shape.perSample : rows;
  const Operands<T> of = {someValues<T>(count, 1),
                          someValues<T>(count, 2),
                          someValues<T>(affine ? shape.size : 0, 3),
                          someValues<T>(affine && layer ? shape.size : 0, 4),
                          someValues<T>(modulation, 5),
                          someValues<T>(layer ? modulation : 0, 6)};
  const Array<T> x(of.x), xAgain(of.x), dy(of.dy), weight(of.weight), bias(of.bias),
      scale(of.scale), shift(of.shift), otherY(count), otherDx(count);
  const Array<float> mean(layer ? rows : 0), rstd(rows), dweight(affine ? shape.size : 0),
      dbias(affine && layer ? shape.size : 0), dscale(modulation), dshift(layer ? modulation : 0),
      partials(normPartials(rows, rowsPerSample, shape.size));
  const Array<T>& y = inPlace ? xAgain : otherY;
  const Array<T>& dx = inPlace ? dy : otherDx;
  runEverywhere(Op::norm, [&](Side side) {
    return NormArgs{(inPlace ? xAgain : x).at(side),
                    affine ? weight.at(side) : nullptr,
                    affine && layer ? bias.at(side) : nullptr,
                    modulated ? scale.at(side) : nullptr,
                    modulated && layer ? shift.at(side) : nullptr,
                    y.at(side),
                    layer ? mean.at(side) : nullptr,
                    rstd.at(side),
                    rows,
                    shape.size,
                    rowsPerSample,
                    static_cast<float>(kEpsilon),
                    kind,
                    DTypeOf<T>::value};
  });
  runEverywhere(Op::normBackward, [&](Side side) {
    return NormBackwardArgs{x.at(side),
                            dy.at(side),
                            affine ? weight.at(side) : nullptr,
                            affine && layer ? bias.at(side) : nullptr,
                            modulated ? scale.at(side) : nullptr,
                            layer ? mean.at(side) : nullptr,
                            rstd.at(side),
                            dx.at(side),
                            affine ? dweight.at(side) : nullptr,
                            affine && layer ? dbias.at(side) : nullptr,
                            modulated ? dscale.at(side) : nullptr,
                            modulated && layer ? dshift.at(side) : nullptr,
                            partials.at(side),
                            rows,
                            shape.size,
                            rowsPerSample,
                            kind,
                            DTypeOf<T>::value};
  });
  REQUIRE(sameBits(x.cuda(), of.x));
  partials.cuda();

  const Expected expected = normOf(kind, shape, of);
  const auto check = [](const auto& result, const std::vector<double>& want, double relative,
                        double scale) {
    requireNear(asDoubles(result.cuda()), want, relative, scale);
    requireNear(asDoubles(result.cuda()), asDoubles(result.cpu()), relative, scale);
  };
  const auto present = [](const std::vector<double>& all, bool asked) {
    return asked ? all : std::vector<double>();
  };
  check(rstd, expected.rstd, 1e-6, 0.0);
  check(mean, present(expected.mean, layer), 1e-6, 1.0);
  // The CPU's result may be the neighbouring number of the dtype.
  const double rounding = 2.02 * kRounding<T>;
  check(y, expected.y, 2e-6 + rounding, 1.0);
  check(dx, expected.dx, 1e-5 + rounding, expected.term);
  check(dweight, present(expected.dweight, affine), 1e-5, 0.0);
  check(dbias, present(expected.dbias, affine && layer), 1e-5, 0.0);
  check(dscale, present(expected.dscale, modulated), 1e-5, 0.0);
  check(dshift, present(expected.dshift, modulated && layer), 1e-5, 0.0);
}

TEST_CASE_TEMPLATE("norm: the CPU and float64, forward and backward", T, float, BFloat16) {
  for (const NormKind kind : {NormKind::kRms, NormKind::kLayer})
    for (const NormCase& shape : kCases)
      for (const bool affine : {false, true})
        for (const bool modulated : {false, true})
          checkNorm<T>(kind, shape, affine, modulated, affine != modulated);
}

TEST_CASE("norm: a large common offset stays out of the variance") {
  constexpr NormCase kShape = {1, 2, 64};
  Operands<float> of;
  of.x = someValues<float>(2 * 64, 1);
  for (float& value : of.x) value += 4096.0f;
  of.dy = someValues<float>(2 * 64, 2);
  const Array<float> x(of.x), y(2 * 64), mean(2), rstd(2);
  runEverywhere(Op::norm, [&](Side side) {
    return NormArgs{
        x.at(side),       nullptr,        nullptr, nullptr, nullptr, y.at(side),
        mean.at(side),    rstd.at(side),  2,       64,      2,       static_cast<float>(kEpsilon),
        NormKind::kLayer, DType::kFloat32};
  });
  // The mean's own rounding, 2^-12 of its spacing, is what is left.
  requireNear(asDoubles(y.cuda()), normOf(NormKind::kLayer, kShape, of).y, 5e-4, 1.0);
}

TEST_CASE_TEMPLATE("norm: a NaN spoils its row, and its column of gradients, alone", T, float,
                   BFloat16) {
  constexpr int64_t kRows = 10, kSize = 72;
  std::vector<T> x = someValues<T>(kRows * kSize, 1);
  x[3 * kSize + 5] = storeAs(T{}, NAN);
  x[7 * kSize + 6] = storeAs(T{}, INFINITY);
  std::vector<T> dy = someValues<T>(kRows * kSize, 2);
  dy[2 * kSize + 70] = storeAs(T{}, INFINITY);
  const Array<T> ax(x), ady(dy), weight(someValues<T>(kSize, 3)), y(kRows * kSize),
      dx(kRows * kSize);
  const Array<float> mean(kRows), rstd(kRows), dweight(kSize), dbias(kSize),
      partials(normPartials(kRows, kRows, kSize));
  runEverywhere(Op::norm, [&](Side side) {
    return NormArgs{ax.at(side),      weight.at(side),  nullptr, nullptr, nullptr, y.at(side),
                    mean.at(side),    rstd.at(side),    kRows,   kSize,   kRows,   1e-5f,
                    NormKind::kLayer, DTypeOf<T>::value};
  });
  runEverywhere(Op::normBackward, [&](Side side) {
    return NormBackwardArgs{ax.at(side),
                            ady.at(side),
                            weight.at(side),
                            nullptr,
                            nullptr,
                            mean.at(side),
                            rstd.at(side),
                            dx.at(side),
                            dweight.at(side),
                            dbias.at(side),
                            nullptr,
                            nullptr,
                            partials.at(side),
                            kRows,
                            kSize,
                            kRows,
                            NormKind::kLayer,
                            DTypeOf<T>::value};
  });
  const std::vector<T> value = y.cuda(), gradient = dx.cuda();
  requireEach(value.size(), [&](size_t i) {
    const size_t row = i / kSize;
    const bool spoiled = row == 3 || row == 7;
    return std::isnan(toFloat(value[i])) == spoiled &&
           std::isfinite(toFloat(gradient[i])) == !(spoiled || row == 2);
  });
  const std::vector<float> sums = dbias.cuda();
  requireEach(sums.size(), [&](size_t i) { return std::isfinite(sums[i]) == (i != 70); });
}

}  // namespace
}  // namespace didr::test
