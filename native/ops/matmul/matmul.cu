// `matmul` on CUDA: y = activation(alpha op(a) op(b) + beta y + bias). Contract: matmul.h.
//
// A block makes a square tile of y, see gemm.cuda.h. Which of the two indices of an operand lies contiguous, transposed
// or not, decides how a block fetches it, not how it multiplies.
//
//   float32    fused multiply-adds on tiles of 128 x 128 sums; 64 x 64, or 32 x 32 and 16 x 16 with the depth cut among a
//              block's threads, where larger tiles would leave multiprocessors idle.
//   bfloat16   tensor cores, 16 x 8 x 16 products with float32 sums (cuda_mma.h); tiles of 128 x 128 by eight warps of
//              64 x 32, of 64 x 64 by two groups of four warps of 32 x 32 that halve the depth, or of 32 x 32 by four
//              groups of two warps of 16 x 32. Elements go to shared memory as they lie in device memory, 32 or 64 steps
//              of depth at a time in two buffers; ldmatrix, with or without transposing, makes fragments of either
//              layout. Rows are padded by 16 bytes: the eight rows of a fragment lie in different banks.
//
// The next step's elements are in registers while a step is multiplied. Sums go back through shared memory, so that bias,
// activation and the rounding work on vectors of 16 bytes of a row; the same for loads where sizes and addresses allow,
// element by element where not. Every sum has one order on a given device, whose number of multiprocessors chooses the
// tile. Bytes: a and b once per column and row of tiles, mostly from the second-level cache; y once.
//
// cuBLAS makes the products in our place where the module has found it (native/cuda/cublas.h). It adds neither bias nor
// activation: after a product in float32 a second kernel does, reading and writing y once more; one in bfloat16 stays here,
// as it would be rounded twice.
#include "native/core/cuda_math.h"
#include "native/core/cuda_mma.h"
#include "native/cuda/cublas.h"
#include "native/ops/matmul/gemm.cuda.h"
#include "native/ops/matmul/matmul.h"

namespace didr {
namespace {

// How an operand lies in memory: rows of `pitch` elements, along the depth or across it.
struct Layout {
  int64_t extent;  // of the operand's own index, m or n
  int64_t depth;
  int64_t pitch;
  bool alongDepth;
  bool vector;  // rows begin at multiples of 16 bytes

  // Elements from (first, depth) on that lie next to each other inside the matrix.
  __device__ int64_t left(int64_t first, int64_t at) const {
    if (first >= extent || at >= depth) return 0;
    return alongDepth ? depth - at : extent - first;
  }
  __device__ int64_t offset(int64_t first, int64_t at) const {
    return alongDepth ? first * pitch + at : at * pitch + first;
  }
};

struct Layouts {
  Layout a, b;
  bool vectorY;  // rows of y, and the bias, begin at multiples of 16 bytes
};

__device__ inline float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return scalar::relu(x);
    case Activation::kGelu:
      return scalar::gelu(x);
    case Activation::kGeluTanh:
      return scalar::geluTanh(x);
    case Activation::kSilu:
      return scalar::silu(x);
    case Activation::kTanh:
      return scalar::tanh(x);
    case Activation::kSigmoid:
      return scalar::sigmoid(x);
  }
  return x;
}

// Writes kVector<T> neighbouring results from (row, column) of a batch on.
template <class T>
__device__ void finishVector(const MatmulArgs& arguments, bool vector, int64_t batch, int64_t row,
                             int64_t column, float (&x)[kVector<T>]) {
  constexpr int V = kVector<T>;
  if (row >= arguments.m || column >= arguments.n) return;
  const int64_t left = arguments.n - column;
  const VectorPart part = {0, left < V ? static_cast<int>(left) : V, vector && left >= V};
  T* const y = static_cast<T*>(arguments.y) + (batch * arguments.m + row) * arguments.n + column;
#pragma unroll
  for (int i = 0; i < V; ++i) x[i] *= arguments.alpha;
  float term[V];
  if (arguments.beta != 0.0f) {
    loadPart(y, part, term);
#pragma unroll
    for (int i = 0; i < V; ++i) x[i] += term[i] * arguments.beta;
  }
  if (arguments.bias != nullptr) {
    loadPart(static_cast<const T*>(arguments.bias) + column, part, term);
#pragma unroll
    for (int i = 0; i < V; ++i) x[i] += term[i];
  }
  if (arguments.activation != Activation::kNone) {
#pragma unroll
    for (int i = 0; i < V; ++i) x[i] = activate(arguments.activation, x[i]);
  }
  storePart(y, part, x);
}

