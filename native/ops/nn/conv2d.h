// Contracts of `conv2d` and its backward passes: cross-correlation of NCHW images.
//
//   y[b, o, i, j] = bias[o] + sum over c, u, w of
//                   weight[o, c, u, w] xpad[b, c, stride i + u, stride j + w]
//   xpad is x with `top`, `bottom`, `left`, `right` rows and columns of zeros around it.
//
// Shapes: x, dx [batch, inputs, height, width]; weight, dweight [outputs, inputs, kernelHeight,
// kernelWidth]; bias, dbias [outputs] or null; y, dy [batch, outputs, outHeight, outWidth] with
// outHeight = (height + top + bottom - kernelHeight) / stride + 1, outWidth likewise.
// kernelHeight and kernelWidth are 1 to kMostKernel, stride is 1 or 2, padding smaller than the
// kernel.
//
// Backward: conv2dBackwardData writes dx; conv2dBackwardWeight writes dweight and, where not null,
// dbias.
// dtype: float32. Each output is one sum in a fixed order (dweight: per image, images of a fixed
// group in order, then groups in order), so threads change no bit, nor do levels that have a fused
// multiply-add. Aliasing: none.
#pragma once

#include <cstdint>

namespace didr {

inline constexpr int64_t kMostKernel = 7;

struct Conv2dShape {
  int64_t batch;
  int64_t inputs;
  int64_t outputs;
  int64_t height;
  int64_t width;
  int64_t outHeight;
  int64_t outWidth;
  int64_t kernelHeight;
  int64_t kernelWidth;
  int64_t stride;
  int64_t top;
  int64_t bottom;
  int64_t left;
  int64_t right;
};

struct Conv2dArgs {
  const float* x;
  const float* weight;
  const float* bias;  // or null
  float* y;
  Conv2dShape shape;
};

struct Conv2dBackwardDataArgs {
  const float* dy;
  const float* weight;
  float* dx;
  Conv2dShape shape;
};

struct Conv2dBackwardWeightArgs {
  const float* x;
  const float* dy;
  float* dweight;
  float* dbias;  // or null
  Conv2dShape shape;
};

}  // namespace didr
