// The convolutions of both devices against a float64 loop over every product. A sum of k products is within a few roundings
// of its magnitude, which is at most 2e-6 of the largest result here.
#include "native/ops/nn/conv2d.h"

#include "test/native/cuda/both_devices.h"
#include "test/native/nn/convolution_reference.h"

namespace didr::test {
namespace {

void checkConvolution(const ConvolutionCase& c, bool hasBias) {
  const Conv2dShape s = c.shape();
  CAPTURE(s.batch);
  CAPTURE(s.inputs);
  CAPTURE(s.outputs);
  CAPTURE(s.height);
  CAPTURE(s.width);
  CAPTURE(s.kernelHeight);
  CAPTURE(s.stride);
  const int64_t yCount = s.batch * s.outputs * s.outHeight * s.outWidth;
  const int64_t weights = s.outputs * s.inputs * s.kernelHeight * s.kernelWidth;
  const std::vector<float> x = someValues<float>(s.batch * s.inputs * s.height * s.width, 1),
                           weight = someValues<float>(weights, 2),
                           bias = someValues<float>(hasBias ? s.outputs : 0, 3),
                           dy = someValues<float>(yCount, 4);
  const ConvolutionReference expected(s, asDoubles(x), asDoubles(weight), asDoubles(bias),
                                      asDoubles(dy));
  const Array<float> gx(x), gweight(weight), gbias(bias), gdy(dy), y(yCount),
      dx(static_cast<int64_t>(x.size())), dweight(weights),
      dbias(static_cast<int64_t>(bias.size()));
  runEverywhere(Op::conv2d, [&](Side side) {
    return Conv2dArgs{gx.at(side), gweight.at(side), hasBias ? gbias.at(side) : nullptr, y.at(side),
                      s};
  });
  runEverywhere(Op::conv2dBackwardData, [&](Side side) {
    return Conv2dBackwardDataArgs{gdy.at(side), gweight.at(side), dx.at(side), s};
  });
  runEverywhere(Op::conv2dBackwardWeight, [&](Side side) {
    return Conv2dBackwardWeightArgs{gx.at(side), gdy.at(side), dweight.at(side),
                                    hasBias ? dbias.at(side) : nullptr, s};
  });
  const auto requireBoth = [](const Array<float>& actual, const std::vector<double>& values) {
    for (const std::vector<float>& side : {actual.cuda(), actual.cpu()})
      requireClose(asDoubles(side), values, 2e-6);
  };
  requireBoth(y, expected.y);
  requireBoth(dx, expected.dx);
  requireBoth(dweight, expected.dweight);
  requireBoth(dbias, expected.dbias);
}

// The harness has two multiprocessors: two large tiles of outputs and pixels make the larger tiles worth their while.
constexpr ConvolutionCase kCases[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},   {2, 3, 5, 7, 9, 3, 3, 1, 1, 1, 1, 1},
    {2, 5, 3, 8, 8, 3, 3, 2, 0, 1, 0, 1},   {1, 4, 9, 9, 7, 3, 3, 2, 1, 1, 1, 1},
    {2, 16, 16, 8, 8, 3, 3, 1, 1, 1, 1, 1}, {1, 8, 70, 5, 33, 3, 3, 1, 1, 1, 1, 1},
    {2, 17, 13, 5, 5, 1, 1, 1, 0, 0, 0, 0}, {1, 16, 40, 16, 16, 1, 1, 1, 0, 0, 0, 0},
    {1, 3, 4, 6, 10, 1, 1, 2, 0, 0, 0, 0},  {1, 2, 3, 11, 6, 5, 2, 1, 4, 0, 0, 1},
    {1, 2, 3, 9, 9, 7, 7, 2, 3, 3, 3, 3},   {1, 2, 2, 4, 5, 3, 3, 1, 0, 0, 0, 0},
    {0, 3, 4, 5, 5, 3, 3, 1, 1, 1, 1, 1},   {2, 3, 65, 50, 3, 3, 3, 1, 1, 1, 1, 1},
    {1, 0, 2, 3, 3, 3, 3, 1, 1, 1, 1, 1},   {1, 5, 3, 17, 16, 3, 3, 2, 0, 1, 0, 1},
    {1, 64, 6, 5, 5, 3, 3, 1, 1, 1, 1, 1},
};

TEST_CASE("conv2d and its backward passes") {
  for (const ConvolutionCase& c : kCases)
    for (const bool hasBias : {true, false}) checkConvolution(c, hasBias);
}

TEST_CASE("a NaN in a pixel reaches the windows that hold it, and only those") {
  const Conv2dShape s = ConvolutionCase{1, 2, 3, 6, 7, 3, 3, 1, 1, 1, 1, 1}.shape();
  std::vector<float> x = someValues<float>(2 * 6 * 7, 1);
  x[42 + 2 * 7 + 3] = NAN;
  const Array<float> gx(x), weight(someValues<float>(54, 2)), y(int64_t{3 * 42});
  runEverywhere(Op::conv2d, [&](Side side) {
    return Conv2dArgs{gx.at(side), weight.at(side), nullptr, y.at(side), s};
  });
  const std::vector<float> values = y.cuda();
  requireEach(values.size(), [&](size_t i) {
    const size_t row = i % 42 / 7, column = i % 7;
    const bool holds = row >= 1 && row <= 3 && column >= 2 && column <= 4;
    return std::isnan(values[i]) == holds;
  });
}

}  // namespace
}  // namespace didr::test