// --- float32 --------------------------------------------------------------------------------------------------------

struct DenseOperand {
  const float* matrix;
  const Layout& layout;
  GemmChunk chunk;
  int64_t first;  // the chunk's row of a or column of b

  template <class Tile>
  __device__ static DenseOperand of(const float* matrix, const Layout& layout, int64_t tile) {
    const auto chunk = GemmChunk::of<Tile>(static_cast<int>(threadIdx.x), layout.alongDepth);
    return {matrix, layout, chunk, tile * Tile::kSide + chunk.extent};
  }

  __device__ bool alongDepth() const { return layout.alongDepth; }
  __device__ void load(int64_t step, float (&x)[4]) const {
    const int64_t at = step + chunk.depth;
    const int64_t left = layout.left(first, at);
    loadPart(matrix + layout.offset(first, at),
             {0, left < 4 ? static_cast<int>(left) : 4, layout.vector && left >= 4}, x);
  }
};

template <class Tile>
__global__ void __launch_bounds__(kGemmThreads, Tile::kBlocks)
    matmulFloatKernel(MatmulArgs arguments, Layouts layouts, GemmGrid grid) {
  DIDR_SHARED(typename Tile::Buffers, buffers, 1);
  const Tile tile(static_cast<int>(threadIdx.x));
  for (int64_t index = blockIdx.x; index < grid.count; index += gridDim.x) {
    const GemmGrid::Place place = grid.at(index);
    auto a = DenseOperand::of<Tile>(
        static_cast<const float*>(arguments.a) + place.batch * arguments.aBatchStride, layouts.a,
        place.row);
    auto b = DenseOperand::of<Tile>(
        static_cast<const float*>(arguments.b) + place.batch * arguments.bBatchStride, layouts.b,
        place.column);
    float sums[Tile::kOwn][Tile::kOwn];
    multiplyTile(tile, buffers[0], a, b, arguments.k, sums);
    finishTile(tile, buffers[0], sums, [&](int row, int column, float(&x)[4]) {
      finishVector<float>(arguments, layouts.vectorY, place.batch, place.row * Tile::kSide + row,
                          place.column * Tile::kSide + column, x);
    });
  }
}

// --- bfloat16 -------------------------------------------------------------------------------------------------------

template <int kSideOfTile, int kSlicesOfStep>
struct MmaTile {
  static constexpr int kSide = kSideOfTile;
  static constexpr int kSlices = kSlicesOfStep;
  static constexpr int kDepth = kSlices > 2 ? 16 * kSlices : 32;
  static constexpr int kWarpsDown = 2;
  static constexpr int kWarpsAcross = kGemmThreads / kWarpThreads / kSlices / kWarpsDown;
  static constexpr int kWarpRows = kSide / kWarpsDown;
  static constexpr int kWarpColumns = kSide / kWarpsAcross;
  static constexpr int kSliceDepth = kDepth / kSlices;
  static constexpr int kDepthPitch = kDepth + 8;
  static constexpr int kSidePitch = kSide + 8;
  static constexpr int kChunks = kSide * kDepth / 8 / kGemmThreads;  // of 16 bytes, per thread
  static constexpr int kSumPitch = kSide + 4;
  static_assert(kSliceDepth % 16 == 0 && kWarpColumns % 16 == 0 && kWarpRows % 16 == 0);

  struct Operand {
    // Of eight elements, along the depth or across it.
    uint4 vectors[(kSide * kDepthPitch > kDepth * kSidePitch ? kSide * kDepthPitch
                                                             : kDepth * kSidePitch) /
                  8];
  };
  struct Buffers {
    Operand a[2], b[2];
  };
  static_assert(kWarpRows * kSumPitch * sizeof(float) <= sizeof(Buffers));
};

using LargeMmaTile = MmaTile<128, 1>;
using MiddleMmaTile = MmaTile<64, 2>;
using SmallMmaTile = MmaTile<32, 4>;

// One operand of a tile: what this thread fetches, and how its warp reads fragments. The left one, a, has its fragments'
// matrices follow each other along the extent first, the right one along the depth.
template <class Tile, bool kIsLeft>
struct MmaOperand {
  const BFloat16* matrix;
  const Layout& layout;
  // This thread's chunks of eight elements: the first one, and the steps from one to the next.
  int64_t first;
  int depth;
  int nextExtent, nextDepth;
  const BFloat16* start;   // the first chunk in the first step of the depth
  int64_t stride;          // from one step to the next
  int64_t nextStride;      // from one chunk to the next
  int64_t wholeBelow;      // steps that begin below it have all elements, aligned
  int placed, nextPlaced;  // in a buffer, in vectors
  // The warp's first fragment, and the steps to others, in a buffer's elements.
  int fragment, extentStride, depthStride;

