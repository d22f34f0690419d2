// Rows of a table and the sum of their gradients on CUDA, see embedding.h.
//
// Forward, a grid-stride loop over vectors of 16 bytes of y. Backward, a warp per row of the table:
// it looks through the ids, 32 at a time, and adds the rows of dy whose id is its own in their
// order, 512 columns at a time in registers; the ids come from the caches, and a row that no id
// names is cleared after one look. Bytes per element: forward the table's row read, y written;
// backward dy read, dTable written. Ids outside the table are counted by integer atomics.
#include "native/ops/nn/embedding.h"
#include "native/ops/nn/vectors.cuda.h"

namespace didr {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kLaneVectors = 4;  // vectors of a row that a lane sums at a time

template <class T>
__global__ void __launch_bounds__(kThreads)
    embeddingKernel(EmbeddingArgs arguments, RowStride stride) {
  constexpr int V = kVector<T>;
  forEachVectorOfRows(
      arguments.count, vectorsPerRow<T>(arguments.size), stride, [&](int64_t row, int64_t vector) {
        const int64_t column = vector * V;
        const VectorPart part = partOfRow<T>(arguments.size, column);
        const int64_t id = arguments.ids[row];
        const bool inside = id >= 0 && id < arguments.vocabulary;
        if (!inside && vector == 0) atomicAdd(arguments.outside, 1);
        float x[V];
        if (inside) {
          loadPart(static_cast<const T*>(arguments.table) + id * arguments.size + column, part, x);
        } else {
#pragma unroll
          for (int i = 0; i < V; ++i) x[i] = floatOf(0x7fc00000u);
        }
        storePart(static_cast<T*>(arguments.y) + row * arguments.size + column, part, x);
      });
}

__global__ void __launch_bounds__(kThreads)
    embeddingBackwardKernel(EmbeddingBackwardArgs arguments) {
  constexpr int V = kVector<float>;
  constexpr int64_t kStep = int64_t{kWarpThreads} * V;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= arguments.vocabulary) return;
  bool named = true;
  for (int64_t begin = 0; begin < arguments.size; begin += kLaneVectors * kStep) {
    float sums[kLaneVectors][V] = {};
    const int64_t looked = named ? arguments.count : 0;
    named = false;
    for (int64_t first = 0; first < looked; first += kWarpThreads) {
      const int64_t own = first + threadIdx.x;
      unsigned matches = __ballot_sync(~0u, own < looked && arguments.ids[own] == row);
      named = named || matches != 0;
      for (; matches != 0; matches &= matches - 1) {
        const int64_t at = first + __popc((matches - 1) & ~matches);  // of the lowest bit
#pragma unroll
        for (int k = 0; k < kLaneVectors; ++k) {
          const int64_t column = begin + k * kStep + static_cast<int64_t>(threadIdx.x) * V;
          float dy[V];
          loadPart(arguments.dy + at * arguments.size + column,
                   partOfRow<float>(arguments.size, column), dy);
#pragma unroll
          for (int i = 0; i < V; ++i) sums[k][i] += dy[i];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kLaneVectors; ++k) {
      const int64_t column = begin + k * kStep + static_cast<int64_t>(threadIdx.x) * V;
      storePart(arguments.dTable + row * arguments.size + column,
                partOfRow<float>(arguments.size, column), sums[k]);
    }
  }
}

template <class T>
void launchEmbedding(const EmbeddingArgs& arguments, CudaContext& context) {
  const int64_t vectors = vectorsPerRow<T>(arguments.size);
  const unsigned blocks = context.gridStrideBlocks(arguments.count * vectors, kThreads);
  context.launch("embedding", embeddingKernel<T>, blocks, kThreads, arguments,
                 rowStride(vectors, int64_t{blocks} * kThreads));
}

}  // namespace

void embeddingCuda(const EmbeddingArgs& arguments, CudaContext& context) {
  context.zero("embedding", arguments.outside, sizeof(int32_t));
  if (arguments.count <= 0 || arguments.size <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchEmbedding<float>(arguments, context);
  else
    launchEmbedding<BFloat16>(arguments, context);
}

void embeddingBackwardCuda(const EmbeddingBackwardArgs& arguments, CudaContext& context) {
  if (arguments.vocabulary <= 0 || arguments.size <= 0) return;
  constexpr unsigned kRows = kThreads / kWarpThreads;
  context.launch("embeddingBackward", embeddingBackwardKernel,
                 blocksFor(arguments.vocabulary, kRows), dim3(kWarpThreads, kRows), arguments);
}

}  // namespace didr
