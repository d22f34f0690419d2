// Convolution and its backward passes on CUDA. Contract and maths: conv2d.h.
//
// Each is a matrix product whose operands are gathered as they are fetched (implicit GEMM), by the tiles of gemm.cuda.h:
//
//   forward   rows: outputs; columns: the batch's output pixels; depth: (channel, u, w) of the kernel
//   data      rows: inputs; columns: the batch's input pixels; depth: (output, u, w). With stride 2 a pixel meets only
//             the kernel's positions of its own parity: one launch per parity of row and column, each a convolution of
//             stride 1 with those positions, reversed, that writes every second pixel
//   weight    rows: outputs; columns: (channel, u, w); depth: the batch's output pixels
//   bias      a block per output adds its pixels: four in float32, from there on in float64, threads in a fixed order
//
// Pixels are neighbours in a row of the tile, so that neighbouring threads read and write neighbouring addresses; weights
// and dy are read four at a time where they lie so. Positions become indices by products with inverses from the host.
// dweight has few elements and long sums: small tiles with the depth cut among the threads of a block. Every output is one
// sum in one order on a given device, whose number of multiprocessors chooses the tile. Bytes: the images once per row
// of tiles and kernel position, from the caches but for the first time; weights once per column of tiles; y once.
#include "native/core/cuda_block.h"
#include "native/core/cuda_index.h"
#include "native/ops/matmul/gemm.cuda.h"
#include "native/ops/nn/conv2d.h"

namespace didr {
namespace {

// (a, u, w) of a flat index with u and w innermost; (image, row, column) likewise.
struct Triple {
  Divisor plane, width;

  Triple(int64_t height, int64_t wide)
      : plane(height * wide > 0 ? height * wide : 1), width(wide > 0 ? wide : 1) {}

  struct Index {
    int64_t outer;
    int middle, inner;
  };
  __device__ Index at(int64_t flat) const {
    const int64_t outer = plane.quotient(flat);
    const int64_t rest = flat - outer * plane.size;
    const int64_t middle = width.quotient(rest);
    return {outer, static_cast<int>(middle), static_cast<int>(rest - middle * width.size)};
  }
};

// target[image, output, firstRow + step i, firstColumn + step j] = bias[output] + sum over (channel, u, w) of
//   weight[output, channel, kernel row of u, kernel column of w] source[image, channel, stride i + u - top, stride j + w - left]
struct Correlation {
  const float* source;
  const float* weight;
  const float* bias;  // or null
  float* target;
  int64_t channels, outputs, depth, pixels;  // depth: (channel, u, w); pixels: (image, i, j)
  int height, width;                         // of the source
  int stride, top, left;
  int64_t outputStride, channelStride;       // of the weight
  int kernelRow, kernelColumn, kernelWidth;  // of u = 0 and w = 0; the kernel's width in memory
  int kernelStep;                            // 1, or -stride where the kernel is reversed
  int targetHeight, targetWidth, firstRow, firstColumn, step;
  bool denseWeight;   // rows of the tile lie along the depth as they are
  bool vectorWeight;  // and four at a time are aligned
  bool vectorTarget;  // the target has every pixel, and planes of whole vectors
  Triple taps, places;
};

struct WeightOperand {
  const Correlation& c;
  int64_t output;
  GemmChunk chunk;

  template <class Tile>
  __device__ static WeightOperand of(const Correlation& c, int64_t row) {
    const auto chunk = GemmChunk::of<Tile>(static_cast<int>(threadIdx.x), true);
    return {c, row * Tile::kSide + chunk.extent, chunk};
  }

