// Convolution against a float64 loop over every index; its backward passes against the transposes
// of that loop.
#include "test/native/nn/gradients.h"

namespace didr::test {
namespace {

struct ConvCase {
  int64_t batch, inputs, outputs, height, width, kernelHeight, kernelWidth, stride;
  int64_t top, bottom, left, right;

  Conv2dShape shape() const {
    return {batch,
            inputs,
            outputs,
            height,
            width,
            (height + top + bottom - kernelHeight) / stride + 1,
            (width + left + right - kernelWidth) / stride + 1,
            kernelHeight,
            kernelWidth,
            stride,
            top,
            bottom,
            left,
            right};
  }
};
constexpr ConvCase kCases[] = {
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

// Calls visit(index of y, of weight, of x) for every product that the convolution is made of.
template <class Visit>
void forEachProduct(const Conv2dShape& s, const Visit& visit) {
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t o = 0; o < s.outputs; ++o)
      for (int64_t i = 0; i < s.outHeight; ++i)
        for (int64_t j = 0; j < s.outWidth; ++j)
          for (int64_t c = 0; c < s.inputs; ++c)
            for (int64_t u = 0; u < s.kernelHeight; ++u)
              for (int64_t w = 0; w < s.kernelWidth; ++w) {
                const int64_t row = s.stride * i + u - s.top;
                const int64_t column = s.stride * j + w - s.left;
                if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
                visit(
                    static_cast<size_t>(((b * s.outputs + o) * s.outHeight + i) * s.outWidth + j),
                    static_cast<size_t>(((o * s.inputs + c) * s.kernelHeight + u) * s.kernelWidth +
                                        w),
                    static_cast<size_t>(((b * s.inputs + c) * s.height + row) * s.width + column));
              }
}

TEST_CASE("conv2d and its backward passes") {
  for (const ConvCase& c : kCases)
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
      const Values wx = widen(x), ww = widen(weight), wdy = widen(dy);
      Values y(static_cast<size_t>(yCount)), dx(static_cast<size_t>(xCount)),
          dweight(static_cast<size_t>(weights)), dbias(static_cast<size_t>(biases));
      const auto pixels = static_cast<size_t>(s.outHeight * s.outWidth);
      for (size_t i = 0; i < y.size() && hasBias; ++i) {
        const size_t o = i / pixels % static_cast<size_t>(s.outputs);
        y[i] = static_cast<double>(bias[o]);
        dbias[o] += wdy[i];
      }
      forEachProduct(s, [&](size_t iy, size_t iw, size_t ix) {
        y[iy] += ww[iw] * wx[ix];
        dx[ix] += wdy[iy] * ww[iw];
        dweight[iw] += wdy[iy] * wx[ix];
      });
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
        checkClose(gy.values(), y, 2e-6);
        checkClose(gdx.values(), dx, 2e-6);
        checkClose(gdweight.values(), dweight, 2e-6);
        checkClose(gdbias.values(), dbias, 2e-6);
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
