// Register tiles of small matrix products: rows of broadcast scalars times rows of vectors.
//
// A tile of kTileRows x kTileVectors accumulators fills the registers; every step of depth costs
// kTileRows scalars, kTileVectors vectors and their outer product, so that multiply-adds and not
// loads set the pace. Each element is one sum over depth in order: the same bits at every level
// with a fused multiply-add, however tiles are cut.
#pragma once

#include "native/core/simd.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

// 32 registers of AVX-512, or 16.
constexpr int kTileRows = simd::kLanes == 16 ? 8 : 4;
constexpr int kTileVectors = 3;
// A multiple of kTileRows at every level: operands are padded to it.
constexpr int64_t kRowMultiple = 8;

DIDR_SIMD int64_t roundUp(int64_t x, int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}

// a b + c: fused where the machine can. Emulating that (simd::fma) in an inner product would cost
// ten times its worth.
DIDR_SIMD simd::F32 multiplyAdd(simd::F32 a, simd::F32 b, simd::F32 c) {
#if defined(__SSE2__) && !defined(__FMA__)
  return a * b + c;
#else
  return simd::fma(a, b, c);
#endif
}

template <int kRows, int kVectors>
struct Tile {
  simd::F32 sums[kRows][kVectors];

  // sums[r][v] += a[r * aRow] b[v]
  __attribute__((always_inline)) void addOuter(const float* a, int64_t aRow,
                                               const simd::F32 (&b)[kVectors]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const simd::F32 scalar = simd::broadcast(a[r * aRow]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = multiplyAdd(scalar, b[v], sums[r][v]);
    }
  }
};

// Where the scalars of a product lie: element (row, depth) at a[row * stride + depth], or
// transposed at a[depth * stride + row].
enum class Left { kRows, kTransposed };

// The depth of a product: `runs` runs of `length` steps, with the operands' starts this far apart.
struct Depth {
  int64_t length;
  int64_t runs = 1;
  int64_t aRun = 0;
  int64_t bRun = 0;
};

template <Left kLeft, int kVectors>
DIDR_SIMD void productTile(const float* a, int64_t aStride, const float* b, int64_t bStride,
                           float* c, int64_t cStride, Depth depth, bool add) {
  Tile<kTileRows, kVectors> tile;
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      tile.sums[r][v] = add ? simd::load(c + r * cStride + v * simd::kLanes) : simd::zero();
  for (int64_t run = 0; run < depth.runs; ++run) {
    const float* left = a + run * depth.aRun;
    const float* right = b + run * depth.bRun;
    for (int64_t k = 0; k < depth.length; ++k) {
      simd::F32 vectors[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) vectors[v] = simd::load(right + v * simd::kLanes);
      tile.addOuter(left, kLeft == Left::kRows ? aStride : 1, vectors);
      left += kLeft == Left::kRows ? 1 : aStride;
      right += bStride;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      simd::store(c + r * cStride + v * simd::kLanes, tile.sums[r][v]);
}

// c = a b, or c += a b where `add`: c [rows, columns], rows a multiple of kTileRows, columns of
// kLanes.
template <Left kLeft>
void product(const float* a, int64_t aStride, const float* b, int64_t bStride, float* c,
             int64_t cStride, int64_t rows, int64_t columns, Depth depth, bool add) {
  using simd::kLanes;
  for (int64_t row = 0; row < rows; row += kTileRows) {
    const float* left = kLeft == Left::kRows ? a + row * aStride : a + row;
    float* to = c + row * cStride;
    int64_t column = 0;
    for (; column + kTileVectors * kLanes <= columns; column += kTileVectors * kLanes)
      productTile<kLeft, kTileVectors>(left, aStride, b + column, bStride, to + column, cStride,
                                       depth, add);
    if (columns - column == 2 * kLanes)
      productTile<kLeft, 2>(left, aStride, b + column, bStride, to + column, cStride, depth, add);
    else if (columns - column == kLanes)
      productTile<kLeft, 1>(left, aStride, b + column, bStride, to + column, cStride, depth, add);
  }
}

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
