// Loops of the network ops' kernels: over vectors of a flat array, over vectors of rows, over blocks
// of rows by tiles of columns.
//
// Tensors start at multiples of 16 bytes. So do their rows where a row is a whole number of vectors;
// where it is not, rows go element by element.
#pragma once

#include "native/core/cuda_block.h"
#include "native/core/cuda_vector.h"
#include "native/ops/nn/rows.h"

namespace didr {

// Calls body(index of the first element, part) for the grid's share of [0, count).
template <class T, class Body>
__device__ void forEachPart(int64_t count, const Body& body) {
  constexpr int V = kVector<T>;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x * V;
  for (int64_t first = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * V; first < count;
       first += stride) {
    const int64_t left = count - first;
    body(first, VectorPart{0, left < V ? static_cast<int>(left) : V, left >= V});
  }
}

// The part of a row of `size` elements from `column` on; empty past its end.
template <class T>
__device__ VectorPart partOfRow(int64_t size, int64_t column) {
  constexpr int V = kVector<T>;
  const int64_t left = size - column;
  const int end = left < 0 ? 0 : left < V ? static_cast<int>(left) : V;
  return {0, end, end == V && size % V == 0};
}

template <class T>
DIDR_HOST_DEVICE int64_t vectorsPerRow(int64_t size) {
  return (size + kVector<T> - 1) / kVector<T>;
}

// --- Walks over rows ------------------------------------------------------------------------------

// A grid's stride in rows and vectors of a row.
struct RowStride {
  int64_t rows;
  int64_t vectors;
};
inline RowStride rowStride(int64_t vectors, int64_t threadsOfGrid) {
  return {threadsOfGrid / vectors, threadsOfGrid % vectors};
}

// Calls body(row, vector of the row) for the grid's share of rows of `vectors` vectors. One division
// per thread; from there on rows are followed by additions.
template <class Body>
__device__ void forEachVectorOfRows(int64_t rows, int64_t vectors, const RowStride& stride,
                                    const Body& body) {
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  int64_t row = thread / vectors;
  int64_t vector = thread % vectors;
  while (row < rows) {
    body(row, vector);
    row += stride.rows;
    vector += stride.vectors;
    if (vector >= vectors) {
      vector -= vectors;
      ++row;
    }
  }
}

// --- Tiles of columns -----------------------------------------------------------------------------

// A block of threads is 32 vectors of columns wide and works on a block of rows (rows.h), of which a
// thread takes every kTileRows-th: what depends on the column and the sample alone is read once.
inline constexpr unsigned kTileRows = 8;
inline constexpr unsigned kTileThreads = kWarpThreads * kTileRows;

inline dim3 tileThreads() { return dim3(kWarpThreads, kTileRows); }

// Tiles beside each other for rows of `vectors` vectors.
DIDR_HOST_DEVICE int64_t tilesPerRow(int64_t vectors) {
  return (vectors + kWarpThreads - 1) / kWarpThreads;
}

template <class T>
inline dim3 tileBlocks(int64_t rows, int64_t rowsPerSample, int64_t size) {
  return dim3(
      static_cast<unsigned>(rowBlocks(rows, rowsPerSample) * tilesPerRow(vectorsPerRow<T>(size))));
}

// What blockIdx.x and threadIdx stand for in a grid of tileBlocks().
template <class T>
struct ColumnTile {
  int64_t block;  // of rows
  int64_t sample;
  int64_t row;     // the thread's first
  int64_t end;     // the block's last row, and one
  int64_t column;  // the thread's first
  VectorPart part;

  __device__ ColumnTile(int64_t size, int64_t rowsPerSample) {
    const int64_t tiles = tilesPerRow(vectorsPerRow<T>(size));
    const int64_t perSample = (rowsPerSample + kRowBlock - 1) / kRowBlock;
    block = blockIdx.x / tiles;
    sample = block / perSample;
    const int64_t first = block % perSample * kRowBlock;
    const int64_t left = rowsPerSample - first;
    row = sample * rowsPerSample + first;
    end = row + (left < kRowBlock ? left : kRowBlock);
    row += threadIdx.y;
    column = (blockIdx.x % tiles * kWarpThreads + threadIdx.x) * kVector<T>;
    part = partOfRow<T>(size, column);
  }
};

// Each thread's `sums` added up over threadIdx.y, in its order, for the threads of threadIdx.y 0.
template <int kCount>
__device__ void sumOverTileRows(float (&sums)[kCount]) {
  DIDR_SHARED(float, terms, kTileThreads* kCount);
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    terms[(threadIdx.y * kCount + i) * kWarpThreads + threadIdx.x] = sums[i];
  __syncthreads();
  if (threadIdx.y == 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      for (unsigned y = 1; y < kTileRows; ++y)
        sums[i] += terms[(y * kCount + i) * kWarpThreads + threadIdx.x];
  }
  __syncthreads();  // the next call writes `terms` again
}

// For one column, kSums sums over rows of `blocks` blocks: partials[block, sum, column], for the
// threads of threadIdx.y 0.
template <int kSums>
__device__ void addRowBlocks(const float* partials, int64_t blocks, int64_t size, int64_t column,
                             float (&sums)[kSums]) {
  if (column < size) {
    for (int64_t block = threadIdx.y; block < blocks; block += kTileRows)
#pragma unroll
      for (int i = 0; i < kSums; ++i) sums[i] += partials[(block * kSums + i) * size + column];
  }
  sumOverTileRows(sums);
}

}  // namespace didr
