// `stridedCopy` on the CPU. Contract: copy.h.
//
// Of the axes in the order of copy_plan.h:
//   rows        both sides contiguous along the innermost axis: memcpy
//   transpose   y is contiguous along the innermost axis, x along another: square tiles of one
//               cache line a side, read line by line into a buffer, transposed in registers and
//               written line by line. A line is touched once on either side, so strides that are a
//               power of two (where few sets of the cache are used) cost nothing extra, and lines
//               of a large output are stored past the caches.
//   elements    any other strides (a broadcast is one with stride 0 in x)
// Parallel over rows, tiles or elements of y.
#include "native/ops/layout/copy.h"

#include <cstring>

#include "native/core/op.h"
#include "native/core/simd.h"
#include "native/ops/layout/copy_plan.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

constexpr int64_t kGrainBytes = 1 << 18;
constexpr int kLineBytes = 64;

// The position of a walk over the axes before the innermost ones.
struct Cursor {
  int64_t index[kMaxRank];
  int64_t x = 0;
  int64_t y = 0;

  Cursor(const CopyAxis* axes, int rank, int64_t position) {
    for (int axis = rank - 1; axis >= 0; --axis) {
      index[axis] = position % axes[axis].size;
      position /= axes[axis].size;
      x += index[axis] * axes[axis].xStride;
      y += index[axis] * axes[axis].yStride;
    }
  }

  void next(const CopyAxis* axes, int rank) {
    for (int axis = rank - 1; axis >= 0; --axis) {
      x += axes[axis].xStride;
      y += axes[axis].yStride;
      if (++index[axis] < axes[axis].size) return;
      index[axis] = 0;
      x -= axes[axis].size * axes[axis].xStride;
      y -= axes[axis].size * axes[axis].yStride;
    }
  }
};

template <class Bits>
void copyRow(const Bits* x, Bits* y, int64_t count, const CopyAxis& axis) {
  if (axis.xStride == 1 && axis.yStride == 1) {
    memcpy(y, x, static_cast<size_t>(count) * sizeof(Bits));
  } else if (axis.xStride == 0 && axis.yStride == 1) {
    const Bits element = *x;
    for (int64_t i = 0; i < count; ++i) y[i] = element;
  } else {
    for (int64_t i = 0; i < count; ++i) y[i * axis.yStride] = x[i * axis.xStride];
  }
}

template <class Bits>
void copyRows(const CopyPlan& plan, const Bits* x, Bits* y, CpuContext& context) {
  const CopyAxis& inner = plan.inner();
  const int outerRank = plan.rank - 1;
  constexpr int64_t kGrain = kGrainBytes / static_cast<int64_t>(sizeof(Bits));
  context.pool.parallelFor(plan.count, kGrain, [&](int64_t begin, int64_t end) {
    Cursor cursor(plan.axes, outerRank, begin / inner.size);
    int64_t first = begin % inner.size;
    while (begin < end) {
      int64_t count = inner.size - first;
      if (count > end - begin) count = end - begin;
      copyRow(x + cursor.x + first * inner.xStride, y + cursor.y + first * inner.yStride, count,
              inner);
      begin += count;
      first = 0;
      cursor.next(plan.axes, outerRank);
    }
  });
}

// Square blocks of 16-byte rows, transposed by interleaving row i with row i + n/2, log2(n) times.
template <class Bits>
struct Block {
  static constexpr int kSide = 16 / static_cast<int>(sizeof(Bits));
  typedef Bits Row __attribute__((vector_size(16)));

  template <int kHalf>
  DIDR_SIMD Row interleave(Row a, Row b) {
    Row from;
    for (int i = 0; i < kSide; ++i)
      from[i] = static_cast<Bits>(kHalf * kSide / 2 + i / 2 + (i % 2) * kSide);
    return __builtin_shuffle(a, b, from);
  }

  DIDR_SIMD void transpose(const Bits* x, int64_t xStride, Bits* y, int64_t yStride) {
    Row rows[kSide];
    for (int i = 0; i < kSide; ++i) memcpy(&rows[i], x + i * xStride, sizeof(Row));
    for (int round = 1; round < kSide; round *= 2) {
      Row mixed[kSide];
      for (int i = 0; i < kSide / 2; ++i) {
        mixed[2 * i] = interleave<0>(rows[i], rows[i + kSide / 2]);
        mixed[2 * i + 1] = interleave<1>(rows[i], rows[i + kSide / 2]);
      }
      for (int i = 0; i < kSide; ++i) rows[i] = mixed[i];
    }
    for (int i = 0; i < kSide; ++i) memcpy(y + i * yStride, &rows[i], sizeof(Row));
  }
};

// A tile of one cache line a side: y[j][i] = x[i][j].
template <class Bits>
void transposeTile(const Bits* x, int64_t xStride, Bits* y, int64_t yStride, bool streaming) {
  constexpr int kSide = kLineBytes / static_cast<int>(sizeof(Bits));
  constexpr int kBlock = Block<Bits>::kSide;
  alignas(kLineBytes) Bits in[kSide][kSide];
  alignas(kLineBytes) Bits out[kSide][kSide];
  for (int i = 0; i < kSide; ++i) memcpy(in[i], x + i * xStride, kLineBytes);
  for (int i = 0; i < kSide; i += kBlock)
    for (int j = 0; j < kSide; j += kBlock)
      Block<Bits>::transpose(&in[i][j], kSide, &out[j][i], kSide);
  if (!streaming) {
    for (int j = 0; j < kSide; ++j) memcpy(y + j * yStride, out[j], kLineBytes);
    return;
  }
  constexpr int kFloats = kLineBytes / 4;
  for (int j = 0; j < kSide; ++j) {
    const float* from = reinterpret_cast<const float*>(out[j]);
    float* to = reinterpret_cast<float*>(y + j * yStride);
    for (int i = 0; i < kFloats; i += simd::kLanes)
      simd::storeStreaming(to + i, simd::load(from + i));
  }
}

