// How a strided copy walks its axes: sorted by their stride in y, and merged where both sides walk
// them like one.
#pragma once

#include <cstdint>

#include "native/core/host_device.h"
#include "native/ops/layout/copy.h"

namespace didr {

struct CopyAxis {
  int64_t size;
  int64_t xStride;
  int64_t yStride;
};

struct CopyPlan {
  int rank = 0;
  int64_t count = 1;
  CopyAxis axes[8];  // innermost last; one of size 1 where there is none

  explicit DIDR_MEMBER_HOST_DEVICE CopyPlan(const StridedCopyArgs& arguments) {
    for (int axis = 0; axis < arguments.rank; ++axis) {
      const CopyAxis next{arguments.shape[axis], arguments.xStrides[axis],
                          arguments.yStrides[axis]};
      count *= next.size;
      if (next.size == 1) continue;
      int place = rank++;
      for (; place > 0 && axes[place - 1].yStride < next.yStride; --place)
        axes[place] = axes[place - 1];
      axes[place] = next;
    }
    int merged = 0;
    for (int axis = 0; axis < rank; ++axis) {
      const CopyAxis& next = axes[axis];
      if (merged > 0 && axes[merged - 1].xStride == next.size * next.xStride &&
          axes[merged - 1].yStride == next.size * next.yStride)
        axes[merged - 1] = {axes[merged - 1].size * next.size, next.xStride, next.yStride};
      else
        axes[merged++] = next;
    }
    rank = merged;
    if (rank == 0) axes[rank++] = {1, 1, 1};
  }

  DIDR_MEMBER_HOST_DEVICE const CopyAxis& inner() const { return axes[rank - 1]; }
};

}  // namespace didr
