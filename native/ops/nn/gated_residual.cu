// y = x + G_b h and its backward pass on CUDA, see gated_residual.h.
//
// A block of 32 x 8 threads takes 32 vectors of columns by a block of rows (rows.h): a thread reads
// its vector of gates once, takes their tanh and goes through every eighth row. Backward it keeps
// the sums of dy h for its columns in registers; shared memory adds the eight threads of a column up
// in order, for one row of `partials` per block of rows, and a second launch adds those rows. The
// order depends on the shapes alone. Bytes per element: forward x and h read, y written; backward h
// and dy read, dh written.
#include "native/core/cuda_math.h"
#include "native/ops/nn/gated_residual.h"
#include "native/ops/nn/vectors.cuda.h"

namespace didr {
namespace {

// This thread's gates: G of its columns.
template <class T>
__device__ void loadGates(const void* gate, int64_t size, bool tanh, const ColumnTile<T>& tile,
                          float (&gates)[kVector<T>]) {
  loadPart(static_cast<const T*>(gate) + tile.sample * size + tile.column, tile.part, gates);
  if (!tanh) return;
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) gates[i] = scalar::tanh(gates[i]);
}

template <class T>
__global__ void __launch_bounds__(kTileThreads) gatedResidualKernel(GatedResidualArgs arguments) {
  constexpr int V = kVector<T>;
  const ColumnTile<T> tile(arguments.size, arguments.rowsPerSample);
  float gates[V];
  loadGates(arguments.gate, arguments.size, arguments.tanh, tile, gates);
  for (int64_t row = tile.row; row < tile.end; row += kTileRows) {
    const int64_t at = row * arguments.size + tile.column;
    float x[V], h[V];
    loadPart(static_cast<const T*>(arguments.x) + at, tile.part, x);
    loadPart(static_cast<const T*>(arguments.h) + at, tile.part, h);
#pragma unroll
    for (int i = 0; i < V; ++i) x[i] = __fmaf_rn(gates[i], h[i], x[i]);
    storePart(static_cast<T*>(arguments.y) + at, tile.part, x);
  }
}

template <class T>
__global__ void __launch_bounds__(kTileThreads)
    gatedResidualBackwardKernel(GatedResidualBackwardArgs arguments) {
  constexpr int V = kVector<T>;
  const ColumnTile<T> tile(arguments.size, arguments.rowsPerSample);
  float gates[V];
  loadGates(arguments.gate, arguments.size, arguments.tanh, tile, gates);
  float sums[V] = {};
  for (int64_t row = tile.row; row < tile.end; row += kTileRows) {
    const int64_t at = row * arguments.size + tile.column;
    float h[V], dy[V];
    loadPart(static_cast<const T*>(arguments.h) + at, tile.part, h);
    loadPart(static_cast<const T*>(arguments.dy) + at, tile.part, dy);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      sums[i] = __fmaf_rn(dy[i], h[i], sums[i]);
      dy[i] *= gates[i];
    }
    storePart(static_cast<T*>(arguments.dh) + at, tile.part, dy);
  }
  sumOverTileRows(sums);
  if (threadIdx.y != 0) return;
  float* const partials = arguments.partials + tile.block * arguments.size + tile.column;
#pragma unroll
  for (int i = 0; i < V; ++i)
    if (tile.part.has(i)) partials[i] = sums[i];
}

// A sample's blocks of rows added up, 32 columns per block of threads.
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    gateGradientKernel(GatedResidualBackwardArgs arguments, int64_t blocksPerSample) {
  const int64_t tiles = tilesPerRow(arguments.size);
  const int64_t sample = blockIdx.x / tiles;
  const int64_t column = blockIdx.x % tiles * kWarpThreads + threadIdx.x;
  float sums[1] = {};
  addRowBlocks(arguments.partials + sample * blocksPerSample * arguments.size, blocksPerSample,
               arguments.size, column, sums);
  if (threadIdx.y != 0 || column >= arguments.size) return;
  const int64_t at = sample * arguments.size + column;
  if (arguments.tanh) {
    const float t = scalar::tanh(toFloat(static_cast<const T*>(arguments.gate)[at]));
    sums[0] *= (1.0f - t) * (1.0f + t);
  }
  arguments.dgate[at] = sums[0];
}

template <class T>
void launchForward(const GatedResidualArgs& arguments, CudaContext& context) {
  context.launch("gatedResidual", gatedResidualKernel<T>,
                 tileBlocks<T>(arguments.rows, arguments.rowsPerSample, arguments.size),
                 tileThreads(), arguments);
}

template <class T>
void launchBackward(const GatedResidualBackwardArgs& arguments, CudaContext& context) {
  const int64_t samples = arguments.rows / arguments.rowsPerSample;
  const int64_t blocksPerSample = rowBlocks(arguments.rows, arguments.rowsPerSample) / samples;
  context.launch("gatedResidualBackward", gatedResidualBackwardKernel<T>,
                 tileBlocks<T>(arguments.rows, arguments.rowsPerSample, arguments.size),
                 tileThreads(), arguments);
  context.launch("gatedResidualBackward's gates", gateGradientKernel<T>,
                 dim3(static_cast<unsigned>(samples * tilesPerRow(arguments.size))), tileThreads(),
                 arguments, blocksPerSample);
}

}  // namespace

void gatedResidualCuda(const GatedResidualArgs& arguments, CudaContext& context) {
  if (arguments.rows <= 0 || arguments.size <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchForward<float>(arguments, context);
  else
    launchForward<BFloat16>(arguments, context);
}

void gatedResidualBackwardCuda(const GatedResidualBackwardArgs& arguments, CudaContext& context) {
  if (arguments.rows <= 0 || arguments.size <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchBackward<float>(arguments, context);
  else
    launchBackward<BFloat16>(arguments, context);
}

}  // namespace didr
