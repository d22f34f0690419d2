// `stridedCopy` on CUDA. Contract: copy.h; the order of the axes: copy_plan.h.
//
//   elements    a thread per unit of y, in y's order, so that neighbouring threads write
//               neighbouring units. A unit is an element, or, where both sides are contiguous along
//               the innermost axis, as many of them as sizes, strides and addresses allow, up to 16
//               bytes. Positions become offsets by products with precomputed inverses.
//   tiles       y is contiguous along the innermost axis (i), x along another (j), as in a
//               transpose: a block reads a tile of x along j into shared memory and writes it along
//               i, whole 32-byte sectors on either side. A tile has 32 x 32 words; where an axis is
//               short, the tile is longer along the other. Words are elements of 4 or 8 bytes, or 4
//               bytes of smaller ones where sizes, strides and addresses allow, else single ones.
//               Rows of the tile are padded, so that reading it along i meets no bank conflicts
//               (2 or 4 threads a bank for elements within words).
//
// Bytes: what x holds is read once where a row of y or a tile covers it, y is written once.
#include "native/core/cuda_index.h"
#include "native/ops/layout/copy.h"
#include "native/ops/layout/copy_plan.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

// Axes of a position, innermost last.
struct Axes {
  int32_t rank = 0;
  Divisor sizes[8];
  int64_t xStrides[8] = {};
  int64_t yStrides[8] = {};

  void add(const CopyAxis& axis) {
    sizes[rank] = Divisor(axis.size);
    xStrides[rank] = axis.xStride;
    yStrides[rank++] = axis.yStride;
  }

  __device__ void offsets(int64_t position, int64_t& x, int64_t& y) const {
    x = y = 0;
    for (int axis = rank - 1; axis >= 0; --axis) {
      const int64_t next = axis > 0 ? sizes[axis].quotient(position) : 0;
      const int64_t index = position - next * sizes[axis].size;
      x += index * xStrides[axis];
      y += index * yStrides[axis];
      position = next;
    }
  }
};

template <class Unit>
__global__ void __launch_bounds__(kThreads)
    copyElementsKernel(const Unit* x, Unit* y, int64_t count, Axes axes) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    int64_t from, to;
    axes.offsets(i, from, to);
    __stwb(y + to, x[from]);
  }
}

template <class Unit>
void copyElements(const StridedCopyArgs& arguments, const CopyPlan& plan, int64_t perUnit,
                  CudaContext& context) {
  Axes axes;
  for (int axis = 0; axis < plan.rank - 1; ++axis) {
    const CopyAxis& outer = plan.axes[axis];
    axes.add({outer.size, outer.xStride / perUnit, outer.yStride / perUnit});
  }
  axes.add({plan.inner().size / perUnit, plan.inner().xStride, plan.inner().yStride});
  const int64_t count = plan.count / perUnit;
  context.launch("stridedCopy", copyElementsKernel<Unit>, context.gridStrideBlocks(count, kThreads),
                 kThreads, static_cast<const Unit*>(arguments.x), static_cast<Unit*>(arguments.y),
                 count, axes);
}

bool isMultiple(const void* address, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes) == 0;
}

// Whether `perUnit` neighbouring elements of size `elementSize` can be moved as one, on both sides.
bool movesAs(const StridedCopyArgs& arguments, const CopyPlan& plan, int64_t perUnit) {
  const CopyAxis& inner = plan.inner();
  if (perUnit == 1) return true;
  if (inner.xStride != 1 || inner.yStride != 1 || inner.size % perUnit != 0) return false;
  for (int axis = 0; axis < plan.rank - 1; ++axis)
    if (plan.axes[axis].xStride % perUnit != 0 || plan.axes[axis].yStride % perUnit != 0)
      return false;
  const int64_t bytes = perUnit * arguments.elementSize;
  return isMultiple(arguments.x, bytes) && isMultiple(arguments.y, bytes);
}

