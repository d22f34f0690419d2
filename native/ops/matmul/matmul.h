// Contract of `matmul`: y = activation(alpha op(a) op(b) + beta y + bias), batched.
//
// Per batch: op(a) is [m, k] (a is [k, m] when transA), op(b) is [k, n] (b is [n, k] when transB),
// y is [m, n], all contiguous row by row. The batches of a and b are `aBatchStride` and
// `bBatchStride` elements apart, 0 where one matrix serves all; those of y follow each other. bias
// is [n], added to every row, or null. y is not read when beta is 0. k = 0 gives
// activation(beta y + bias).
// Activations are those of `unary` (native/ops/elementwise/unary.h).
//
// dtypes: float32; bfloat16, widened to float32 in panels, accumulated in float32 and rounded once.
// Products are summed in an order that depends on the shape, the BLAS and the machine, not on the
// number of threads.
// Aliasing: y overlaps nothing. Bytes: each operand once, and again per panel where a panel exceeds
// the caches; bias and activation work on tiles that are still in cache.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

// The order is part of the interface with TypeScript (lib/tensor/matmul.ts).
enum class Activation : int32_t { kNone, kRelu, kGelu, kGeluTanh, kSilu, kTanh, kSigmoid };
inline constexpr Activation kLastActivation = Activation::kSigmoid;

struct MatmulArgs {
  const void* a;
  const void* b;
  const void* bias;
  void* y;
  int64_t m;
  int64_t n;
  int64_t k;
  int64_t batch;
  int64_t aBatchStride;
  int64_t bBatchStride;
  bool transA;
  bool transB;
  Activation activation;
  DType dtype;
  float alpha;
  float beta;
};

}  // namespace didr