  __device__ static bool alongDepth() { return true; }
  __device__ void load(int64_t step, float (&x)[4]) const {
    const int64_t first = step + chunk.depth;
    const int64_t left = output < c.outputs ? c.depth - first : 0;
    const float* const row = c.weight + output * c.outputStride;
    if (c.vectorWeight && left >= 4) return loadVector(row + first, x);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = 0.0f;
      if (i >= left) continue;
      if (c.denseWeight) {
        x[i] = row[first + i];
      } else {
        const Triple::Index tap = c.taps.at(first + i);
        x[i] = row[tap.outer * c.channelStride +
                   (c.kernelRow + tap.middle * c.kernelStep) * c.kernelWidth + c.kernelColumn +
                   tap.inner * c.kernelStep];
      }
    }
  }
};

struct PixelOperand {
  const Correlation& c;
  GemmChunk chunk;
  // Of the chunk's pixels: where their image begins and the source's pixel of u = 0, w = 0.
  int64_t image[4];
  int row[4], column[4];

  template <class Tile>
  __device__ static PixelOperand of(const Correlation& c, int64_t column) {
    PixelOperand operand = {
        c, GemmChunk::of<Tile>(static_cast<int>(threadIdx.x), false), {}, {}, {}};
    const int64_t first = column * Tile::kSide + operand.chunk.extent;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool present = first + i < c.pixels;
      const Triple::Index place = c.places.at(present ? first + i : 0);
      operand.image[i] = place.outer * c.channels * c.height * c.width;
      // No kernel reaches back from there into the image.
      operand.row[i] = present ? place.middle * c.stride - c.top : INT32_MIN / 2;
      operand.column[i] = place.inner * c.stride - c.left;
    }
    return operand;
  }

  __device__ static bool alongDepth() { return false; }
  __device__ void load(int64_t step, float (&x)[4]) const {
    const int64_t depth = step + chunk.depth;
    const bool present = depth < c.depth;
    const Triple::Index tap = c.taps.at(present ? depth : 0);
    const float* const plane = c.source + tap.outer * c.height * c.width;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row[i] + tap.middle, w = column[i] + tap.inner;
      const bool inside = present && r >= 0 && r < c.height && w >= 0 && w < c.width;
      x[i] = inside ? plane[image[i] + static_cast<int64_t>(r) * c.width + w] : 0.0f;
    }
  }
};

template <class Tile>
__global__ void __launch_bounds__(kGemmThreads, Tile::kOwn == 8 ? 1 : 2)
    correlationKernel(Correlation c, GemmGrid grid) {
  DIDR_SHARED(typename Tile::Buffers, buffers, 1);
  const Tile tile(static_cast<int>(threadIdx.x));
  for (int64_t index = blockIdx.x; index < grid.count; index += gridDim.x) {
    const GemmGrid::Place place = grid.at(index);
    const auto weights = WeightOperand::of<Tile>(c, place.row);
    const auto pixels = PixelOperand::of<Tile>(c, place.column);
    float sums[Tile::kOwn][Tile::kOwn];
    multiplyTile(tile, buffers[0], weights, pixels, c.depth, sums);
    finishTile(tile, buffers[0], sums, [&](int row, int column, float(&x)[4]) {
      const int64_t output = place.row * Tile::kSide + row;
      const int64_t first = place.column * Tile::kSide + column;
      if (output >= c.outputs || first >= c.pixels) return;
      if (c.bias != nullptr) {
#pragma unroll
        for (int i = 0; i < 4; ++i) x[i] += c.bias[output];
      }
      const int64_t plane = static_cast<int64_t>(c.targetHeight) * c.targetWidth;
      if (c.vectorTarget) {
        const int64_t image = c.places.plane.quotient(first);
        storeVector(c.target + (image * c.outputs + output) * plane + first - image * plane, x);
        return;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (first + i >= c.pixels) return;
        const Triple::Index at = c.places.at(first + i);
        c.target[(at.outer * c.outputs + output) * plane +
                 static_cast<int64_t>(c.firstRow + c.step * at.middle) * c.targetWidth +
                 c.firstColumn + c.step * at.inner] = x[i];
      }
    });
  }
}

// --- Backward, weight and bias --------------------------------------------------------------------------------------

struct WeightGradient {
  const float* x;
  const float* dy;
  float* dweight;
  int64_t inputs, outputs, columns, depth;  // columns: (channel, u, w); depth: (image, i, j)
  int height, width, stride, top, left;
  bool vectorDy, vectorTarget;
  Triple taps, places;
};