  __device__ MmaOperand(const BFloat16* data, const Layout& of, int64_t tile, int warpExtent)
      : matrix(data), layout(of) {
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % kWarpThreads;
    const int second = lane & 8, third = (lane & 16) / 2;
    const int fragmentExtent = warpExtent + (kIsLeft ? second : third);
    const int fragmentDepth = kIsLeft ? third : second;
    if (layout.alongDepth) {
      constexpr int kAcross = Tile::kDepth / 8;
      first = tile * Tile::kSide + thread / kAcross;
      depth = thread % kAcross * 8;
      nextExtent = kGemmThreads / kAcross;
      nextDepth = 0;
      stride = 1;
      placed = (thread / kAcross * Tile::kDepthPitch + depth) / 8;
      nextPlaced = nextExtent * Tile::kDepthPitch / 8;
      extentStride = Tile::kDepthPitch;
      depthStride = 1;
      fragment = (fragmentExtent + lane % 8) * Tile::kDepthPitch + fragmentDepth;
    } else {
      constexpr int kAcross = Tile::kSide / 8;
      first = tile * Tile::kSide + thread % kAcross * 8;
      depth = thread / kAcross;
      nextExtent = 0;
      nextDepth = kGemmThreads / kAcross;
      stride = layout.pitch;
      placed = (depth * Tile::kSidePitch + thread % kAcross * 8) / 8;
      nextPlaced = nextDepth * Tile::kSidePitch / 8;
      extentStride = 1;
      depthStride = Tile::kSidePitch;
      fragment = (fragmentDepth + lane % 8) * Tile::kSidePitch + fragmentExtent;
    }
    start = matrix + layout.offset(first, depth);
    nextStride = (nextExtent + nextDepth) * layout.pitch;
    const int64_t last = first + (Tile::kChunks - 1) * nextExtent + (layout.alongDepth ? 1 : 8);
    wholeBelow = layout.vector && last <= layout.extent ? layout.depth - Tile::kDepth + 1 : 0;
  }

