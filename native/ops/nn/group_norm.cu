// GroupNorm with SiLU on CUDA, see group_norm.h for the maths and shapes.
//
// Forward, a first launch takes the statistics: a row of threads (a warp for small groups, up to 512
// threads for large ones) reads a group once. A thread adds up 16 elements at a time as differences
// from the first of them, in float32, and moves those sums to the origin in float64: sums of
// squares about zero would cancel there, not in float64, as long as the mean is below 10^5 standard
// deviations. A second launch normalises, over planes (one channel of one sample) cut into tiles of 4
// vectors per thread, so that few large groups fill the device as well as many small ones.
//
// Backward: A and B per plane by a row of threads each, float32 over 4 vectors and float64 from there
// on; dweight and dbias, one thread per channel; the group's two means from its planes' A and B, which
// the first plane's make room for; dx over the tiles of the forward pass. z and silu' are computed
// twice rather than stored. Lanes are added in a butterfly, warps and what a thread has in order.
// Bytes per element: forward x read twice, y written; backward x and dy read twice, dx written; the
// second time from the second cache where the tensor fits.
#include "native/ops/nn/group_norm.h"
#include "native/ops/nn/silu.cuda.h"
#include "native/ops/nn/vectors.cuda.h"

namespace didr {
namespace {

constexpr unsigned kStatisticsThreads = 512;
constexpr unsigned kThreads = 256;
constexpr int kTileVectors = 4;
constexpr int kChunkElements = 16;  // that a thread adds up in float32

// The part of row `row` of threads that the CUDA thread is in, present or not.
__device__ inline int64_t rowOfThreads() { return int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }

template <class T>
__device__ float parameterOf(const void* row, int64_t channel, float absent) {
  return row == nullptr ? absent : toFloat(static_cast<const T*>(row)[channel]);
}

template <class T>
__global__ void __launch_bounds__(kStatisticsThreads)
    groupNormStatisticsKernel(GroupNormArgs arguments) {
  constexpr int V = kVector<T>;
  constexpr int kChunk = kChunkElements / V;  // vectors
  const int64_t group = rowOfThreads();
  const bool present = group < arguments.batch * arguments.groups;
  const int64_t count = arguments.channels / arguments.groups * arguments.pixels;
  const int64_t length = present ? count : 0;
  const T* const x = static_cast<const T*>(arguments.x) + group * count;
  const int64_t step = static_cast<int64_t>(blockDim.x) * V;
  double total = 0.0;
  double squares = 0.0;
  for (int64_t first = static_cast<int64_t>(threadIdx.x) * V; first < length;
       first += kChunk * step) {
    float values[kChunk][V];
    VectorPart parts[kChunk];
#pragma unroll
    for (int k = 0; k < kChunk; ++k) {
      parts[k] = partOfRow<T>(length, first + k * step);
      loadPart(x + first + k * step, parts[k], values[k]);
    }
    const float shift = values[0][0];
    float sum = 0.0f;
    float square = 0.0f;
    int elements = 0;
#pragma unroll
    for (int k = 0; k < kChunk; ++k) {
      elements += parts[k].end;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float d = parts[k].has(i) ? values[k][i] - shift : 0.0f;
        sum += d;
        square = __fmaf_rn(d, d, square);
      }
    }
    const double origin = static_cast<double>(shift) * elements;
    total += origin + sum;
    squares += shift * (origin + 2.0 * sum) + square;
  }
  const double mean = rowSum(total) / static_cast<double>(count);
  const double variance = rowSum(squares) / static_cast<double>(count) - mean * mean;
  if (!present || threadIdx.x != 0) return;
  arguments.mean[group] = static_cast<float>(mean);
  // Rounding may leave a little less than nothing of equal elements; a NaN stays one.
  const auto spread = static_cast<float>(variance < 0.0 ? 0.0 : variance);
  arguments.rstd[group] = 1.0f / __fsqrt_rn(spread + arguments.epsilon);
}

// A plane's row of threads and the tile of kTileVectors vectors per thread that it works on. The
// grid has planeBlocks() blocks.
template <class T>
struct PlaneTile {
  int64_t plane;
  int64_t column;  // the thread's first
  int64_t step;    // to its next

