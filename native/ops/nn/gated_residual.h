// Contracts of `gatedResidual`: y = x + G_b h with G = tanh(gate) or gate, and of its backward
// pass.
//
// Shapes: x, h, y, dy, dh [rows, size]; gate, dgate [rows / rowsPerSample, size].
// Backward: dx = dy (not written: the caller has it); dh = G_b dy;
//   dgate_b = G'_b sum over the sample's rows of dy h.
// `partials` is scratch of rowBlocks(rows, rowsPerSample) * size floats (native/ops/nn/rows.h):
// sums per block of rows, added in order, so that threads change no bit.
// dtypes: x, h, y, dy, dh, gate float32 or all bfloat16; dgate and partials float32.
// Aliasing: y may be x or h, dh may be dy. Bytes: every operand once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"
#include "native/ops/nn/rows.h"

namespace didr {

struct GatedResidualArgs {
  const void* x;
  const void* h;
  const void* gate;
  void* y;
  int64_t rows;
  int64_t size;
  int64_t rowsPerSample;
  bool tanh;
  DType dtype;
};

struct GatedResidualBackwardArgs {
  const void* h;
  const void* gate;
  const void* dy;
  void* dh;
  float* dgate;
  float* partials;
  int64_t rows;
  int64_t size;
  int64_t rowsPerSample;
  bool tanh;
  DType dtype;
};

}  // namespace didr