// Tiles are visited in groups of kGroup a side, so that a group's pages stay known: measured on
// 4096 x 4096 float32, 2 and 4 a side take 2.9 and 1.4 times as long.
constexpr int kGroup = 16;

template <class Bits>
void copyTransposed(const CopyPlan& plan, int along, const Bits* x, Bits* y, CpuContext& context) {
  constexpr int64_t kSide = kLineBytes / static_cast<int>(sizeof(Bits));
  constexpr int64_t kGroupSide = kSide * kGroup;
  // x[i][j] with j contiguous, y[j][i] with i contiguous.
  const CopyAxis iAxis = plan.inner();
  const CopyAxis jAxis = plan.axes[along];
  CopyAxis outer[kMaxRank];
  int outerRank = 0;
  for (int axis = 0; axis < plan.rank - 1; ++axis)
    if (axis != along) outer[outerRank++] = plan.axes[axis];
  const int64_t iGroups = (iAxis.size + kGroupSide - 1) / kGroupSide;
  const int64_t jGroups = (jAxis.size + kGroupSide - 1) / kGroupSide;
  const int64_t matrices = plan.count / (iAxis.size * jAxis.size);

  const int64_t bytes = plan.count * static_cast<int64_t>(sizeof(Bits));
  bool streaming = bytes >= simd::kStreamingBytes &&
                   reinterpret_cast<uintptr_t>(y) % kLineBytes == 0 && jAxis.yStride % kSide == 0;
  for (int axis = 0; axis < outerRank; ++axis)
    streaming = streaming && outer[axis].yStride % kSide == 0;

  // Runs of tiles go along the side whose rows are further apart: the other side's rows are close
  // enough to be found again.
  const bool alongY = iAxis.xStride <= jAxis.yStride / 4;
  const auto copyGroup = [&](const Bits* from, Bits* to, int64_t i0, int64_t i1, int64_t j0,
                             int64_t j1) {
    const auto copyTile = [&](int64_t i, int64_t j) {
      transposeTile(from + i * iAxis.xStride + j, iAxis.xStride, to + j * jAxis.yStride + i,
                    jAxis.yStride, streaming);
    };
    const auto copyElements = [&](int64_t iFirst, int64_t iLast, int64_t jFirst, int64_t jLast) {
      for (int64_t j = jFirst; j < jLast; ++j)
        for (int64_t i = iFirst; i < iLast; ++i)
          to[j * jAxis.yStride + i] = from[i * iAxis.xStride + j];
    };
    const int64_t iWhole = i0 + (i1 - i0) / kSide * kSide;
    const int64_t jWhole = j0 + (j1 - j0) / kSide * kSide;
    if (alongY) {
      for (int64_t j = j0; j < jWhole; j += kSide)
        for (int64_t i = i0; i < iWhole; i += kSide) copyTile(i, j);
    } else {
      for (int64_t i = i0; i < iWhole; i += kSide)
        for (int64_t j = j0; j < jWhole; j += kSide) copyTile(i, j);
    }
    copyElements(i0, iWhole, jWhole, j1);
    copyElements(iWhole, i1, j0, j1);
  };
  const int64_t groupElements = (iAxis.size < kGroupSide ? iAxis.size : kGroupSide) *
                                (jAxis.size < kGroupSide ? jAxis.size : kGroupSide);
  const int64_t grain = kGrainBytes / static_cast<int64_t>(sizeof(Bits)) / groupElements + 1;
  context.pool.parallelFor(matrices * iGroups * jGroups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t i0 = group % iGroups * kGroupSide;
      const int64_t j0 = group / iGroups % jGroups * kGroupSide;
      const Cursor cursor(outer, outerRank, group / (iGroups * jGroups));
      const int64_t i1 = i0 + kGroupSide < iAxis.size ? i0 + kGroupSide : iAxis.size;
      const int64_t j1 = j0 + kGroupSide < jAxis.size ? j0 + kGroupSide : jAxis.size;
      copyGroup(x + cursor.x, y + cursor.y, i0, i1, j0, j1);
    }
    simd::streamFence();
  });
}

template <class Bits>
void copy(const StridedCopyArgs& arguments, CpuContext& context) {
  const CopyPlan plan(arguments);
  if (plan.count == 0) return;
  const Bits* x = static_cast<const Bits*>(arguments.x);
  Bits* y = static_cast<Bits*>(arguments.y);
  const CopyAxis& inner = plan.inner();
  if (inner.yStride == 1 && inner.xStride > 1)
    for (int axis = plan.rank - 2; axis >= 0; --axis)
      if (plan.axes[axis].xStride == 1) return copyTransposed(plan, axis, x, y, context);
  copyRows(plan, x, y, context);
}

}  // namespace

void stridedCopyCpu(const StridedCopyArgs& arguments, CpuContext& context) {
  switch (arguments.elementSize) {
    case 1:
      return copy<uint8_t>(arguments, context);
    case 2:
      return copy<uint16_t>(arguments, context);
    case 4:
      return copy<uint32_t>(arguments, context);
    case 8:
      return copy<uint64_t>(arguments, context);
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
