// Convolution against a float64 loop over every index; its backward passes against the transposes
// of that loop.
#include "test/native/nn/convolution_reference.h"
#include "test/native/nn/gradients.h"

namespace didr::test {
namespace {

constexpr ConvolutionCase kCases[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},     {2, 3, 5, 7, 9, 3, 3, 1, 1, 1, 1, 1},
    {2, 5, 3, 8, 8, 3, 3, 2, 0, 1, 0, 1},     {1, 4, 9, 9, 7, 3, 3, 2, 1, 1, 1, 1},
    {3, 16, 16, 16, 16, 3, 3, 1, 1, 1, 1, 1}, {1, 8, 70, 5, 33, 3, 3, 1, 1, 1, 1, 1},
    {2, 17, 13, 5, 5, 1, 1, 1, 0, 0, 0, 0},   {1, 16, 32, 16, 16, 1, 1, 1, 0, 0, 0, 0},
    {1, 3, 4, 6, 10, 1, 1, 2, 0, 0, 0, 0},    {1, 2, 3, 11, 6, 5, 2, 1, 4, 0, 0, 1},
    {1, 2, 3, 9, 9, 7, 7, 2, 3, 3, 3, 3},     {1, 2, 2, 4, 5, 3, 3, 1, 0, 0, 0, 0},
    {0, 3, 4, 5, 5, 3, 3, 1, 1, 1, 1, 1},     {2, 3, 65, 130, 3, 3, 3, 1, 1, 1, 1, 1},
    {19, 2, 3, 4, 4, 3, 3, 1, 1, 1, 1, 1},    {1, 32, 8, 70, 70, 3, 3, 2, 0, 1, 0, 1},
    {1, 0, 2, 3, 3, 3, 3, 1, 1, 1, 1, 1},
};

TEST_CASE("conv2d and its backward passes") {
  for (const ConvolutionCase& c : kCases)
    for (const bool hasBias : {true, false}) {
      const Conv2dShape s = c.shape();
      CAPTURE(s.batch);
      CAPTURE(s.inputs);
      CAPTURE(s.outputs);
      CAPTURE(s.height);
      CAPTURE(s.width);
      CAPTURE(s.stride);
      const int64_t xCount = s.batch * s.inputs * s.height * s.width;
      const int64_t yCount = s.batch * s.outputs * s.outHeight * s.outWidth;
      const int64_t weights = s.outputs * s.inputs * s.kernelHeight * s.kernelWidth;
      const int64_t biases = hasBias ? s.outputs : 0;
      const std::vector<float> x = someFloats(xCount, 1), weight = someFloats(weights, 2),
                               bias = someFloats(biases, 3), dy = someFloats(yCount, 4);
      const ConvolutionReference expected(s, widen(x), widen(weight), widen(bias), widen(dy));
      atEveryFusedLevel([&](const auto& launch) {
        Guarded<float> gx(x), gweight(weight), gbias(bias), gdy(dy), gy(yCount), gdx(xCount),
            gdweight(weights), gdbias(biases);
        launch(Op::conv2d, Conv2dArgs{gx.data(), gweight.data(), hasBias ? gbias.data() : nullptr,
                                      gy.data(), s});
        launch(Op::conv2dBackwardData,
               Conv2dBackwardDataArgs{gdy.data(), gweight.data(), gdx.data(), s});
        launch(Op::conv2dBackwardWeight,
               Conv2dBackwardWeightArgs{gx.data(), gdy.data(), gdweight.data(),
                                        hasBias ? gdbias.data() : nullptr, s});
        checkClose(gy.values(), expected.y, 2e-6);
        checkClose(gdx.values(), expected.dx, 2e-6);
        checkClose(gdweight.values(), expected.dweight, 2e-6);
        checkClose(gdbias.values(), expected.dbias, 2e-6);
        Bytes bytes;
        bytes.add(gy.values());
        bytes.add(gdx.values());
        bytes.add(gdweight.values());
        bytes.add(gdbias.values());
        return bytes;
      });
    }
}

}  // namespace
}  // namespace didr::test