  __device__ explicit PlaneTile(int64_t pixels) {
    step = static_cast<int64_t>(blockDim.x) * kVector<T>;
    const int64_t tiles = (pixels + kTileVectors * step - 1) / (kTileVectors * step);
    plane = blockIdx.x / tiles * blockDim.y + threadIdx.y;
    column =
        blockIdx.x % tiles * (kTileVectors * step) + static_cast<int64_t>(threadIdx.x) * kVector<T>;
  }
};

template <class T>
dim3 planeThreads(int64_t pixels) {
  const unsigned threads = rowThreads(vectorsPerRow<T>(pixels), kThreads);
  return dim3(threads, rowsPerBlock(threads));
}

template <class T>
dim3 planeBlocks(int64_t planes, int64_t pixels) {
  const dim3 threads = planeThreads<T>(pixels);
  const int64_t tile = int64_t{kTileVectors} * threads.x * kVector<T>;
  return dim3(blocksFor(planes, threads.y).x * static_cast<unsigned>((pixels + tile - 1) / tile));
}

template <class T>
__global__ void __launch_bounds__(kThreads) groupNormKernel(GroupNormArgs arguments) {
  constexpr int V = kVector<T>;
  const int64_t pixels = arguments.pixels;
  const PlaneTile<T> tile(pixels);
  if (tile.plane >= arguments.batch * arguments.channels) return;
  const int64_t channel = tile.plane % arguments.channels;
  const int64_t group = tile.plane / (arguments.channels / arguments.groups);
  const float mean = arguments.mean[group];
  const float rstd = arguments.rstd[group];
  const float weight = parameterOf<T>(arguments.weight, channel, 1.0f);
  const float bias = parameterOf<T>(arguments.bias, channel, 0.0f);
#pragma unroll
  for (int k = 0; k < kTileVectors; ++k) {
    const int64_t column = tile.column + k * tile.step;
    const VectorPart part = partOfRow<T>(pixels, column);
    const int64_t at = tile.plane * pixels + column;
    float x[V];
    loadPart(static_cast<const T*>(arguments.x) + at, part, x);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      x[i] = __fmaf_rn((x[i] - mean) * rstd, weight, bias);
      if (arguments.silu) x[i] = scalar::silu(x[i]);
    }
    storePart(static_cast<T*>(arguments.y) + at, part, x);
  }
}

// What the backward passes need of a plane.
struct Plane {
  float mean, rstd, weight, bias;
  bool silu;

  // Normalised elements in the place of x, cotangents of z in that of dy.
  template <int V>
  __device__ void differentiate(float (&x)[V], float (&dy)[V]) const {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      x[i] = (x[i] - mean) * rstd;
      if (silu) dy[i] *= siluWithSlope(__fmaf_rn(x[i], weight, bias)).slope;
    }
  }
};

template <class T>
__device__ Plane planeOf(const GroupNormBackwardArgs& arguments, int64_t plane) {
  const int64_t channel = plane % arguments.channels;
  const int64_t group = plane / (arguments.channels / arguments.groups);
  return {arguments.mean[group], arguments.rstd[group],
          parameterOf<T>(arguments.weight, channel, 1.0f),
          parameterOf<T>(arguments.bias, channel, 0.0f), arguments.silu};
}

template <class T>
__global__ void __launch_bounds__(kThreads) groupNormPlanesKernel(GroupNormBackwardArgs arguments) {
  constexpr int V = kVector<T>;
  const int64_t index = rowOfThreads();
  const bool present = index < arguments.batch * arguments.channels;
  const int64_t length = present ? arguments.pixels : 0;
  const Plane plane = planeOf<T>(arguments, present ? index : 0);
  const int64_t step = static_cast<int64_t>(blockDim.x) * V;
  double sumXhat = 0.0;
  double sumOnes = 0.0;
  for (int64_t first = static_cast<int64_t>(threadIdx.x) * V; first < length;
       first += kTileVectors * step) {
    float products = 0.0f;
    float ones = 0.0f;
#pragma unroll
    for (int k = 0; k < kTileVectors; ++k) {
      const int64_t column = first + k * step;
      const VectorPart part = partOfRow<T>(length, column);
      const int64_t at = index * length + column;
      float x[V], dz[V];
      loadPart(static_cast<const T*>(arguments.x) + at, part, x);
      loadPart(static_cast<const T*>(arguments.dy) + at, part, dz);
      plane.differentiate(x, dz);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (!part.has(i)) continue;
        products = __fmaf_rn(dz[i], x[i], products);
        ones += dz[i];
      }
    }
    sumXhat += products;
    sumOnes += ones;
  }
  sumXhat = rowSum(sumXhat);
  sumOnes = rowSum(sumOnes);
  if (!present || threadIdx.x != 0) return;
  arguments.partials[2 * index] = static_cast<float>(sumXhat);
  arguments.partials[2 * index + 1] = static_cast<float>(sumOnes);
}

__global__ void __launch_bounds__(kThreads)
    groupNormParametersKernel(GroupNormBackwardArgs arguments) {
  const int64_t channel = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (channel >= arguments.channels) return;
  double dweight = 0.0;
  double dbias = 0.0;
  for (int64_t sample = 0; sample < arguments.batch; ++sample) {
    const float* const sums = arguments.partials + 2 * (sample * arguments.channels + channel);
    dweight += sums[0];
    dbias += sums[1];
  }
  if (arguments.dweight != nullptr) arguments.dweight[channel] = static_cast<float>(dweight);
  if (arguments.dbias != nullptr) arguments.dbias[channel] = static_cast<float>(dbias);
}

