// Contract of `stridedCopy`: y[i . yStrides] = x[i . xStrides] for every index i below `shape`.
//
// Permutation, slicing, concatenation, stacking and broadcasting are this op with the right strides
// (in elements; 0 in x where it is broadcast). The pointers already hold the offsets. Rank 0 is one
// element. Elements move as bits: elementSize is 1, 2, 4 or 8 bytes.
// Aliasing: none; no two indices write the same element of y.
// Bytes: what x holds is read once, y is written once. Permutations go through square blocks that
// fit the first cache, so that both sides are touched a whole cache line at a time.
#pragma once

#include <cstdint>

namespace didr {

struct StridedCopyArgs {
  const void* x;
  void* y;
  int32_t elementSize;
  int32_t rank;
  int64_t shape[8];
  int64_t xStrides[8];
  int64_t yStrides[8];
};

}  // namespace didr
