// The package's own single-precision matrix product, for builds without a BLAS:
// c = alpha op(a) op(b) + beta c, row-major, on the calling thread.
//
// Blocks of b (kDepth x kColumns) and a (kRows x kDepth) are packed into slivers that a register
// kernel of kTileRows x kTileColumns reads in order: one vector of b and one broadcast element of a
// per fused step (the layering of Goto and van de Geijn, "Anatomy of High-Performance Matrix
// Multiplication", ACM TOMS 2008). A sliver of b stays in the first cache, the block of a in the
// second, the block of b in the third. Slivers at the edge are filled up with zeros. Bytes: b is
// packed once per block column, a once per block of b.
#pragma once

#include <cstdlib>

#include "native/core/simd.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {
namespace gemm_blocks {

using simd::F32;
using simd::kLanes;

#if defined(DIDR_SIMD_AVX512)
constexpr int kTileRows = 12;
#elif defined(DIDR_SIMD_AVX2)
constexpr int kTileRows = 6;
#elif defined(__aarch64__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileVectors = 2;
constexpr int kTileColumns = kTileVectors * kLanes;
constexpr int64_t kDepth = 256;
constexpr int64_t kRows = 240;  // a multiple of every kTileRows
constexpr int64_t kColumns = 2048;

// Fused where the machine can; the exact emulation of simd::fma has no place here.
DIDR_SIMD F32 multiplyAdd(F32 a, F32 b, F32 c) {
#if defined(__FMA__) || defined(__aarch64__)
  return simd::fma(a, b, c);
#else
  return a * b + c;
#endif
}

// Packs x[i][p], i < count, p < depth, as slivers of kWidth rows: sliver by sliver, p by p.
template <int kWidth>
void pack(const float* x, int64_t iStride, int64_t pStride, int64_t count, int64_t depth,
          float* packed) {
  for (int64_t first = 0; first < count; first += kWidth, packed += kWidth * depth) {
    const int64_t wide = count - first < kWidth ? count - first : kWidth;
    const float* from = x + first * iStride;
    if (wide < kWidth) {
      for (int64_t p = 0; p < depth; ++p)
        for (int64_t i = 0; i < kWidth; ++i)
          packed[p * kWidth + i] = i < wide ? from[i * iStride + p * pStride] : 0.0f;
    } else if (iStride == 1) {
      for (int64_t p = 0; p < depth; ++p)
        for (int i = 0; i < kWidth; ++i) packed[p * kWidth + i] = from[p * pStride + i];
    } else {
      // Four steps at a time, so that a cache line of x is used before it is gone.
      int64_t p = 0;
      for (; p + 4 <= depth; p += 4)
        for (int i = 0; i < kWidth; ++i)
          for (int step = 0; step < 4; ++step)
            packed[(p + step) * kWidth + i] = from[i * iStride + (p + step) * pStride];
      for (; p < depth; ++p)
        for (int i = 0; i < kWidth; ++i) packed[p * kWidth + i] = from[i * iStride + p * pStride];
    }
  }
}

// c[kTileRows][kTileColumns] of the tile = alpha a b + beta c; rows and columns past the edge are
// left alone.
inline void multiplyTile(const float* a, const float* b, int64_t depth, float alpha, float beta,
                         float* c, int64_t ldc, int64_t rows, int64_t columns) {
  F32 sums[kTileRows][kTileVectors] = {};
  for (int64_t p = 0; p < depth; ++p, a += kTileRows, b += kTileColumns) {
    F32 right[kTileVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) right[v] = simd::load(b + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i) {
      const F32 left = simd::broadcast(a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) sums[i][v] = multiplyAdd(left, right[v], sums[i][v]);
    }
  }
  if (rows == kTileRows && columns == kTileColumns) {
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) {
        float* at = c + i * ldc + v * kLanes;
        const F32 product = sums[i][v] * alpha;
        simd::store(
            at, beta == 0 ? product : multiplyAdd(simd::load(at), simd::broadcast(beta), product));
      }
    return;
  }
  float tile[kTileRows][kTileColumns];
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) simd::store(&tile[i][v * kLanes], sums[i][v] * alpha);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      float& at = c[i * ldc + j];
      at = beta == 0 ? tile[i][j] : at * beta + tile[i][j];
    }
}

inline int64_t atMost(int64_t x, int64_t limit) { return x < limit ? x : limit; }
inline int64_t roundUp(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

}  // namespace gemm_blocks

// False where there is no memory for the packed blocks. m, n and k are positive.
inline bool gemm(bool transA, bool transB, int64_t m, int64_t n, int64_t k, float alpha,
                 const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c,
                 int64_t ldc) {
  using namespace gemm_blocks;
  const int64_t depthMost = atMost(k, kDepth);
  const int64_t aFloats = roundUp(roundUp(atMost(m, kRows), kTileRows) * depthMost, 16);
  const int64_t bFloats = roundUp(roundUp(atMost(n, kColumns), kTileColumns) * depthMost, 16);
  auto* packedA = static_cast<float*>(
      std::aligned_alloc(64, static_cast<size_t>(aFloats + bFloats) * sizeof(float)));
  if (packedA == nullptr) return false;
  float* packedB = packedA + aFloats;
  for (int64_t j0 = 0; j0 < n; j0 += kColumns) {
    const int64_t columns = atMost(n - j0, kColumns);
    for (int64_t p0 = 0; p0 < k; p0 += kDepth) {
      const int64_t depth = atMost(k - p0, kDepth);
      const float betaHere = p0 == 0 ? beta : 1.0f;
      if (transB)
        pack<kTileColumns>(b + j0 * ldb + p0, ldb, 1, columns, depth, packedB);
      else
        pack<kTileColumns>(b + p0 * ldb + j0, 1, ldb, columns, depth, packedB);
      for (int64_t i0 = 0; i0 < m; i0 += kRows) {
        const int64_t rows = atMost(m - i0, kRows);
        if (transA)
          pack<kTileRows>(a + p0 * lda + i0, 1, lda, rows, depth, packedA);
        else
          pack<kTileRows>(a + i0 * lda + p0, lda, 1, rows, depth, packedA);
        for (int64_t j = 0; j < columns; j += kTileColumns)
          for (int64_t i = 0; i < rows; i += kTileRows)
            multiplyTile(packedA + i * depth, packedB + j * depth, depth, alpha, betaHere,
                         c + (i0 + i) * ldc + j0 + j, ldc, atMost(rows - i, kTileRows),
                         atMost(columns - j, kTileColumns));
      }
    }
  }
  std::free(packedA);
  return true;
}

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
