// Nearest-neighbour upsampling by two and its backward pass on CUDA, see upsample.h.
//
// A grid-stride loop over vectors of 16 bytes of the small image: a thread writes, or backward adds
// up, the two vectors of each of the two rows of the large image that belong to its own, so that
// every byte moves once. Sums in the order of the CPU: rows first, then pairs of columns.
#include "native/ops/nn/upsample.h"
#include "native/ops/nn/vectors.cuda.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    upsampleKernel(UpsampleArgs arguments, RowStride stride) {
  constexpr int V = kVector<T>;
  const int64_t width = arguments.width;
  forEachVectorOfRows(arguments.planes * arguments.height, vectorsPerRow<T>(width), stride,
                      [&](int64_t row, int64_t vector) {
                        const int64_t column = vector * V;
                        float x[V];
                        loadPart(static_cast<const T*>(arguments.x) + row * width + column,
                                 partOfRow<T>(width, column), x);
                        T* const y = static_cast<T*>(arguments.y) + 4 * row * width + 2 * column;
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                          float wide[V];
#pragma unroll
                          for (int i = 0; i < V; ++i) wide[i] = x[(half * V + i) / 2];
                          const VectorPart part = partOfRow<T>(2 * width, 2 * column + half * V);
                          storePart(y + half * V, part, wide);
                          storePart(y + 2 * width + half * V, part, wide);
                        }
                      });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    upsampleBackwardKernel(UpsampleBackwardArgs arguments, RowStride stride) {
  constexpr int V = kVector<T>;
  const int64_t width = arguments.width;
  forEachVectorOfRows(arguments.planes * arguments.height, vectorsPerRow<T>(width), stride,
                      [&](int64_t row, int64_t vector) {
                        const int64_t column = vector * V;
                        const T* const dy =
                            static_cast<const T*>(arguments.dy) + 4 * row * width + 2 * column;
                        float dx[V];
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                          const VectorPart part = partOfRow<T>(2 * width, 2 * column + half * V);
                          float above[V], below[V];
                          loadPart(dy + half * V, part, above);
                          loadPart(dy + 2 * width + half * V, part, below);
#pragma unroll
                          for (int i = 0; i < V / 2; ++i)
                            dx[half * V / 2 + i] = (above[2 * i] + below[2 * i]) +
                                                   (above[2 * i + 1] + below[2 * i + 1]);
                        }
                        storePart(static_cast<T*>(arguments.dx) + row * width + column,
                                  partOfRow<T>(width, column), dx);
                      });
}

template <class T, class Arguments>
void launchUpsample(const char* name, void (*kernel)(Arguments, RowStride),
                    const Arguments& arguments, CudaContext& context) {
  const int64_t rows = arguments.planes * arguments.height;
  if (rows <= 0 || arguments.width <= 0) return;
  const int64_t vectors = vectorsPerRow<T>(arguments.width);
  const unsigned blocks = context.gridStrideBlocks(rows * vectors, kThreads);
  context.launch(name, kernel, blocks, kThreads, arguments,
                 rowStride(vectors, int64_t{blocks} * kThreads));
}

}  // namespace

void upsampleNearest2xCuda(const UpsampleArgs& arguments, CudaContext& context) {
  if (arguments.dtype == DType::kFloat32)
    launchUpsample<float>("upsampleNearest2x", upsampleKernel<float>, arguments, context);
  else
    launchUpsample<BFloat16>("upsampleNearest2x", upsampleKernel<BFloat16>, arguments, context);
}

void upsampleNearest2xBackwardCuda(const UpsampleBackwardArgs& arguments, CudaContext& context) {
  if (arguments.dtype == DType::kFloat32)
    launchUpsample<float>("upsampleNearest2xBackward", upsampleBackwardKernel<float>, arguments,
                          context);
  else
    launchUpsample<BFloat16>("upsampleNearest2xBackward", upsampleBackwardKernel<BFloat16>,
                             arguments, context);
}

}  // namespace didr