struct CotangentOperand {
  const WeightGradient& g;
  int64_t output;
  GemmChunk chunk;

  template <class Tile>
  __device__ static CotangentOperand of(const WeightGradient& g, int64_t row) {
    const auto chunk = GemmChunk::of<Tile>(static_cast<int>(threadIdx.x), true);
    return {g, row * Tile::kSide + chunk.extent, chunk};
  }

  __device__ static bool alongDepth() { return true; }
  __device__ const float* at(int64_t depth) const {
    const int64_t image = g.places.plane.quotient(depth);
    const int64_t plane = g.places.plane.size;
    return g.dy + (image * g.outputs + output) * plane + depth - image * plane;
  }
  __device__ void load(int64_t step, float (&x)[4]) const {
    const int64_t first = step + chunk.depth;
    const int64_t left = output < g.outputs ? g.depth - first : 0;
    if (g.vectorDy && left >= 4) return loadVector(at(first), x);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = i < left ? *at(first + i) : 0.0f;
  }
};

struct WindowOperand {
  const WeightGradient& g;
  GemmChunk chunk;
  bool present;
  int64_t channel;
  int row, column;  // of the kernel, less the padding

  template <class Tile>
  __device__ static WindowOperand of(const WeightGradient& g, int64_t column) {
    const auto chunk = GemmChunk::of<Tile>(static_cast<int>(threadIdx.x), true);
    const int64_t index = column * Tile::kSide + chunk.extent;
    const bool present = index < g.columns;
    const Triple::Index tap = g.taps.at(present ? index : 0);
    return {g, chunk, present, tap.outer, tap.middle - g.top, tap.inner - g.left};
  }

  __device__ static bool alongDepth() { return true; }
  __device__ void load(int64_t step, float (&x)[4]) const {
    const int64_t first = step + chunk.depth;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = 0.0f;
      if (!present || first + i >= g.depth) continue;
      const Triple::Index place = g.places.at(first + i);
      const int r = place.middle * g.stride + row, w = place.inner * g.stride + column;
      if (r >= 0 && r < g.height && w >= 0 && w < g.width)
        x[i] = g.x[((place.outer * g.inputs + channel) * g.height + r) * g.width + w];
    }
  }
};

template <class Tile>
__global__ void __launch_bounds__(kGemmThreads, Tile::kBlocks)
    weightGradientKernel(WeightGradient g, GemmGrid grid) {
  DIDR_SHARED(typename Tile::Buffers, buffers, 1);
  const Tile tile(static_cast<int>(threadIdx.x));
  for (int64_t index = blockIdx.x; index < grid.count; index += gridDim.x) {
    const GemmGrid::Place place = grid.at(index);
    const auto cotangents = CotangentOperand::of<Tile>(g, place.row);
    const auto windows = WindowOperand::of<Tile>(g, place.column);
    float sums[Tile::kOwn][Tile::kOwn];
    multiplyTile(tile, buffers[0], cotangents, windows, g.depth, sums);
    finishTile(tile, buffers[0], sums, [&](int row, int column, float(&x)[4]) {
      const int64_t output = place.row * Tile::kSide + row;
      const int64_t first = place.column * Tile::kSide + column;
      if (output >= g.outputs || first >= g.columns) return;
      const int64_t left = g.columns - first;
      storePart(g.dweight + output * g.columns + first,
                {0, left < 4 ? static_cast<int>(left) : 4, g.vectorTarget && left >= 4}, x);
    });
  }
}

constexpr int kBiasThreads = 512;

__global__ void __launch_bounds__(kBiasThreads)
    biasGradientKernel(const float* dy, float* dbias, int64_t batch, int64_t outputs,
                       int64_t pixels, bool vector) {
  double sum = 0.0;
  for (int64_t image = 0; image < batch; ++image) {
    const float* const plane = dy + (image * outputs + blockIdx.x) * pixels;
    for (int64_t i = 4 * static_cast<int64_t>(threadIdx.x); i < pixels; i += 4 * kBiasThreads) {
      float x[4];
      const int64_t left = pixels - i;
      loadPart(plane + i, {0, left < 4 ? static_cast<int>(left) : 4, vector && left >= 4}, x);
      sum += static_cast<double>((x[0] + x[1]) + (x[2] + x[3]));
    }
  }
  sum = rowSum(sum);
  if (threadIdx.x == 0) dbias[blockIdx.x] = static_cast<float>(sum);
}

