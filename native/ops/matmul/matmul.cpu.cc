// `matmul` on the CPU: y = activation(alpha op(a) op(b) + beta y + bias). Contract: matmul.h.
//
// Three ways, chosen by shape:
//   direct  an operand with few rows or columns, which leaves nothing to reuse, and what is too
//           small to pack: a few rows by some hundred columns of sums on the stack, op(a) gathered,
//           b read in place in the order it lies in memory. No allocation, both dtypes.
//   panels  float32: the product of one panel of rows or columns per thread by sgemm, which packs.
//           Where bias or activation follow, a panel is cut into chunks that are still in the cache
//           when their turn comes.
//   tiles   bfloat16: tiles of y in float32 scratch, operands widened block by block: every element
//           once per tile that needs it, so 2/512 widenings per multiplication.
// Parallel over batches, panels or tiles; sgemm itself stays on its thread.
#include "native/ops/matmul/matmul.h"

#include <cstdlib>
#include <cstring>

#include "native/core/blas.h"
#include "native/core/op.h"
#include "native/core/refuse.h"
#include "native/core/simd.h"
#include "native/ops/elementwise/activation.cpu.h"
#if !defined(DIDR_BLAS_OPENBLAS)
#include "native/ops/matmul/gemm.cpu.h"
#endif

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

DIDR_SIMD int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DIDR_SIMD int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
DIDR_SIMD int64_t blocksOf(int64_t x, int64_t block) { return (x + block - 1) / block; }

// Multiplications worth a thread.
constexpr int64_t kGrain = int64_t{1} << 19;

void failForMemory(CpuContext& context) {
  refuse(context, Code::kOutOfMemory, "matmul: no memory for its work buffers");
}

// --- Bias and activation ------------------------------------------------------------------------

template <class F>
void withActivation(Activation activation, const F& f) {
  switch (activation) {
    case Activation::kNone:
      return f([](F32 x) { return x; });
    case Activation::kRelu:
      return f([](F32 x) { return simd::relu(x); });
    case Activation::kGelu:
      return f([](F32 x) { return simd::gelu(x); });
    case Activation::kGeluTanh:
      return f([](F32 x) { return simd::geluTanh(x); });
    case Activation::kSilu:
      return f([](F32 x) { return simd::silu(x); });
    case Activation::kTanh:
      return f([](F32 x) { return simd::tanh(x); });
    case Activation::kSigmoid:
      return f([](F32 x) { return simd::sigmoid(x); });
  }
}

// y = activation(alpha sums + beta y + bias) over rows of columns; y may be the sums.
template <class T>
void finish(const MatmulArgs& arguments, float alpha, float beta, const float* sums,
            int64_t sumStride, T* y, const T* bias, int64_t rows, int64_t columns) {
  withActivation(arguments.activation, [&](const auto& activation) {
    for (int64_t row = 0; row < rows; ++row, sums += sumStride, y += arguments.n) {
      for (int64_t c = 0; c < columns; c += kLanes) {
        const int lanes = static_cast<int>(smaller(columns - c, kLanes));
        const auto read = [lanes](const auto* p) {
          return lanes == kLanes ? simd::load(p) : simd::loadPartial(p, lanes);
        };
        F32 x = read(sums + c) * alpha;
        if (beta != 0) x = x + read(y + c) * beta;
        if (bias != nullptr) x = x + read(bias + c);
        x = activation(x);
        if (lanes == kLanes)
          simd::store(y + c, x);
        else
          simd::storePartial(y + c, x, lanes);
      }
    }
  });
}

// --- Operands -----------------------------------------------------------------------------------

// One batch, by strides of op(a) and op(b).
template <class T>
struct Product {
  const T* a;
  const T* b;
  T* y;
  int64_t aRow, aDepth;     // strides of op(a) along m and k
  int64_t bDepth, bColumn;  // of op(b) along k and n

  Product(const MatmulArgs& arguments, int64_t batch)
      : a(static_cast<const T*>(arguments.a) + batch * arguments.aBatchStride),
        b(static_cast<const T*>(arguments.b) + batch * arguments.bBatchStride),
        y(static_cast<T*>(arguments.y) + batch * arguments.m * arguments.n),
        aRow(arguments.transA ? 1 : arguments.k),
        aDepth(arguments.transA ? arguments.m : 1),
        bDepth(arguments.transB ? 1 : arguments.n),
        bColumn(arguments.transB ? arguments.k : 1) {}
};