  __device__ void fetch(int64_t step, uint4 (&next)[Tile::kChunks]) const {
    if (step < wholeBelow) {
      const BFloat16* const from = start + step * stride;
#pragma unroll
      for (int i = 0; i < Tile::kChunks; ++i)
        next[i] = *reinterpret_cast<const uint4*>(from + i * nextStride);
      return;
    }
#pragma unroll
    for (int i = 0; i < Tile::kChunks; ++i) {
      const int64_t extent = first + i * nextExtent, at = step + depth + i * nextDepth;
      const int64_t left = layout.left(extent, at);
      const BFloat16* const from = matrix + layout.offset(extent, at);
      uint32_t words[4];
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const uint32_t low = 2 * w < left ? from[2 * w].bits : 0;
        const uint32_t high = 2 * w + 1 < left ? from[2 * w + 1].bits : 0;
        words[w] = low | high << 16;
      }
      next[i] = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
  __device__ void put(typename Tile::Operand& buffer, const uint4 (&next)[Tile::kChunks]) const {
#pragma unroll
    for (int i = 0; i < Tile::kChunks; ++i) buffer.vectors[placed + i * nextPlaced] = next[i];
  }

  // Those of the warp's blocks of 16 along the extent at a depth within the step.
  template <int kBlocks>
  __device__ void fragments(const typename Tile::Operand& buffer, int depthInStep,
                            uint32_t (&x)[kBlocks][4]) const {
    const BFloat16* const at =
        reinterpret_cast<const BFloat16*>(buffer.vectors) + fragment + depthInStep * depthStride;
    if (layout.alongDepth) {
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) loadMatrices<false>(at + i * 16 * extentStride, x[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) loadMatrices<true>(at + i * 16 * extentStride, x[i]);
    }
  }
};

template <class Tile>
__global__ void __launch_bounds__(kGemmThreads, 1)
    matmulBFloat16Kernel(MatmulArgs arguments, Layouts layouts, GemmGrid grid) {
  constexpr int kRowBlocks = Tile::kWarpRows / 16, kColumnBlocks = Tile::kWarpColumns / 16;
  DIDR_SHARED(typename Tile::Buffers, shared, 1);
  typename Tile::Buffers& buffers = shared[0];
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int slice = warp / (Tile::kWarpsDown * Tile::kWarpsAcross);
  const int warpDown = warp / Tile::kWarpsAcross % Tile::kWarpsDown;
  const int warpAcross = warp % Tile::kWarpsAcross;
  for (int64_t index = blockIdx.x; index < grid.count; index += gridDim.x) {
    const GemmGrid::Place place = grid.at(index);
    const MmaOperand<Tile, true> a(
        static_cast<const BFloat16*>(arguments.a) + place.batch * arguments.aBatchStride, layouts.a,
        place.row, warpDown * Tile::kWarpRows);
    const MmaOperand<Tile, false> b(
        static_cast<const BFloat16*>(arguments.b) + place.batch * arguments.bBatchStride, layouts.b,
        place.column, warpAcross * Tile::kWarpColumns);
    const bool isInside =
        place.row * Tile::kSide + warpDown * Tile::kWarpRows < arguments.m &&
        place.column * Tile::kSide + warpAcross * Tile::kWarpColumns < arguments.n;
    MmaSums sums[kRowBlocks][2 * kColumnBlocks] = {};
    uint4 nextA[Tile::kChunks], nextB[Tile::kChunks];
    if (arguments.k > 0) {
      a.fetch(0, nextA);
      b.fetch(0, nextB);
      a.put(buffers.a[0], nextA);
      b.put(buffers.b[0], nextB);
    }
    __syncthreads();
    int buffer = 0;
    for (int64_t step = 0; step < arguments.k; step += Tile::kDepth) {
      const bool more = step + Tile::kDepth < arguments.k;
      if (more) {
        a.fetch(step + Tile::kDepth, nextA);
        b.fetch(step + Tile::kDepth, nextB);
      }
#pragma unroll
      for (int p = 0; p < Tile::kSliceDepth && isInside; p += 16) {
        const int depth = slice * Tile::kSliceDepth + p;
        uint32_t left[kRowBlocks][4], right[kColumnBlocks][4];
        a.fragments(buffers.a[buffer], depth, left);
        b.fragments(buffers.b[buffer], depth, right);
#pragma unroll
        for (int j = 0; j < kColumnBlocks; ++j) {
#pragma unroll
          for (int i = 0; i < kRowBlocks; ++i) {
            const MmaLeft rows = {{left[i][0], left[i][1], left[i][2], left[i][3]}};
            multiplyAccumulate(rows, {{right[j][0], right[j][1]}}, sums[i][2 * j]);
            multiplyAccumulate(rows, {{right[j][2], right[j][3]}}, sums[i][2 * j + 1]);
          }
        }
      }
      if (more) {
        a.put(buffers.a[buffer ^ 1], nextA);
        b.put(buffers.b[buffer ^ 1], nextB);
      }
      __syncthreads();
      buffer ^= 1;
    }

    auto* const rows = reinterpret_cast<float(*)[Tile::kSumPitch]>(&buffers);
#pragma unroll 1
    for (int down = 0; down < Tile::kWarpsDown; ++down) {
#pragma unroll 1
      for (int turn = 0; turn < Tile::kSlices; ++turn) {
        if (warpDown == down && slice == turn) {
#pragma unroll
          for (int i = 0; i < kRowBlocks; ++i) {
#pragma unroll
            for (int j = 0; j < 2 * kColumnBlocks; ++j) {
#pragma unroll
              for (int half = 0; half < 2; ++half) {
                auto* const at = reinterpret_cast<float2*>(
                    &rows[16 * i + 8 * half + lane / 4]
                         [warpAcross * Tile::kWarpColumns + 8 * j + lane % 4 * 2]);
                const float2 sum = turn == 0 ? make_float2(0.0f, 0.0f) : *at;
                *at =
                    make_float2(sum.x + sums[i][j].x[2 * half], sum.y + sums[i][j].x[2 * half + 1]);
              }
            }
          }
        }
        __syncthreads();
      }
      constexpr int kAcross = Tile::kSide / 8;
#pragma unroll 1
      for (int i = static_cast<int>(threadIdx.x); i < Tile::kWarpRows * kAcross;
           i += kGemmThreads) {
        const float* const from = &rows[i / kAcross][i % kAcross * 8];
        float x[8], low[4], high[4];
        loadVector(from, low);
        loadVector(from + 4, high);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          x[e] = low[e];
          x[4 + e] = high[e];
        }
        finishVector<BFloat16>(arguments, layouts.vectorY, place.batch,
                               place.row * Tile::kSide + down * Tile::kWarpRows + i / kAcross,
                               place.column * Tile::kSide + i % kAcross * 8, x);
      }
      __syncthreads();
    }
  }
}

// --- What cuBLAS leaves to do ---------------------------------------------------------------------------------------