// --- Launches -------------------------------------------------------------------------------------------------------

bool isAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <class Tile, class Problem>
bool launchIfFilled(const char* name, void (*kernel)(Problem, GemmGrid), int64_t least,
                    int64_t rows, int64_t columns, const Problem& problem, CudaContext& context) {
  const GemmGrid grid(rows, columns, 1, Tile::kSide);
  if (grid.count < least) return false;
  if (grid.count > 0) context.launch(name, kernel, grid.blocks(), kGemmThreads, problem, grid);
  return true;
}

void launchCorrelation(const char* name, const Correlation& c, CudaContext& context) {
  // The largest tile that leaves no multiprocessor idle and is not half empty.
  const int64_t filled = context.multiprocessors;
  (c.outputs > 64 && launchIfFilled<LargeGemmTile>(name, correlationKernel<LargeGemmTile>, filled,
                                                   c.outputs, c.pixels, c, context)) ||
      (c.outputs > 32 && launchIfFilled<MiddleGemmTile>(name, correlationKernel<MiddleGemmTile>,
                                                        filled, c.outputs, c.pixels, c, context)) ||
      launchIfFilled<SmallGemmTile>(name, correlationKernel<SmallGemmTile>, 0, c.outputs, c.pixels,
                                    c, context);
}

// One axis of the targets of one parity: those at padded positions p = stride q + parity, which see the kernel's positions
// parity, parity + stride, ... at dy's positions q, q - 1, ...
struct ParityAxis {
  int64_t taps, first, count, q;

  ParityAxis(int64_t parity, int64_t stride, int64_t kernel, int64_t padding, int64_t size) {
    taps = kernel > parity ? (kernel - parity + stride - 1) / stride : 0;
    q = padding > parity ? (padding - parity + stride - 1) / stride : 0;
    first = q * stride + parity - padding;
    count = first < size ? (size - first + stride - 1) / stride : 0;
  }
};

}  // namespace

void conv2dCuda(const Conv2dArgs& arguments, CudaContext& context) {
  const Conv2dShape& s = arguments.shape;
  const int64_t taps = s.kernelHeight * s.kernelWidth;
  const int64_t plane = s.outHeight * s.outWidth;
  const Correlation c = {
      .source = arguments.x,
      .weight = arguments.weight,
      .bias = arguments.bias,
      .target = arguments.y,
      .channels = s.inputs,
      .outputs = s.outputs,
      .depth = s.inputs * taps,
      .pixels = s.batch * plane,
      .height = static_cast<int>(s.height),
      .width = static_cast<int>(s.width),
      .stride = static_cast<int>(s.stride),
      .top = static_cast<int>(s.top),
      .left = static_cast<int>(s.left),
      .outputStride = s.inputs * taps,
      .channelStride = taps,
      .kernelRow = 0,
      .kernelColumn = 0,
      .kernelWidth = static_cast<int>(s.kernelWidth),
      .kernelStep = 1,
      .targetHeight = static_cast<int>(s.outHeight),
      .targetWidth = static_cast<int>(s.outWidth),
      .firstRow = 0,
      .firstColumn = 0,
      .step = 1,
      .denseWeight = true,
      .vectorWeight = s.inputs * taps % 4 == 0 && isAligned(arguments.weight),
      .vectorTarget = plane % 4 == 0 && isAligned(arguments.y),
      .taps = Triple(s.kernelHeight, s.kernelWidth),
      .places = Triple(s.outHeight, s.outWidth),
  };
  launchCorrelation("conv2d", c, context);
}

