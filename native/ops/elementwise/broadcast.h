// How elementwise kernels read broadcast operands: as runs in which every operand either advances
// by one element or stays at one element.
//
// What the plan (broadcast_plan.h) leaves of the axes is read row by row along the innermost one;
// rows that are short, and operands with other strides, go through a small buffer that stays in the
// first cache.
#pragma once

#include <cstdint>
#include <cstring>

#include "native/core/level.h"
#include "native/core/op.h"
#include "native/ops/elementwise/broadcast_plan.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

template <class Bits>
inline void gatherStrided(const void* source, int64_t stride, int64_t count, void* target) {
  const Bits* from = static_cast<const Bits*>(source);
  Bits* to = static_cast<Bits*>(target);
  for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
}

inline void gatherStrided(const void* source, int64_t stride, int64_t count, int elementSize,
                          void* target) {
  switch (elementSize) {
    case 1:
      return gatherStrided<uint8_t>(source, stride, count, target);
    case 2:
      return gatherStrided<uint16_t>(source, stride, count, target);
    case 4:
      return gatherStrided<uint32_t>(source, stride, count, target);
  }
}

// Calls body(position, count, operands, repeated) on runs that cover the elements [begin, end) of
// the result: operand k is an array of `count` elements at operands[k], or one element when
// repeated[k].
template <int kOperands, class Body>
void forEachRun(const BroadcastPlan<kOperands>& plan, int64_t begin, int64_t end,
                const void* const (&bases)[kOperands], const int (&elementSizes)[kOperands],
                const Body& body) {
  constexpr int64_t kBuffer = 512;
  constexpr int64_t kShortRow = 32;
  alignas(64) unsigned char buffers[kOperands][kBuffer * 4];
  const void* operands[kOperands];
  bool repeated[kOperands];
  int64_t index[kMaxRank];
  const int64_t row = plan.shape[plan.rank - 1];
  const auto at = [&](int k, int64_t offset) -> const void* {
    return static_cast<const unsigned char*>(bases[k]) + offset * elementSizes[k];
  };

  if (row >= kShortRow || plan.rank == 1) {
    bool gathers = false;
    for (int k = 0; k < kOperands; ++k) {
      const int64_t stride = plan.strides[k][plan.rank - 1];
      repeated[k] = stride == 0;
      gathers = gathers || (stride != 0 && stride != 1);
    }
    plan.indexOf(begin, index);
    for (int64_t position = begin; position < end;) {
      int64_t count = row - index[plan.rank - 1];
      if (count > end - position) count = end - position;
      if (gathers && count > kBuffer) count = kBuffer;
      for (int k = 0; k < kOperands; ++k) {
        operands[k] = at(k, plan.offsetOf(k, index));
        const int64_t stride = plan.strides[k][plan.rank - 1];
        if (stride == 0 || stride == 1) continue;
        gatherStrided(operands[k], stride, count, elementSizes[k], buffers[k]);
        operands[k] = buffers[k];
      }
      body(position, count, operands, repeated);
      position += count;
      plan.advance(index, count);
    }
    return;
  }

  bool direct[kOperands];
  bool periodic[kOperands];
  for (int k = 0; k < kOperands; ++k) {
    direct[k] = plan.isContiguous(k);
    periodic[k] = plan.isSameInEveryRow(k);
    repeated[k] = false;
    operands[k] = buffers[k];
  }
  // Whole rows at a time, so that a buffer of what is the same in every row is filled once.
  const int64_t most = kBuffer - kBuffer % row;
  for (int64_t position = begin; position < end; position += most) {
    const int64_t count = end - position < most ? end - position : most;
    for (int k = 0; k < kOperands; ++k) {
      if (direct[k]) operands[k] = at(k, position);
      if (direct[k] || (periodic[k] && position > begin)) continue;
      plan.indexOf(position, index);
      for (int64_t done = 0; done < count;) {
        int64_t piece = row - index[plan.rank - 1];
        if (piece > count - done) piece = count - done;
        gatherStrided(at(k, plan.offsetOf(k, index)), plan.strides[k][plan.rank - 1], piece,
                      elementSizes[k], buffers[k] + done * elementSizes[k]);
        done += piece;
        plan.advance(index, piece);
      }
    }
    body(position, count, operands, repeated);
  }
}

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
