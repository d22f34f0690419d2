// Contract of `reduce`: y[o, i] = reduction over a of x[o, a, i].
//
// x is contiguous [outer, axis, inner], y contiguous [outer, inner].
//   sum mean sumSquares   accumulated in float64, rounded once: a sum of 2^24 elements is within
//                         1e-6 relative of the exact sum of magnitudes; int32 sums wrap
//   max min               NaN where any element is NaN; max of {-0, +0} is +0, min is -0
//   logSumExp             log sum exp(x), the largest element subtracted first: finite wherever the
//                         result is; -inf where all are -inf, +inf where one is +inf
//   argMax                int32: the first index of the largest element; the first NaN if any
// Empty axis: sum and sumSquares 0, mean NaN, max -inf, min +inf (int32: the smallest and largest
// integer), logSumExp -inf, argMax 0.
//
// dtypes: float32; bfloat16, computed in float32 or wider and rounded once; int32 for sum, max, min
// and argMax. The output has the dtype of x, int32 for argMax.
// Order: fixed by the shape alone. An axis is cut into fixed blocks, blocks are summed over 16
// logical lanes, block results are added in order; so threads and instruction levels change no bit.
// Workspace: reduceWorkspace() bytes, where a device cuts an axis among blocks that cannot wait for
// each other; the CPU uses none.
// Aliasing: none. Bytes: x is read once (logSumExp: once, in blocks that stay in cache), y written
// once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"
#include "native/core/host_device.h"

namespace didr {

// The order is part of the interface with TypeScript (lib/tensor/reduce.ts).
enum class Reduce : int32_t { kSum, kMean, kMax, kMin, kLogSumExp, kSumSquares, kArgMax };
inline constexpr Reduce kLastReduce = Reduce::kArgMax;

struct ReduceArgs {
  const void* x;
  void* y;
  Reduce kind;
  DType dtype;  // of x
  int64_t outer;
  int64_t axis;
  int64_t inner;
  void* workspace = nullptr;  // not read where there are no sections, nor on the CPU
};

// Into how many sections of how many indices an axis is cut: enough of them to fill a device where
// there are few results, none below kReduceSection elements.
struct ReduceSections {
  int64_t count;
  int64_t length;
};
inline constexpr int64_t kReduceSection = 8192;

DIDR_HOST_DEVICE ReduceSections reduceSections(int64_t outer, int64_t axis, int64_t inner) {
  constexpr int64_t kWanted = 1024;  // blocks
  constexpr int64_t kWidth = 128;    // columns of a block
  constexpr int64_t kVectorLength = 8;
  const int64_t slices = outer * ((inner + kWidth - 1) / kWidth);
  if (slices == 0 || slices >= kWanted || axis == 0) return {1, axis};
  const int64_t most = axis * (inner < kWidth ? inner : kWidth) / kReduceSection;
  const int64_t wanted = kWanted / slices < most ? kWanted / slices : most;
  if (wanted <= 1) return {1, axis};
  const int64_t length = (axis + wanted - 1) / wanted;
  const int64_t rounded = (length + kVectorLength - 1) / kVectorLength * kVectorLength;
  return {(axis + rounded - 1) / rounded, rounded};
}

DIDR_HOST_DEVICE int64_t reduceWorkspace(int64_t outer, int64_t axis, int64_t inner) {
  constexpr int64_t kPartialBytes = 16;
  const int64_t sections = reduceSections(outer, axis, inner).count;
  return sections > 1 ? outer * sections * inner * kPartialBytes : 0;
}

DIDR_HOST_DEVICE constexpr bool supports(Reduce kind, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kBFloat16:
      return true;
    case DType::kInt32:
      return kind == Reduce::kSum || kind == Reduce::kMax || kind == Reduce::kMin ||
             kind == Reduce::kArgMax;
    case DType::kFloat16:
    case DType::kUint8:
      return false;
  }
  return false;
}

// The dtype of y.
DIDR_HOST_DEVICE constexpr DType resultOf(Reduce kind, DType dtype) {
  return kind == Reduce::kArgMax ? DType::kInt32 : dtype;
}

}  // namespace didr
