// RMSNorm and LayerNorm of rows on CUDA, see norm.h for the maths and shapes.
//
// A row is a warp or, where it is long, a block of up to 256 threads. A thread keeps its first two
// vectors in registers (rows of up to 4096 bfloat16 or 2048 float32 elements are read once); what is
// beyond comes again from the caches. Statistics are float32 sums per thread, then over lanes in a
// butterfly, then over warps in order; the variance is taken about the mean. Weight, bias, scale and
// shift come from the first cache, where neighbouring rows leave them.
//
// Backward, dx is a pass of the same form. Gradients of the parameters, where they are asked for,
// come from a pass of their own that runs first, since dx may overwrite dy: 32 x 8 threads sum
// dy xhat and dy over a block of rows for 32 vectors of columns, into `partials`; two small launches
// add those up in order, per sample for scale and shift, over samples for weight and bias. Only this
// way do all multiprocessors take part whatever the number of rows.
// Bytes per element: forward x read, y written; backward x and dy read (twice where parameters have
// gradients), dx written.
#include "native/ops/nn/norm.h"
#include "native/ops/nn/vectors.cuda.h"

namespace didr {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kKept = 2;  // vectors of a row that a thread holds in registers

// 16 bytes as loadVector() takes them.
template <class T>
struct PackedOf {
  using Type = uint4;
};
template <>
struct PackedOf<float> {
  using Type = float4;
};

// A thread's vectors of kOperands rows of the same size. Those that it keeps stay packed, which for
// bfloat16 is half the registers.
template <class T, int kOperands>
class RowVectors {
  static constexpr int V = kVector<T>;
  using Packed = typename PackedOf<T>::Type;

 public:
  // `size` is 0 where there is no row.
  __device__ RowVectors(const T* const (&rows)[kOperands], int64_t size) : size_(size) {
#pragma unroll
    for (int o = 0; o < kOperands; ++o) rows_[o] = rows[o];
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int64_t column = columnOf(k);
      if (!partOfRow<T>(size, column).whole) continue;
#pragma unroll
      for (int o = 0; o < kOperands; ++o)
        kept_[k][o] = *reinterpret_cast<const Packed*>(rows[o] + column);
    }
  }

  // Calls body(vector of each operand, part, column).
  template <class Body>
  __device__ void forEach(const Body& body) const {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int64_t column = columnOf(k);
      const VectorPart part = partOfRow<T>(size_, column);
      if (!part.whole) continue;
      float x[kOperands][V];
#pragma unroll
      for (int o = 0; o < kOperands; ++o)
        loadVector(reinterpret_cast<const T*>(&kept_[k][o]), x[o]);
      body(x, part, column);
    }
    // The rest of a long row, or all of one that goes element by element.
    for (int64_t column = columnOf(size_ % V == 0 ? kKept : 0); column < size_;
         column += static_cast<int64_t>(blockDim.x) * V) {
      const VectorPart part = partOfRow<T>(size_, column);
      float x[kOperands][V];
#pragma unroll
      for (int o = 0; o < kOperands; ++o) loadPart(rows_[o] + column, part, x[o]);
      body(x, part, column);
    }
  }

 private:
  __device__ int64_t columnOf(int k) const { return (int64_t{k} * blockDim.x + threadIdx.x) * V; }

  const T* rows_[kOperands];
  int64_t size_;
  Packed kept_[kKept][kOperands];
};

// Part of a parameter's row, `absent` where there is none.
template <class T>
__device__ void loadParameter(const void* parameter, int64_t at, const VectorPart& part,
                              float absent, float (&x)[kVector<T>]) {
  if (parameter != nullptr) {
    loadPart(static_cast<const T*>(parameter) + at, part, x);
  } else {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) x[i] = absent;
  }
}