// The means over a group, by one warp, into the partials of its first plane.
template <class T>
__global__ void __launch_bounds__(kThreads) groupNormMeansKernel(GroupNormBackwardArgs arguments) {
  const int64_t group = rowOfThreads();
  if (group >= arguments.batch * arguments.groups) return;
  const int64_t perGroup = arguments.channels / arguments.groups;
  const int64_t firstChannel = group % arguments.groups * perGroup;
  float* const partials = arguments.partials + 2 * group * perGroup;
  double alongXhat = 0.0;
  double alongOnes = 0.0;
  for (int64_t c = threadIdx.x; c < perGroup; c += kWarpThreads) {
    const double weight = parameterOf<T>(arguments.weight, firstChannel + c, 1.0f);
    alongXhat += weight * partials[2 * c];
    alongOnes += weight * partials[2 * c + 1];
  }
  alongXhat = warpSum(alongXhat);
  alongOnes = warpSum(alongOnes);
  if (threadIdx.x != 0) return;
  const auto count = static_cast<double>(perGroup * arguments.pixels);
  partials[0] = static_cast<float>(alongXhat / count);
  partials[1] = static_cast<float>(alongOnes / count);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    groupNormBackwardKernel(GroupNormBackwardArgs arguments) {
  constexpr int V = kVector<T>;
  const int64_t pixels = arguments.pixels;
  const PlaneTile<T> tile(pixels);
  if (tile.plane >= arguments.batch * arguments.channels) return;
  const Plane plane = planeOf<T>(arguments, tile.plane);
  const int64_t perGroup = arguments.channels / arguments.groups;
  const float* const means = arguments.partials + 2 * (tile.plane / perGroup * perGroup);
  const float meanXhat = means[0];
  const float meanOnes = means[1];
#pragma unroll 2
  for (int k = 0; k < kTileVectors; ++k) {
    const int64_t column = tile.column + k * tile.step;
    const VectorPart part = partOfRow<T>(pixels, column);
    const int64_t at = tile.plane * pixels + column;
    float x[V], dz[V];
    loadPart(static_cast<const T*>(arguments.x) + at, part, x);
    loadPart(static_cast<const T*>(arguments.dy) + at, part, dz);
    plane.differentiate(x, dz);
#pragma unroll
    for (int i = 0; i < V; ++i)
      x[i] = (dz[i] * plane.weight - __fmaf_rn(x[i], meanXhat, meanOnes)) * plane.rstd;
    storePart(static_cast<T*>(arguments.dx) + at, part, x);
  }
}

template <class T>
void launchForward(const GroupNormArgs& arguments, CudaContext& context) {
  const int64_t count = arguments.channels / arguments.groups * arguments.pixels;
  const unsigned threads = rowThreads(vectorsPerRow<T>(count), kStatisticsThreads);
  const unsigned perBlock = rowsPerBlock(threads);
  context.launch("groupNorm's statistics", groupNormStatisticsKernel<T>,
                 blocksFor(arguments.batch * arguments.groups, perBlock), dim3(threads, perBlock),
                 arguments);
  if (count == 0) return;
  context.launch("groupNorm", groupNormKernel<T>,
                 planeBlocks<T>(arguments.batch * arguments.channels, arguments.pixels),
                 planeThreads<T>(arguments.pixels), arguments);
}

template <class T>
void launchBackward(const GroupNormBackwardArgs& arguments, CudaContext& context) {
  const int64_t planes = arguments.batch * arguments.channels;
  const dim3 threads = planeThreads<T>(arguments.pixels);
  if (planes > 0)
    context.launch("groupNormBackward's planes", groupNormPlanesKernel<T>,
                   blocksFor(planes, threads.y), threads, arguments);
  if (arguments.dweight != nullptr || arguments.dbias != nullptr)
    context.launch("groupNormBackward's parameters", groupNormParametersKernel,
                   blocksFor(arguments.channels, kThreads), kThreads, arguments);
  if (planes == 0 || arguments.pixels == 0) return;
  constexpr unsigned kGroups = kThreads / kWarpThreads;
  context.launch("groupNormBackward's means", groupNormMeansKernel<T>,
                 blocksFor(arguments.batch * arguments.groups, kGroups),
                 dim3(kWarpThreads, kGroups), arguments);
  context.launch("groupNormBackward", groupNormBackwardKernel<T>,
                 planeBlocks<T>(planes, arguments.pixels), threads, arguments);
}

}  // namespace

void groupNormCuda(const GroupNormArgs& arguments, CudaContext& context) {
  if (arguments.batch <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchForward<float>(arguments, context);
  else
    launchForward<BFloat16>(arguments, context);
}

void groupNormBackwardCuda(const GroupNormBackwardArgs& arguments, CudaContext& context) {
  if (arguments.channels <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchBackward<float>(arguments, context);
  else
    launchBackward<BFloat16>(arguments, context);
}

}  // namespace didr