// --- Direct -------------------------------------------------------------------------------------

constexpr int64_t kDirectRows = 4;
constexpr int64_t kDirectColumns = 256;
constexpr int64_t kDirectDepth = 256;

// Fused where the machine can; its exact emulation has no place here.
DIDR_SIMD F32 multiplyAdd(F32 a, F32 b, F32 c) {
#if defined(__FMA__) || defined(__aarch64__)
  return simd::fma(a, b, c);
#else
  return a * b + c;
#endif
}

struct DirectBlock {
  float sums[kDirectRows][kDirectColumns];
  float a[kDirectRows][kDirectDepth];
};

// sums[i][j] += a[i][p] b[p][j] for `rows` rows: strips of columns go down a few rows of b with
// their sums in registers.
template <int kRows, int kVectors, class T>
DIDR_SIMD void addStrip(DirectBlock& block, const T* b, int64_t stride, int64_t first, int64_t last,
                        int64_t column, int lanes) {
  F32 sums[kRows][kVectors];
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v) sums[i][v] = simd::load(&block.sums[i][column + v * kLanes]);
  for (int64_t p = first; p < last; ++p) {
    const T* from = b + p * stride + column;
    F32 right[kVectors];
    for (int v = 0; v < kVectors; ++v)
      right[v] = lanes == kLanes ? simd::load(from + v * kLanes) : simd::loadPartial(from, lanes);
    for (int i = 0; i < kRows; ++i) {
      const F32 left = simd::broadcast(block.a[i][p]);
      for (int v = 0; v < kVectors; ++v) sums[i][v] = multiplyAdd(left, right[v], sums[i][v]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v) simd::store(&block.sums[i][column + v * kLanes], sums[i][v]);
}

template <int kRows, class T>
void addRowsOfB(DirectBlock& block, const T* b, int64_t stride, int64_t depth, int64_t columns) {
  // A tile of b that the strips share stays in the first cache.
  const int64_t tile = larger(16, 4096 / columns);
  for (int64_t first = 0; first < depth; first += tile) {
    const int64_t last = smaller(first + tile, depth);
    int64_t column = 0;
    for (; column + 2 * kLanes <= columns; column += 2 * kLanes)
      addStrip<kRows, 2>(block, b, stride, first, last, column, kLanes);
    for (; column + kLanes <= columns; column += kLanes)
      addStrip<kRows, 1>(block, b, stride, first, last, column, kLanes);
    if (column < columns)
      addStrip<kRows, 1>(block, b, stride, first, last, column, static_cast<int>(columns - column));
  }
}

// The sum of the lanes, in a fixed order.
DIDR_SIMD float sumLanes(F32 x) {
  float lanes[kLanes];
  simd::store(lanes, x);
  for (int half = kLanes / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// sums[i][j] += a[i][p] b[j][p]: dot products, two columns at a time.
template <int kRows, class T>
void addColumnsOfB(DirectBlock& block, const T* b, int64_t stride, int64_t depth, int64_t columns) {
  const auto dots = [&]<int kWide>(int64_t column) {
    F32 sums[kRows][kWide] = {};
    const auto step = [&](int64_t p, int lanes) {
      F32 right[kWide];
      for (int j = 0; j < kWide; ++j) {
        const T* from = b + (column + j) * stride + p;
        right[j] = lanes == kLanes ? simd::load(from) : simd::loadPartial(from, lanes);
      }
      for (int i = 0; i < kRows; ++i) {
        const float* from = &block.a[i][p];
        const F32 left = lanes == kLanes ? simd::load(from) : simd::loadPartial(from, lanes);
        for (int j = 0; j < kWide; ++j) sums[i][j] = multiplyAdd(left, right[j], sums[i][j]);
      }
    };
    int64_t p = 0;
    for (; p + kLanes <= depth; p += kLanes) step(p, kLanes);
    if (p < depth) step(p, static_cast<int>(depth - p));
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kWide; ++j) block.sums[i][column + j] += sumLanes(sums[i][j]);
  };
  int64_t column = 0;
  for (; column + 2 <= columns; column += 2) dots.template operator()<2>(column);
  if (column < columns) dots.template operator()<1>(column);
}

template <int kRows, class T>
void directBlock(const MatmulArgs& arguments, const Product<T>& product, int64_t row,
                 int64_t column, int64_t columns) {
  DirectBlock block;
  for (int i = 0; i < kRows; ++i)
    for (int64_t c = 0; c < columns + kLanes && c < kDirectColumns; ++c) block.sums[i][c] = 0;
  for (int64_t p0 = 0; p0 < arguments.k; p0 += kDirectDepth) {
    const int64_t depth = smaller(arguments.k - p0, kDirectDepth);
    for (int i = 0; i < kRows; ++i) {
      const T* from = product.a + (row + i) * product.aRow + p0 * product.aDepth;
      for (int64_t p = 0; p < depth; ++p) block.a[i][p] = toFloat(from[p * product.aDepth]);
    }
    const T* b = product.b + p0 * product.bDepth + column * product.bColumn;
    // A b of one column lies in memory like its transpose.
    if (product.bColumn == 1 && product.bDepth != 1)
      addRowsOfB<kRows>(block, b, product.bDepth, depth, columns);
    else
      addColumnsOfB<kRows>(block, b, product.bColumn, depth, columns);
  }
  const T* bias =
      arguments.bias == nullptr ? nullptr : static_cast<const T*>(arguments.bias) + column;
  finish(arguments, arguments.alpha, arguments.beta, block.sums[0], kDirectColumns,
         product.y + row * arguments.n + column, bias, kRows, columns);
}

template <class T>
void direct(const MatmulArgs& arguments, CpuContext& context) {
  const int64_t rowBlocks = blocksOf(arguments.m, kDirectRows);
  const int64_t columnBlocks = blocksOf(arguments.n, kDirectColumns);
  const int64_t work = larger(
      1, smaller(arguments.m, kDirectRows) * smaller(arguments.n, kDirectColumns) * arguments.k);
  context.pool.parallelFor(
      arguments.batch * columnBlocks * rowBlocks, larger(1, kGrain / 4 / work),
      [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
          const Product<T> product(arguments, block / (rowBlocks * columnBlocks));
          const int64_t row = block % rowBlocks * kDirectRows;
          const int64_t column = block / rowBlocks % columnBlocks * kDirectColumns;
          const int64_t columns = smaller(arguments.n - column, kDirectColumns);
          switch (smaller(arguments.m - row, kDirectRows)) {
            case 1:
              directBlock<1>(arguments, product, row, column, columns);
              break;
            case 2:
              directBlock<2>(arguments, product, row, column, columns);
              break;
            case 3:
              directBlock<3>(arguments, product, row, column, columns);
              break;
            default:
              directBlock<4>(arguments, product, row, column, columns);
          }
        }
      });
}

// --- Panels -------------------------------------------------------------------------------------

bool multiply(bool transA, bool transB, int64_t m, int64_t n, int64_t k, float alpha,
              const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c,
              int64_t ldc) {
#if defined(DIDR_BLAS_OPENBLAS)
  sgemm(transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  return true;
#else
  return gemm(transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
#endif
}

// How many rows and columns of panels one product is cut into: as many panels as there are threads
// to keep busy, as close to square as they can be (that packs least).
struct PanelGrid {
  int64_t rows = 1;
  int64_t columns = 1;
  int64_t panelRows, panelColumns;

  PanelGrid(const MatmulArgs& arguments, int threads) {
    const double work = static_cast<double>(arguments.m) * static_cast<double>(arguments.n) *
                        static_cast<double>(arguments.k);
    const auto worth = static_cast<int64_t>(work / static_cast<double>(kGrain));
    const int64_t wanted = smaller(blocksOf(threads, arguments.batch), larger(1, worth));
    double least = 0;
    for (int64_t r = 1; r <= wanted; ++r) {
      const int64_t c = wanted / r;
      const double perimeter = static_cast<double>(arguments.m) / static_cast<double>(r) +
                               static_cast<double>(arguments.n) / static_cast<double>(c) +
                               // Threads without a panel weigh more than a longer edge.
                               static_cast<double>(wanted - r * c) * 1e9;
      if (r > 1 && perimeter >= least) continue;
      least = perimeter;
      rows = r;
      columns = c;
    }
    constexpr int64_t kAlignment = 16;
    panelRows = blocksOf(blocksOf(arguments.m, rows), kAlignment) * kAlignment;
    panelColumns = blocksOf(blocksOf(arguments.n, columns), kAlignment) * kAlignment;
    rows = blocksOf(arguments.m, panelRows);
    columns = blocksOf(arguments.n, panelColumns);
  }
};

// One panel of float32, [m0, m1) x [n0, n1) of a batch.
bool multiplyPanel(const MatmulArgs& arguments, const Product<float>& product, int64_t m0,
                   int64_t m1, int64_t n0, int64_t n1) {
  // Rows of a chunk: few enough to stay in the cache until bias and activation, enough for the
  // packing of b, which is repeated per chunk, to disappear in the product.
  constexpr int64_t kChunkFloats = 1 << 19;
  constexpr int64_t kLeastRows = 512;
  const bool activates = arguments.activation != Activation::kNone;
  const auto* bias = static_cast<const float*>(arguments.bias);
  const bool follows = activates || bias != nullptr;
  const int64_t columns = n1 - n0;
  const int64_t chunk = follows ? larger(kLeastRows, kChunkFloats / columns) : m1 - m0;
  const int64_t lda = arguments.transA ? arguments.m : arguments.k;
  const int64_t ldb = arguments.transB ? arguments.k : arguments.n;
  for (int64_t row = m0; row < m1; row += chunk) {
    const int64_t rows = smaller(chunk, m1 - row);
    float* y = product.y + row * arguments.n + n0;
    // A bias alone is where the sums start.
    const bool startsAtBias = bias != nullptr && !activates && arguments.beta == 0;
    if (startsAtBias)
      for (int64_t i = 0; i < rows; ++i)
        memcpy(y + i * arguments.n, bias + n0, static_cast<size_t>(columns) * sizeof(float));
    if (!multiply(arguments.transA, arguments.transB, rows, columns, arguments.k, arguments.alpha,
                  product.a + row * product.aRow, lda, product.b + n0 * product.bColumn, ldb,
                  startsAtBias ? 1.0f : arguments.beta, y, arguments.n))
      return false;
    if (follows && !startsAtBias)
      finish<float>(arguments, 1.0f, 0.0f, y, arguments.n, y, bias == nullptr ? bias : bias + n0,
                    rows, columns);
  }
  return true;
}

void multiplyPanels(const MatmulArgs& arguments, CpuContext& context) {
  const PanelGrid grid(arguments, context.pool.threads());
  const int64_t perBatch = grid.rows * grid.columns;
  const int64_t work = larger(1, grid.panelRows * grid.panelColumns * arguments.k);
  bool failed = false;
  context.pool.parallelFor(
      arguments.batch * perBatch, larger(1, kGrain / work), [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel) {
          const Product<float> product(arguments, panel / perBatch);
          const int64_t m0 = panel % perBatch % grid.rows * grid.panelRows;
          const int64_t n0 = panel % perBatch / grid.rows * grid.panelColumns;
          if (!multiplyPanel(arguments, product, m0, smaller(m0 + grid.panelRows, arguments.m), n0,
                             smaller(n0 + grid.panelColumns, arguments.n)))
            __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
        }
      });
  if (failed) failForMemory(context);
}

// --- Tiles --------------------------------------------------------------------------------------

constexpr int64_t kTileDepth = 256;

// Square tiles, smaller ones where there would be fewer than threads; the scratch of one.
struct TileGrid {
  int64_t side = 512;
  int64_t rows, columns;  // of tiles, per batch
  int64_t aFloats, bFloats, sumFloats;

  TileGrid(const MatmulArgs& arguments, int threads) {
    constexpr int64_t kLeastSide = 128;
    const auto cut = [&] {
      rows = blocksOf(arguments.m, side);
      columns = blocksOf(arguments.n, side);
    };
    for (cut(); side > kLeastSide && arguments.batch * rows * columns < threads; cut()) side /= 2;
    const int64_t depth = smaller(kTileDepth, arguments.k);
    aFloats = smaller(side, arguments.m) * depth;
    bFloats = smaller(side, arguments.n) * depth;
    sumFloats = smaller(side, arguments.m) * smaller(side, arguments.n);
  }

  int64_t perBatch() const { return rows * columns; }
  size_t scratchBytes() const {
    return static_cast<size_t>(aFloats + bFloats + sumFloats) * sizeof(float);
  }
};

// Widens rows of `count` elements to float32, packed.
void widen(const BFloat16* x, int64_t stride, int64_t rows, int64_t count, float* y) {
  for (int64_t row = 0; row < rows; ++row, x += stride, y += count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) simd::store(y + i, simd::load(x + i));
    for (; i < count; ++i) y[i] = toFloat(x[i]);
  }
}

bool multiplyTile(const MatmulArgs& arguments, const TileGrid& grid,
                  const Product<BFloat16>& product, int64_t m0, int64_t n0, float* a) {
  float* b = a + grid.aFloats;
  float* sums = b + grid.bFloats;
  const int64_t rows = smaller(arguments.m - m0, grid.side);
  const int64_t columns = smaller(arguments.n - n0, grid.side);
  for (int64_t p = 0; p < arguments.k; p += kTileDepth) {
    const int64_t depth = smaller(arguments.k - p, kTileDepth);
    const BFloat16* fromA = product.a + m0 * product.aRow + p * product.aDepth;
    const BFloat16* fromB = product.b + p * product.bDepth + n0 * product.bColumn;
    const int64_t lda = arguments.transA ? rows : depth;
    const int64_t ldb = arguments.transB ? depth : columns;
    if (arguments.transA)
      widen(fromA, arguments.m, depth, rows, a);
    else
      widen(fromA, arguments.k, rows, depth, a);
    if (arguments.transB)
      widen(fromB, arguments.k, columns, depth, b);
    else
      widen(fromB, arguments.n, depth, columns, b);
    if (!multiply(arguments.transA, arguments.transB, rows, columns, depth, 1.0f, a, lda, b, ldb,
                  p == 0 ? 0.0f : 1.0f, sums, columns))
      return false;
  }
  const auto* bias = static_cast<const BFloat16*>(arguments.bias);
  finish(arguments, arguments.alpha, arguments.beta, sums, columns,
         product.y + m0 * arguments.n + n0, bias == nullptr ? bias : bias + n0, rows, columns);
  return true;
}

void multiplyTiles(const MatmulArgs& arguments, CpuContext& context) {
  const TileGrid grid(arguments, context.pool.threads());
  const int64_t perBatch = grid.perBatch();
  const int64_t work = larger(1, grid.sumFloats * arguments.k);
  bool failed = false;
  context.pool.parallelFor(
      arguments.batch * perBatch, larger(1, kGrain / work), [&](int64_t begin, int64_t end) {
        auto* scratch = static_cast<float*>(std::malloc(grid.scratchBytes()));
        bool done = scratch != nullptr;
        for (int64_t tile = begin; done && tile < end; ++tile)
          done = multiplyTile(arguments, grid, Product<BFloat16>(arguments, tile / perBatch),
                              tile % perBatch % grid.rows * grid.side,
                              tile % perBatch / grid.rows * grid.side, scratch);
        std::free(scratch);
        if (!done) __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
      });
  if (failed) failForMemory(context);
}

// Whether packing costs more than it saves. Limits are where the two ways took the same time.
bool isDirect(const MatmulArgs& arguments) {
  if (arguments.k == 0) return true;
  const double work = static_cast<double>(arguments.m) * static_cast<double>(arguments.n) *
                      static_cast<double>(arguments.k);
#if defined(DIDR_BLAS_OPENBLAS)
  // OpenBLAS has kernels of its own for products that stay in the cache.
  if (work < 0x1p20) return false;
  return arguments.m <= (arguments.transB ? 8 : 16) || (arguments.n == 1 && !arguments.transA);
#else
  if (arguments.m <= (arguments.transB ? 4 : 12)) return true;
  if (arguments.n <= (arguments.transB ? 8 : 16) && !arguments.transA) return true;
  return !arguments.transB && work <= 8192;
#endif
}

}  // namespace

void matmulCpu(const MatmulArgs& arguments, CpuContext& context) {
  if (arguments.m == 0 || arguments.n == 0 || arguments.batch == 0) return;
  const bool isFloat = arguments.dtype == DType::kFloat32;
  if (isDirect(arguments)) {
    if (isFloat) return direct<float>(arguments, context);
    return direct<BFloat16>(arguments, context);
  }
  if (isFloat) return multiplyPanels(arguments, context);
  multiplyTiles(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