// 1 + scale.
template <class T>
__device__ void loadModulation(const void* scale, int64_t at, const VectorPart& part,
                               float (&x)[kVector<T>]) {
  loadParameter<T>(scale, at, part, 0.0f, x);
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) x[i] += 1.0f;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 3) normKernel(NormArgs arguments) {
  constexpr int V = kVector<T>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool present = row < arguments.rows;
  const int64_t begin = row * arguments.size;
  const bool layer = arguments.kind == NormKind::kLayer;
  const auto count = static_cast<float>(arguments.size);
  const RowVectors<T, 1> vectors({static_cast<const T*>(arguments.x) + begin},
                                 present ? arguments.size : 0);

  float mean = 0.0f;
  if (layer) {
    vectors.forEach([&](const float(&x)[1][V], const VectorPart&, int64_t) {
#pragma unroll
      for (int i = 0; i < V; ++i) mean += x[0][i];
    });
    mean = rowSum(mean) / count;
  }
  float squares = 0.0f;
  vectors.forEach([&](const float(&x)[1][V], const VectorPart& part, int64_t) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float d = part.has(i) ? x[0][i] - mean : 0.0f;
      squares = __fmaf_rn(d, d, squares);
    }
  });
  const float rstd = 1.0f / __fsqrt_rn(rowSum(squares) / count + arguments.epsilon);
  if (!present) return;
  if (threadIdx.x == 0) {
    if (layer) arguments.mean[row] = mean;
    arguments.rstd[row] = rstd;
  }

  const int64_t sample = row / arguments.rowsPerSample * arguments.size;
  T* const y = static_cast<T*>(arguments.y) + begin;
  vectors.forEach([&](const float(&x)[1][V], const VectorPart& part, int64_t column) {
    float factor[V], modulation[V], offset[V], shift[V];
    loadParameter<T>(arguments.weight, column, part, 1.0f, factor);
    loadParameter<T>(arguments.bias, column, part, 0.0f, offset);
    loadModulation<T>(arguments.scale, sample + column, part, modulation);
    loadParameter<T>(arguments.shift, sample + column, part, 0.0f, shift);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      offset[i] = __fmaf_rn(offset[i], modulation[i], shift[i]);
      factor[i] = __fmaf_rn((x[0][i] - mean) * rstd, factor[i] * modulation[i], offset[i]);
    }
    storePart(y + column, part, factor);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads, 2) normBackwardKernel(NormBackwardArgs arguments) {
  constexpr int V = kVector<T>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool present = row < arguments.rows;
  const int64_t begin = row * arguments.size;
  const bool layer = arguments.kind == NormKind::kLayer;
  const auto count = static_cast<float>(arguments.size);
  const RowVectors<T, 2> vectors(
      {static_cast<const T*>(arguments.x) + begin, static_cast<const T*>(arguments.dy) + begin},
      present ? arguments.size : 0);
  const float mean = present && layer ? arguments.mean[row] : 0.0f;
  const float rstd = present ? arguments.rstd[row] : 0.0f;
  const int64_t sample = row / arguments.rowsPerSample * arguments.size;
  // g of one vector.
  const auto scaled = [&](const float(&dy)[V], const VectorPart& part, int64_t column,
                          float(&g)[V]) {
    float modulation[V];
    loadParameter<T>(arguments.weight, column, part, 1.0f, g);
    loadModulation<T>(arguments.scale, sample + column, part, modulation);
#pragma unroll
    for (int i = 0; i < V; ++i) g[i] = dy[i] * (g[i] * modulation[i]);
  };

  float projection = 0.0f;
  float total = 0.0f;
  vectors.forEach([&](const float(&x)[2][V], const VectorPart& part, int64_t column) {
    float g[V];
    scaled(x[1], part, column, g);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      projection = __fmaf_rn(g[i], (x[0][i] - mean) * rstd, projection);
      total += g[i];
    }
  });
  const float alongXhat = rowSum(projection) / count;
  const float alongOnes = layer ? rowSum(total) / count : 0.0f;
  if (!present) return;

  T* const dx = static_cast<T*>(arguments.dx) + begin;
  vectors.forEach([&](const float(&x)[2][V], const VectorPart& part, int64_t column) {
    float g[V];
    scaled(x[1], part, column, g);
#pragma unroll
    for (int i = 0; i < V; ++i)
      g[i] = (g[i] - __fmaf_rn((x[0][i] - mean) * rstd, alongXhat, alongOnes)) * rstd;
    storePart(dx + column, part, g);
  });
}

// A and B of a block of rows, for 32 vectors of columns.
template <class T>
__global__ void __launch_bounds__(kTileThreads) normColumnsKernel(NormBackwardArgs arguments) {
  constexpr int V = kVector<T>;
  const ColumnTile<T> tile(arguments.size, arguments.rowsPerSample);
  float sums[2 * V] = {};
  for (int64_t row = tile.row; row < tile.end; row += kTileRows) {
    const int64_t at = row * arguments.size + tile.column;
    const float mean = arguments.kind == NormKind::kLayer ? arguments.mean[row] : 0.0f;
    const float rstd = arguments.rstd[row];
    float x[V], dy[V];
    loadPart(static_cast<const T*>(arguments.x) + at, tile.part, x);
    loadPart(static_cast<const T*>(arguments.dy) + at, tile.part, dy);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      sums[i] = __fmaf_rn(dy[i], (x[i] - mean) * rstd, sums[i]);
      sums[V + i] += dy[i];
    }
  }
  sumOverTileRows(sums);
  if (threadIdx.y != 0) return;
  float* const partials = arguments.partials + 2 * tile.block * arguments.size + tile.column;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (!tile.part.has(i)) continue;
    partials[i] = sums[i];
    partials[arguments.size + i] = sums[V + i];
  }
}

