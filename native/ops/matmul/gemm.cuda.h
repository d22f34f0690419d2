// A block's float32 tile of a matrix product on CUDA: sums[row, column] = sum over p of a[row, p] b[p, column], for
// `matmul` and the convolutions, which say by an operand class where elements come from.
//
// A block of 256 threads makes kSide x kSide sums, each thread kOwn x kOwn of them in registers. Per step it takes kDepth
// columns of a and rows of b, 1024 elements each and so four per thread, through shared memory, where both lie with
// their sums' index innermost: per product a thread reads 2 kOwn floats for kOwn^2 fused multiply-adds. Two buffers take
// turns, so that the next step's elements are fetched while this one's are multiplied and a step costs one barrier.
// kSlices > 1 cuts a step among groups of threads that each hold a sum of their own for the whole tile: small results
// of long sums, which have too few tiles to fill a device, still have 256 threads each. Slices are added in order at the
// end. So every sum has one order, given by the shape of the tile.
//
// Bytes: (1/kSide + 1/kSide) elements per multiply-add from the caches, each operand once per row or column of tiles.
#pragma once

#include "native/core/cuda_vector.h"

namespace didr {

inline constexpr int kGemmThreads = 256;

template <int kSideOfTile, int kOwnOfThread, int kSlicesOfStep>
struct GemmTile {
  static constexpr int kSide = kSideOfTile;
  static constexpr int kOwn = kOwnOfThread;
  static constexpr int kSlices = kSlicesOfStep;
  static constexpr int kDepth = 4 * kGemmThreads / kSide;
  static constexpr int kThreadsAcross = kSide / kOwn;
  // That a multiprocessor should have registers for.
  static constexpr int kBlocks = kOwn == 8 || kSlices > 4 ? 2 : 3;
  static constexpr int kPitch = kSide + 4;  // rows stay aligned, and shift by four banks
  static_assert(kThreadsAcross * kThreadsAcross * kSlices == kGemmThreads);
  static_assert(kDepth % kSlices == 0);

  struct Buffers {
    alignas(16) float a[2][kDepth][kPitch];
    alignas(16) float b[2][kDepth][kPitch];
  };

  // Where a thread works.
  int slice, threadRow, threadColumn;

  __device__ explicit GemmTile(int thread)
      : slice(thread / (kThreadsAcross * kThreadsAcross)),
        threadRow(thread / kThreadsAcross % kThreadsAcross),
        threadColumn(thread % kThreadsAcross) {}

  // The tile's row, or column, of a thread's i-th: in groups of four, one group per quarter or half of the tile.
  __device__ static int ownAt(int threadAt, int i) {
    return i / 4 * 4 * kThreadsAcross + threadAt * 4 + i % 4;
  }
};

using LargeGemmTile = GemmTile<128, 8, 1>;
using MiddleGemmTile = GemmTile<64, 4, 1>;
using SmallGemmTile = GemmTile<32, 4, 4>;
using TinyGemmTile = GemmTile<16, 4, 16>;

// The depth from which a tiny tile earns the adding of its slices.
inline constexpr int64_t kLongSum = 256;

// The four elements that a thread fetches per step: neighbours along the sum where `alongDepth`, else along the rows of
// a or the columns of b. `extent` and `depth` are those of the first, within the tile.
struct GemmChunk {
  int extent, depth;

  template <class Tile>
  __device__ static GemmChunk of(int thread, bool alongDepth) {
    if (alongDepth) return {thread / (Tile::kDepth / 4), thread % (Tile::kDepth / 4) * 4};
    return {thread % (Tile::kSide / 4) * 4, thread / (Tile::kSide / 4)};
  }
};

template <class Tile>
__device__ void putChunk(float (&buffer)[Tile::kDepth][Tile::kPitch], const GemmChunk& chunk,
                         bool alongDepth, const float (&x)[4]) {
  if (alongDepth) {
#pragma unroll
    for (int i = 0; i < 4; ++i) buffer[chunk.depth + i][chunk.extent] = x[i];
  } else {
    *reinterpret_cast<float4*>(&buffer[chunk.depth][chunk.extent]) =
        make_float4(x[0], x[1], x[2], x[3]);
  }
}

template <class Tile>
__device__ void takeOwn(const float (&row)[Tile::kPitch], int threadAt, float (&x)[Tile::kOwn]) {
#pragma unroll
  for (int i = 0; i < Tile::kOwn; i += 4) {
    const float4 v = *reinterpret_cast<const float4*>(&row[Tile::ownAt(threadAt, i)]);
    x[i] = v.x;
    x[i + 1] = v.y;
    x[i + 2] = v.z;
    x[i + 3] = v.w;
  }
}

template <int kOwn>
__device__ void addProducts(const float (&left)[kOwn], const float (&right)[kOwn],
                            float (&sums)[kOwn][kOwn]) {
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
#pragma unroll
    for (int j = 0; j < kOwn; ++j) sums[i][j] = __fmaf_rn(left[i], right[j], sums[i][j]);
  }
}