void copyByUnits(const StridedCopyArgs& arguments, const CopyPlan& plan, CudaContext& context) {
  int64_t bytes = 16;
  while (!movesAs(arguments, plan, bytes / arguments.elementSize)) bytes /= 2;
  const int64_t perUnit = bytes / arguments.elementSize;
  switch (bytes) {
    case 1:
      return copyElements<uint8_t>(arguments, plan, perUnit, context);
    case 2:
      return copyElements<uint16_t>(arguments, plan, perUnit, context);
    case 4:
      return copyElements<uint32_t>(arguments, plan, perUnit, context);
    case 8:
      return copyElements<uint2>(arguments, plan, perUnit, context);
    default:
      return copyElements<uint4>(arguments, plan, perUnit, context);
  }
}

// A matrix x[i][j] with j contiguous to y[j][i] with i contiguous, for every index of `outer`, in
// tiles of 2^iBits by 2^jBits.
struct Tiling {
  int64_t iSize, jSize;
  int64_t xStride, yStride;  // of i and of j
  int32_t iBits, jBits;
  int32_t pitch;  // elements from a row of the tile to the next
  Divisor iTiles, jTiles;
  Axes outer;
};

constexpr int32_t bitsFor(int64_t size) {
  int32_t bits = 0;
  while ((int64_t{1} << bits) < size) ++bits;
  return bits;
}

template <class Word, class Element>
struct Tile {
  static constexpr int kPack = static_cast<int>(sizeof(Word) / sizeof(Element));
  static constexpr int32_t kPackBits = bitsFor(kPack);
  static constexpr int32_t kSideBits = 5 + kPackBits;
  static constexpr int32_t kLongestBits = kSideBits + 3;
  static constexpr int kWords = 1280 * kPack;  // a square tile with its padding, or the longest
};

// `Word` is what a thread moves at a time.
template <class Word, class Element>
__global__ void __launch_bounds__(kThreads)
    transposeKernel(const Element* x, Element* y, Tiling tiling) {
  constexpr int kPack = Tile<Word, Element>::kPack;
  DIDR_SHARED(Word, words, (Tile<Word, Element>::kWords));
  const Element* const tile = reinterpret_cast<const Element*>(&words[0]);

  const int64_t row = tiling.iTiles.quotient(blockIdx.x);
  const int64_t matrix = tiling.jTiles.quotient(row);
  const int64_t firstI = (int64_t{blockIdx.x} - row * tiling.iTiles.size) << tiling.iBits;
  const int64_t firstJ = (row - matrix * tiling.jTiles.size) << tiling.jBits;
  int64_t from, to;
  tiling.outer.offsets(matrix, from, to);
  x += from + firstI * tiling.xStride + firstJ;
  y += to + firstJ * tiling.yStride + firstI;

  constexpr int32_t kPackBits = Tile<Word, Element>::kPackBits;
  const int32_t count = 1 << (tiling.iBits + tiling.jBits - kPackBits);
  const int32_t jWordBits = tiling.jBits - kPackBits;
  for (int32_t n = static_cast<int32_t>(threadIdx.x); n < count; n += kThreads) {
    const int32_t i = n >> jWordBits;
    const int32_t j = (n & ((1 << jWordBits) - 1)) << kPackBits;
    if (firstI + i < tiling.iSize && firstJ + j < tiling.jSize)
      words[(i * tiling.pitch + j) >> kPackBits] =
          *reinterpret_cast<const Word*>(x + i * tiling.xStride + j);
  }
  __syncthreads();
  const int32_t iWordBits = tiling.iBits - kPackBits;
  for (int32_t n = static_cast<int32_t>(threadIdx.x); n < count; n += kThreads) {
    const int32_t j = n >> iWordBits;
    const int32_t i = (n & ((1 << iWordBits) - 1)) << kPackBits;
    if (firstI + i >= tiling.iSize || firstJ + j >= tiling.jSize) continue;
    if constexpr (kPack == 1) {
      __stwb(y + j * tiling.yStride + i, tile[i * tiling.pitch + j]);
    } else {
      Word word = 0;
#pragma unroll
      for (int p = 0; p < kPack; ++p)
        word |= static_cast<Word>(tile[(i + p) * tiling.pitch + j]) << (8 * sizeof(Element) * p);
      __stwb(reinterpret_cast<Word*>(y + j * tiling.yStride + i), word);
    }
  }
}

