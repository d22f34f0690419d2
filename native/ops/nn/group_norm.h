// Contracts of `groupNorm` and `groupNormBackward`: GroupNorm of NCHW images, optionally with SiLU.
//
//   per sample and group of channels:  xhat = (x - mean) r,  r = 1 / sqrt(variance + epsilon)
//   z = xhat weight_c + bias_c,  y = z or z sigmoid(z)
//   (Wu and He, "Group normalization", arXiv 1803.08494)
//
// Shapes: x, y, dx, dy [batch, channels, pixels]; weight, bias [channels] (null: ones, zeros);
// mean, rstd [batch, groups]; channels is a multiple of groups.
//
// Backward, dz = dy or dy (d silu / dz)(z); n = elements of a group; sums over a channel's pixels
//   A_bc = sum dz xhat, B_bc = sum dz
//   dx = r (weight dz - (sum_c weight B) / n - xhat (sum_c weight A) / n)
//   dweight = sum_b A, dbias = sum_b B  (either may be null)
// `partials` is scratch of 2 * batch * channels floats: (A, B) per sample and channel.
//
// dtypes: x, y, dx, dy, weight, bias float32 or all bfloat16; the rest float32.
// Order of sums: fixed by the shape. Aliasing: y may be x, dx may be dy.
// Bytes: a group is read twice (three times backward), from the second cache when it fits there.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

struct GroupNormArgs {
  const void* x;
  const void* weight;  // or null
  const void* bias;    // or null
  void* y;
  float* mean;
  float* rstd;
  int64_t batch;
  int64_t channels;
  int64_t pixels;
  int64_t groups;
  float epsilon;
  bool silu;
  DType dtype;
};

struct GroupNormBackwardArgs {
  const void* x;
  const void* dy;
  const void* weight;  // or null
  const void* bias;    // or null
  const float* mean;
  const float* rstd;
  void* dx;
  float* dweight;  // or null
  float* dbias;    // or null
  float* partials;
  int64_t batch;
  int64_t channels;
  int64_t pixels;
  int64_t groups;
  bool silu;
  DType dtype;
};

}  // namespace didr
