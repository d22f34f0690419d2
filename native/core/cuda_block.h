// Sums over the threads of a row, in an order that depends on the block's shape alone.
//
// A block is either one row of up to 1024 threads, or several rows of one warp each (threadIdx.y tells the row): small
// samples get a warp, large ones a block or more, and the kernel's code is the same.
#pragma once

#include "native/core/cuda_launch.h"

namespace didr {

template <class T>
__device__ T warpSum(T x) {
#pragma unroll
  for (int lanes = kWarpThreads / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

// The values of the row's warps, put together by `combine` in the order of warps; all threads of the row get the result.
template <class T, class Combine>
__device__ T combineWarps(T x, const Combine& combine) {
  if (blockDim.x == kWarpThreads) return x;
  DIDR_SHARED(T, partials, 32);
  if (threadIdx.x % kWarpThreads == 0) partials[threadIdx.x / kWarpThreads] = x;
  __syncthreads();
  T total = partials[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarpThreads; ++warp)
    total = combine(total, partials[warp]);
  __syncthreads();  // the next call writes `partials` again
  return total;
}

template <class T>
__device__ T rowSum(T x) {
  return combineWarps(warpSum(x), [](T a, T b) { return a + b; });
}

__device__ inline float rowMax(float x) {
#pragma unroll
  for (int lanes = kWarpThreads / 2; lanes > 0; lanes /= 2)
    x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  return combineWarps(x, [](float a, float b) { return fmaxf(a, b); });
}

// Threads for rows of `work` items, at most `most` of them.
inline unsigned rowThreads(int64_t work, unsigned most) {
  const int64_t threads = (work + kWarpThreads - 1) / kWarpThreads * kWarpThreads;
  if (threads < kWarpThreads) return kWarpThreads;
  return threads < most ? static_cast<unsigned>(threads) : most;
}

// Rows per block: several where a row is one warp.
inline unsigned rowsPerBlock(unsigned threads) { return threads == kWarpThreads ? 8 : 1; }

// The blocks of a grid that has a row for each of `rows` items.
inline dim3 blocksFor(int64_t rows, unsigned perBlock) {
  return dim3(static_cast<unsigned>((rows + perBlock - 1) / perBlock));
}

}  // namespace didr