template <class Word, class Element>
void transpose(const StridedCopyArgs& arguments, const CopyPlan& plan, int along,
               CudaContext& context) {
  constexpr int kPack = Tile<Word, Element>::kPack;
  constexpr int32_t kSide = Tile<Word, Element>::kSideBits;
  constexpr int32_t kLongest = Tile<Word, Element>::kLongestBits;
  const CopyAxis& i = plan.inner();
  const CopyAxis& j = plan.axes[along];
  const auto atMost = [](int32_t bits, int32_t limit) { return bits < limit ? bits : limit; };
  Tiling tiling;
  tiling.iSize = i.size;
  tiling.jSize = j.size;
  tiling.xStride = i.xStride;
  tiling.yStride = j.yStride;
  tiling.iBits = atMost(bitsFor(i.size), kSide);
  tiling.jBits = atMost(bitsFor(j.size), atMost(2 * kSide - tiling.iBits, kLongest));
  tiling.iBits = atMost(bitsFor(i.size), atMost(2 * kSide - tiling.jBits, kLongest));
  const int32_t padding = tiling.iBits < 5 ? 32 >> tiling.iBits : 1;
  tiling.pitch = (1 << tiling.jBits) + padding * kPack;
  const auto tiles = [](int64_t size, int32_t bits) { return (size + (1 << bits) - 1) >> bits; };
  tiling.iTiles = Divisor(tiles(i.size, tiling.iBits));
  tiling.jTiles = Divisor(tiles(j.size, tiling.jBits));
  for (int axis = 0; axis < plan.rank - 1; ++axis)
    if (axis != along) tiling.outer.add(plan.axes[axis]);
  const int64_t matrices = plan.count / (i.size * j.size);
  context.launch("stridedCopy's transpose", transposeKernel<Word, Element>,
                 dim3(static_cast<unsigned>(matrices * tiling.iTiles.size * tiling.jTiles.size)),
                 kThreads, static_cast<const Element*>(arguments.x),
                 static_cast<Element*>(arguments.y), tiling);
}

// Whether `pack` elements along i of y and along j of x can be moved as one.
bool transposesAs(const StridedCopyArgs& arguments, const CopyPlan& plan, int along, int64_t pack) {
  const CopyAxis& i = plan.inner();
  const CopyAxis& j = plan.axes[along];
  if (i.size % pack != 0 || j.size % pack != 0 || i.xStride % pack != 0 || j.yStride % pack != 0)
    return false;
  for (int axis = 0; axis < plan.rank - 1; ++axis)
    if (axis != along &&
        (plan.axes[axis].xStride % pack != 0 || plan.axes[axis].yStride % pack != 0))
      return false;
  const int64_t bytes = pack * arguments.elementSize;
  return isMultiple(arguments.x, bytes) && isMultiple(arguments.y, bytes);
}

void copyTransposed(const StridedCopyArgs& arguments, const CopyPlan& plan, int along,
                    CudaContext& context) {
  switch (arguments.elementSize) {
    case 1:
      return transposesAs(arguments, plan, along, 4)
                 ? transpose<uint32_t, uint8_t>(arguments, plan, along, context)
                 : transpose<uint8_t, uint8_t>(arguments, plan, along, context);
    case 2:
      return transposesAs(arguments, plan, along, 2)
                 ? transpose<uint32_t, uint16_t>(arguments, plan, along, context)
                 : transpose<uint16_t, uint16_t>(arguments, plan, along, context);
    case 4:
      return transpose<uint32_t, uint32_t>(arguments, plan, along, context);
    case 8:
      return transpose<uint2, uint2>(arguments, plan, along, context);
  }
}

// Smaller matrices leave most of a block idle.
constexpr int64_t kSmallestTile = 128;

}  // namespace

void stridedCopyCuda(const StridedCopyArgs& arguments, CudaContext& context) {
  const CopyPlan plan(arguments);
  if (plan.count == 0) return;
  const CopyAxis& inner = plan.inner();
  if (inner.yStride == 1 && inner.xStride > 1)
    for (int axis = plan.rank - 2; axis >= 0; --axis)
      if (plan.axes[axis].xStride == 1 && inner.size * plan.axes[axis].size >= kSmallestTile)
        return copyTransposed(arguments, plan, axis, context);
  copyByUnits(arguments, plan, context);
}

}  // namespace didr