// y = activation(y + bias), a thread for four neighbours of a row; `arguments` with all batches as rows of one.
__global__ void __launch_bounds__(256)
    matmulFinishKernel(MatmulArgs arguments, bool vector, int64_t perRow, int64_t count) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    const int64_t row = i / perRow, column = i % perRow * 4, left = arguments.n - column;
    const VectorPart part = {0, left < 4 ? static_cast<int>(left) : 4, vector && left >= 4};
    float x[4];
    loadPart(static_cast<const float*>(arguments.y) + row * arguments.n + column, part, x);
    finishVector<float>(arguments, vector, 0, row, column, x);
  }
}

// --- Launches -------------------------------------------------------------------------------------------------------

bool isAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

Layouts layoutsOf(const MatmulArgs& arguments) {
  const auto width = static_cast<int64_t>(16 / sizeOf(arguments.dtype));
  const auto layout = [&](const void* matrix, int64_t extent, int64_t batchStride,
                          bool alongDepth) {
    const int64_t pitch = alongDepth ? arguments.k : extent;
    return Layout{extent, arguments.k, pitch, alongDepth,
                  isAligned(matrix) && pitch % width == 0 && batchStride % width == 0};
  };
  return {layout(arguments.a, arguments.m, arguments.aBatchStride, !arguments.transA),
          layout(arguments.b, arguments.n, arguments.bBatchStride, arguments.transB),
          isAligned(arguments.y) && isAligned(arguments.bias) && arguments.n % width == 0};
}

// Unless fewer than `least` tiles are there, or a dimension fills none of them to the half; where `least` is 0, always.
template <class Tile, class Kernel>
bool launchIfFilled(Kernel kernel, int64_t least, const MatmulArgs& arguments,
                    CudaContext& context) {
  const GemmGrid grid(arguments.m, arguments.n, arguments.batch, Tile::kSide);
  const bool isHalfFull = arguments.m > Tile::kSide / 2 && arguments.n > Tile::kSide / 2;
  if (least > 0 && (grid.count < least || !isHalfFull)) return false;
  context.launch("matmul", kernel, grid.blocks(), kGemmThreads, arguments, layoutsOf(arguments),
                 grid);
  return true;
}

bool launchCublas(const MatmulArgs& arguments, CudaContext& context) {
  const bool finishes = arguments.bias != nullptr || arguments.activation != Activation::kNone;
  if (context.cublas == nullptr || (finishes && arguments.dtype != DType::kFloat32)) return false;
  if (!context.cublas->multiply(arguments, context)) return false;
  if (!finishes) return true;
  MatmulArgs rest = arguments;
  rest.m = arguments.m * arguments.batch;
  rest.batch = 1;
  rest.alpha = 1;
  rest.beta = 0;
  constexpr int kThreads = 256;
  const int64_t perRow = (rest.n + 3) / 4, count = rest.m * perRow;
  context.launch("matmul", matmulFinishKernel, context.gridStrideBlocks(count, kThreads), kThreads,
                 rest, layoutsOf(arguments).vectorY, perRow, count);
  return true;
}

}  // namespace

void matmulCuda(const MatmulArgs& arguments, CudaContext& context) {
  if (arguments.m == 0 || arguments.n == 0 || arguments.batch == 0) return;
  if (launchCublas(arguments, context)) return;
  // Larger tiles read less; fewer tiles than multiprocessors leave some idle.
  const int64_t filled = context.multiprocessors;
  if (arguments.dtype == DType::kFloat32) {
    const int64_t leastSmall = arguments.k < kLongSum ? 0 : filled / 2 + 1;
    launchIfFilled<LargeGemmTile>(matmulFloatKernel<LargeGemmTile>, filled, arguments, context) ||
        launchIfFilled<MiddleGemmTile>(matmulFloatKernel<MiddleGemmTile>, filled, arguments,
                                       context) ||
        launchIfFilled<SmallGemmTile>(matmulFloatKernel<SmallGemmTile>, leastSmall, arguments,
                                      context) ||
        launchIfFilled<TinyGemmTile>(matmulFloatKernel<TinyGemmTile>, 0, arguments, context);
  } else {
    launchIfFilled<LargeMmaTile>(matmulBFloat16Kernel<LargeMmaTile>, filled, arguments, context) ||
        launchIfFilled<MiddleMmaTile>(matmulBFloat16Kernel<MiddleMmaTile>, filled, arguments,
                                      context) ||
        launchIfFilled<SmallMmaTile>(matmulBFloat16Kernel<SmallMmaTile>, 0, arguments, context);
  }
}

}  // namespace didr