// An operand has `bool alongDepth() const`, `GemmChunk chunk` and `void load(int64_t depth, float (&x)[4])`, which gives
// the four elements of its chunk in the step that begins at `depth`, zeros outside the matrix.
template <class Tile, class A, class B>
__device__ void multiplyTile(const Tile& tile, typename Tile::Buffers& buffers, const A& a,
                             const B& b, int64_t depth, float (&sums)[Tile::kOwn][Tile::kOwn]) {
#pragma unroll
  for (int i = 0; i < Tile::kOwn; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kOwn; ++j) sums[i][j] = 0.0f;
  }
  float nextA[4], nextB[4];
  int buffer = 0;
  // One round fetches what the next one multiplies.
#pragma unroll 1
  for (int64_t next = 0;; next += Tile::kDepth, buffer ^= 1) {
    const bool more = next < depth;
    if (more) {
      a.load(next, nextA);
      b.load(next, nextB);
    }
    if (next > 0) {
      constexpr int kSliceDepth = Tile::kDepth / Tile::kSlices;
#pragma unroll
      for (int p = 0; p < kSliceDepth; ++p) {
        const int at = tile.slice * kSliceDepth + p;
        float left[Tile::kOwn], right[Tile::kOwn];
        takeOwn<Tile>(buffers.a[buffer ^ 1][at], tile.threadRow, left);
        takeOwn<Tile>(buffers.b[buffer ^ 1][at], tile.threadColumn, right);
        addProducts(left, right, sums);
      }
    }
    if (more) {
      putChunk<Tile>(buffers.a[buffer], a.chunk, a.alongDepth(), nextA);
      putChunk<Tile>(buffers.b[buffer], b.chunk, b.alongDepth(), nextB);
    }
    __syncthreads();
    if (!more) return;
  }
}

// Calls finish(row, column, x) for every four neighbouring sums of a row of the tile, slices added in order. Through
// shared memory, the buffers, as many rows at a time as they hold: neighbouring threads get neighbouring columns, and what
// `finish` does is compiled once instead of once per register.
template <class Tile, class Finish>
__device__ void finishTile(const Tile& tile, typename Tile::Buffers& buffers,
                           const float (&sums)[Tile::kOwn][Tile::kOwn], const Finish& finish) {
  constexpr int kGroupRows = 4 * Tile::kThreadsAcross;
  constexpr int kRows = Tile::kOwn == 8 ? kGroupRows / 2 : kGroupRows;
  static_assert(kRows * Tile::kPitch * sizeof(float) <= sizeof buffers);
  auto* const rows = reinterpret_cast<float(*)[Tile::kPitch]>(&buffers);
#pragma unroll
  for (int group = 0; group < Tile::kOwn / 4; ++group) {
#pragma unroll 1
    for (int first = 0; first < kGroupRows; first += kRows) {
      const int row = 4 * tile.threadRow - first;
      const bool mine = row >= 0 && row < kRows;
#pragma unroll 1
      for (int slice = 0; slice < Tile::kSlices; ++slice) {
        if (mine && tile.slice == slice) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < Tile::kOwn; j += 4) {
              const float(&own)[Tile::kOwn] = sums[4 * group + i];
              auto* const at =
                  reinterpret_cast<float4*>(&rows[row + i][Tile::ownAt(tile.threadColumn, j)]);
              const float4 sum = slice == 0 ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : *at;
              *at = make_float4(sum.x + own[j], sum.y + own[j + 1], sum.z + own[j + 2],
                                sum.w + own[j + 3]);
            }
          }
        }
        __syncthreads();
      }
      constexpr int kAcross = Tile::kSide / 4;
#pragma unroll 1
      for (int i = static_cast<int>(threadIdx.x); i < kRows * kAcross; i += kGemmThreads) {
        float x[4];
        loadVector(&rows[i / kAcross][i % kAcross * 4], x);
        finish(group * kGroupRows + first + i / kAcross, i % kAcross * 4, x);
      }
      __syncthreads();
    }
  }
}

// Tiles of a batch of matrices in the order that blocks take them: bands of eight rows of tiles, column by column, so
// that the blocks which run together share what they read.
struct GemmGrid {
  int64_t rows, columns, count;  // of tiles: down, across, in all

  GemmGrid(int64_t m, int64_t n, int64_t batch, int64_t side)
      : rows((m + side - 1) / side),
        columns((n + side - 1) / side),
        count(batch * rows * columns) {}

  struct Place {
    int64_t batch, row, column;
  };
  __device__ Place at(int64_t tile) const {
    constexpr int64_t kBand = 8;
    const int64_t batch = tile / (rows * columns);
    const int64_t inBatch = tile - batch * rows * columns;
    const int64_t band = inBatch / (kBand * columns);
    const int64_t inBand = inBatch - band * kBand * columns;
    const int64_t left = rows - band * kBand;
    const int64_t high = left < kBand ? left : kBand;
    return {batch, band * kBand + inBand % high, inBand / high};
  }

  // A block takes every gridDim.x-th tile.
  unsigned blocks() const { return static_cast<unsigned>(count < 0x7fffffff ? count : 0x7fffffff); }
};

}  // namespace didr