// A sample's blocks of rows added up, 32 columns per block of threads: dscale, dshift, and A and B of
// the sample in the place of its first block's.
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    normSampleKernel(NormBackwardArgs arguments, int64_t blocksPerSample) {
  const int64_t size = arguments.size;
  const int64_t tiles = tilesPerRow(size);
  const int64_t sample = blockIdx.x / tiles;
  const int64_t column = blockIdx.x % tiles * kWarpThreads + threadIdx.x;
  float* const partials = arguments.partials + 2 * sample * blocksPerSample * size;
  float sums[2] = {};
  addRowBlocks(partials, blocksPerSample, size, column, sums);
  if (threadIdx.y != 0 || column >= size) return;
  partials[column] = sums[0];
  partials[size + column] = sums[1];
  const VectorPart one = {0, 1, false};
  float weight[kVector<T>], bias[kVector<T>];
  loadParameter<T>(arguments.weight, column, one, 1.0f, weight);
  loadParameter<T>(arguments.bias, column, one, 0.0f, bias);
  const int64_t at = sample * size + column;
  if (arguments.dscale != nullptr)
    arguments.dscale[at] = __fmaf_rn(weight[0], sums[0], bias[0] * sums[1]);
  if (arguments.dshift != nullptr) arguments.dshift[at] = sums[1];
}

// dweight and dbias from the samples' A and B, 32 columns per block of threads.
template <class T>
__global__ void __launch_bounds__(kTileThreads)
    normParametersKernel(NormBackwardArgs arguments, int64_t samples, int64_t blocksPerSample) {
  const int64_t size = arguments.size;
  const int64_t column = int64_t{blockIdx.x} * kWarpThreads + threadIdx.x;
  float sums[2] = {};
  if (column < size) {
    for (int64_t sample = threadIdx.y; sample < samples; sample += kTileRows) {
      const float* const partials = arguments.partials + 2 * sample * blocksPerSample * size;
      float modulation[kVector<T>];
      loadModulation<T>(arguments.scale, sample * size + column, {0, 1, false}, modulation);
      sums[0] = __fmaf_rn(modulation[0], partials[column], sums[0]);
      sums[1] = __fmaf_rn(modulation[0], partials[size + column], sums[1]);
    }
  }
  sumOverTileRows(sums);
  if (threadIdx.y != 0 || column >= size) return;
  if (arguments.dweight != nullptr) arguments.dweight[column] = sums[0];
  if (arguments.dbias != nullptr) arguments.dbias[column] = sums[1];
}

// Rows of threads for the rows of an op.
template <class T>
dim3 rowBlock(int64_t size) {
  const unsigned threads = rowThreads(vectorsPerRow<T>(size), kThreads);
  return dim3(threads, rowsPerBlock(threads));
}

template <class T>
void launchForward(const NormArgs& arguments, CudaContext& context) {
  const dim3 threads = rowBlock<T>(arguments.size);
  context.launch("norm", normKernel<T>, blocksFor(arguments.rows, threads.y), threads, arguments);
}

template <class T>
void launchBackward(const NormBackwardArgs& arguments, CudaContext& context) {
  const bool perSample = arguments.dscale != nullptr || arguments.dshift != nullptr;
  const bool shared = arguments.dweight != nullptr || arguments.dbias != nullptr;
  const int64_t samples = arguments.rows > 0 ? arguments.rows / arguments.rowsPerSample : 0;
  const int64_t blocks =
      samples > 0 ? rowBlocks(arguments.rows, arguments.rowsPerSample) / samples : 0;
  const auto tiles = static_cast<unsigned>(tilesPerRow(arguments.size));
  if (samples > 0 && (perSample || shared)) {
    context.launch("normBackward's columns", normColumnsKernel<T>,
                   tileBlocks<T>(arguments.rows, arguments.rowsPerSample, arguments.size),
                   tileThreads(), arguments);
    context.launch("normBackward's samples", normSampleKernel<T>,
                   dim3(static_cast<unsigned>(samples * tiles)), tileThreads(), arguments, blocks);
  }
  if (shared)
    context.launch("normBackward's parameters", normParametersKernel<T>, dim3(tiles), tileThreads(),
                   arguments, samples, blocks);
  if (samples == 0) return;
  const dim3 threads = rowBlock<T>(arguments.size);
  context.launch("normBackward", normBackwardKernel<T>, blocksFor(arguments.rows, threads.y),
                 threads, arguments);
}

}  // namespace

void normCuda(const NormArgs& arguments, CudaContext& context) {
  if (arguments.rows <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchForward<float>(arguments, context);
  else
    launchForward<BFloat16>(arguments, context);
}

void normBackwardCuda(const NormBackwardArgs& arguments, CudaContext& context) {
  if (arguments.size <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchBackward<float>(arguments, context);
  else
    launchBackward<BFloat16>(arguments, context);
}

}  // namespace didr