void conv2dBackwardDataCuda(const Conv2dBackwardDataArgs& arguments, CudaContext& context) {
  const Conv2dShape& s = arguments.shape;
  const int64_t taps = s.kernelHeight * s.kernelWidth;
  for (int64_t rowParity = 0; rowParity < s.stride; ++rowParity) {
    for (int64_t columnParity = 0; columnParity < s.stride; ++columnParity) {
      const ParityAxis row(rowParity, s.stride, s.kernelHeight, s.top, s.height);
      const ParityAxis column(columnParity, s.stride, s.kernelWidth, s.left, s.width);
      const Correlation c = {
          .source = arguments.dy,
          .weight = arguments.weight,
          .bias = nullptr,
          .target = arguments.dx,
          .channels = s.outputs,
          .outputs = s.inputs,
          .depth = s.outputs * row.taps * column.taps,
          .pixels = s.batch * row.count * column.count,
          .height = static_cast<int>(s.outHeight),
          .width = static_cast<int>(s.outWidth),
          .stride = 1,
          .top = static_cast<int>(row.taps - 1 - row.q),
          .left = static_cast<int>(column.taps - 1 - column.q),
          .outputStride = taps,
          .channelStride = s.inputs * taps,
          .kernelRow = static_cast<int>(rowParity + (row.taps - 1) * s.stride),
          .kernelColumn = static_cast<int>(columnParity + (column.taps - 1) * s.stride),
          .kernelWidth = static_cast<int>(s.kernelWidth),
          .kernelStep = static_cast<int>(-s.stride),
          .targetHeight = static_cast<int>(s.height),
          .targetWidth = static_cast<int>(s.width),
          .firstRow = static_cast<int>(row.first),
          .firstColumn = static_cast<int>(column.first),
          .step = static_cast<int>(s.stride),
          .denseWeight = false,
          .vectorWeight = false,
          .vectorTarget = s.stride == 1 && s.height * s.width % 4 == 0 && isAligned(arguments.dx),
          .taps = Triple(row.taps, column.taps),
          .places = Triple(row.count, column.count),
      };
      launchCorrelation("conv2dBackwardData", c, context);
    }
  }
}

void conv2dBackwardWeightCuda(const Conv2dBackwardWeightArgs& arguments, CudaContext& context) {
  const Conv2dShape& s = arguments.shape;
  const int64_t plane = s.outHeight * s.outWidth;
  const bool vectorDy = plane % 4 == 0 && isAligned(arguments.dy);
  const int64_t columns = s.inputs * s.kernelHeight * s.kernelWidth;
  const WeightGradient g = {
      .x = arguments.x,
      .dy = arguments.dy,
      .dweight = arguments.dweight,
      .inputs = s.inputs,
      .outputs = s.outputs,
      .columns = columns,
      .depth = s.batch * plane,
      .height = static_cast<int>(s.height),
      .width = static_cast<int>(s.width),
      .stride = static_cast<int>(s.stride),
      .top = static_cast<int>(s.top),
      .left = static_cast<int>(s.left),
      .vectorDy = vectorDy,
      .vectorTarget = columns % 4 == 0 && isAligned(arguments.dweight),
      .taps = Triple(s.kernelHeight, s.kernelWidth),
      .places = Triple(s.outHeight, s.outWidth),
  };
  constexpr const char* kName = "conv2dBackwardWeight";
  const int64_t filled = context.multiprocessors;
  launchIfFilled<MiddleGemmTile>(kName, weightGradientKernel<MiddleGemmTile>, filled, s.outputs,
                                 columns, g, context) ||
      launchIfFilled<SmallGemmTile>(kName, weightGradientKernel<SmallGemmTile>,
                                    g.depth < kLongSum ? 0 : filled / 2 + 1, s.outputs, columns, g,
                                    context) ||
      launchIfFilled<TinyGemmTile>(kName, weightGradientKernel<TinyGemmTile>, 0, s.outputs, columns,
                                   g, context);
  if (arguments.dbias != nullptr && s.outputs > 0)
    context.launch("conv2dBackwardWeight: bias", biasGradientKernel,
                   dim3(static_cast<unsigned>(s.outputs)), kBiasThreads, arguments.dy,
                   arguments.dbias, s.batch, s.outputs, plane, vectorDy);
}

}  // namespace didr
