// How elementwise ops walk broadcast operands: axes of size 1 are dropped, and neighbouring axes
// that every operand walks like one are merged.
#pragma once

#include <cstdint>

#include "native/core/host_device.h"

namespace didr {

template <int kOperands>
struct BroadcastPlan {
  int rank;
  int64_t count;
  int64_t shape[8];
  int64_t strides[kOperands][8];

  // The operands' own element strides for `shapeIn`; the result is contiguous.
  DIDR_MEMBER_HOST_DEVICE BroadcastPlan(int rankIn, const int64_t* shapeIn,
                                        const int64_t* const (&stridesIn)[kOperands])
      : rank(0), count(1) {
    for (int axis = 0; axis < rankIn; ++axis) {
      const int64_t size = shapeIn[axis];
      count *= size;
      if (size == 1) continue;
      bool merges = rank > 0;
      for (int k = 0; k < kOperands; ++k)
        merges = merges && strides[k][rank - 1] == size * stridesIn[k][axis];
      if (!merges) {
        ++rank;
        shape[rank - 1] = 1;
      }
      shape[rank - 1] *= size;
      for (int k = 0; k < kOperands; ++k) strides[k][rank - 1] = stridesIn[k][axis];
    }
    if (rank == 0) {
      rank = 1;
      shape[0] = 1;
      for (int k = 0; k < kOperands; ++k) strides[k][0] = 1;
    }
  }

  // Whether operand k is read element after element like the result.
  DIDR_MEMBER_HOST_DEVICE bool isContiguous(int k) const {
    int64_t expected = 1;
    for (int axis = rank - 1; axis >= 0; --axis) {
      if (strides[k][axis] != expected) return false;
      expected *= shape[axis];
    }
    return true;
  }

  DIDR_MEMBER_HOST_DEVICE bool isSameInEveryRow(int k) const {
    for (int axis = 0; axis < rank - 1; ++axis)
      if (strides[k][axis] != 0) return false;
    return true;
  }

  DIDR_MEMBER_HOST_DEVICE void indexOf(int64_t position, int64_t* index) const {
    for (int axis = rank - 1; axis >= 0; --axis) {
      index[axis] = position % shape[axis];
      position /= shape[axis];
    }
  }

  DIDR_MEMBER_HOST_DEVICE int64_t offsetOf(int k, const int64_t* index) const {
    int64_t offset = 0;
    for (int axis = 0; axis < rank; ++axis) offset += index[axis] * strides[k][axis];
    return offset;
  }

  // Moves on by `steps` along the innermost axis, which must not pass the end of the row.
  DIDR_MEMBER_HOST_DEVICE void advance(int64_t* index, int64_t steps) const {
    int axis = rank - 1;
    index[axis] += steps;
    while (axis > 0 && index[axis] == shape[axis]) {
      index[axis] = 0;
      ++index[--axis];
    }
  }
};

}  // namespace didr
