// Contracts of `norm` and `normBackward`: RMSNorm and LayerNorm of rows, with modulation.
//
//   rms:    xhat = x r,            r = 1 / sqrt(mean(x^2) + epsilon)
//           (Zhang and Sennrich, "Root mean square layer normalization", arXiv 1910.07467)
//   layer:  xhat = (x - mean) r,   r = 1 / sqrt(mean((x - mean)^2) + epsilon)
//           (Ba, Kiros and Hinton, "Layer normalization", arXiv 1607.06450)
//   y = (xhat weight + bias) (1 + scale_b) + shift_b
//
// Shapes: x, y, dx, dy [rows, size]; weight, bias [size]; scale, shift [rows / rowsPerSample,
// size], row r belongs to sample b = r / rowsPerSample; mean, rstd [rows], stored for the backward
// pass (mean: layer only). Absent weight or scale count as ones or zeros, absent bias or shift as
// zeros; rms has neither bias nor shift.
//
// Backward, with g = dy (1 + scale_b) weight:
//   dx = r (g - xhat mean(g xhat) - [layer] mean(g))
//   with A_b = sum over the sample's rows of dy xhat and B_b = sum of dy:
//   dscale_b = weight A_b + bias B_b,  dshift_b = B_b,
//   dweight = sum over b of (1 + scale_b) A_b,  dbias = sum over b of (1 + scale_b) B_b
// Any of dweight, dbias, dscale, dshift may be null. `partials` is scratch of normPartials()
// floats: A and B per block of kRowBlock rows of a sample, added in order, so that threads change
// no bit.
//
// dtypes: x, y, dx, dy, weight, bias, scale, shift float32 or all bfloat16 (computed in float32);
// mean, rstd and the gradients of weight, bias, scale and shift float32.
// Aliasing: y may be x, dx may be dy. Bytes: forward reads x and writes y once (a row stays in the
// first cache between its passes); backward reads x and dy and writes dx once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"
#include "native/ops/nn/rows.h"

namespace didr {

enum class NormKind : int32_t { kRms, kLayer };

struct NormArgs {
  const void* x;
  const void* weight;  // or null
  const void* bias;    // or null
  const void* scale;   // or null
  const void* shift;   // or null
  void* y;
  float* mean;  // layer only
  float* rstd;
  int64_t rows;
  int64_t size;
  int64_t rowsPerSample;
  float epsilon;
  NormKind kind;
  DType dtype;
};

struct NormBackwardArgs {
  const void* x;
  const void* dy;
  const void* weight;  // or null
  const void* bias;    // or null
  const void* scale;   // or null
  const float* mean;   // layer only
  const float* rstd;
  void* dx;
  float* dweight;  // or null
  float* dbias;    // or null
  float* dscale;   // or null
  float* dshift;   // or null
  float* partials;
  int64_t rows;
  int64_t size;
  int64_t rowsPerSample;
  NormKind kind;
  DType dtype;
};

constexpr int64_t normPartials(int64_t rows, int64_t rowsPerSample, int64_t size) {
  return rowBlocks(rows, rowsPerSample) * 2 * size;
}

}  // namespace didr
