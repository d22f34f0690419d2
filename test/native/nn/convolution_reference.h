// Convolution and its backward passes in float64, for the tests of either device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "native/ops/nn/conv2d.h"

namespace didr::test {

struct ConvolutionCase {
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

// y, and the gradients of dy's inner product with it.
struct ConvolutionReference {
  std::vector<double> y, dx, dweight, dbias;

  // bias: empty where there is none.
  ConvolutionReference(const Conv2dShape& s, const std::vector<double>& x,
                       const std::vector<double>& weight, const std::vector<double>& bias,
                       const std::vector<double>& dy)
      : y(dy.size()), dx(x.size()), dweight(weight.size()), dbias(bias.size()) {
    const auto pixels = static_cast<size_t>(s.outHeight * s.outWidth);
    for (size_t i = 0; i < y.size() && !bias.empty(); ++i) {
      const size_t output = i / pixels % static_cast<size_t>(s.outputs);
      y[i] = bias[output];
      dbias[output] += dy[i];
    }
    forEachProduct(s, [&](size_t iy, size_t iw, size_t ix) {
      y[iy] += weight[iw] * x[ix];
      dx[ix] += dy[iy] * weight[iw];
      dweight[iw] += dy[iy] * x[ix];
    });
  }
};

}  // namespace didr::test
