// Cross entropy and mean square error with their gradients on CUDA, see losses.h.
//
// crossEntropy: a row of threads (a warp for few classes, up to 256 threads for many) takes a row of
// logits in three passes, of which the first brings it into the caches: maximum, sum of
// exponentials, gradient. mse: a block takes a run of kMseRun elements, of which a thread sums 32 in
// float32. Both leave a partial loss per row or run, and a single block adds those in float64: a
// thread every 1024th, lanes in a butterfly, warps in order; so the order depends on the shape alone.
// Bytes per element: x (and y) read, gradient written.
#include "native/core/cuda_math.h"
#include "native/ops/nn/losses.h"
#include "native/ops/nn/vectors.cuda.h"

namespace didr {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kFinishThreads = 1024;

template <class T>
__global__ void __launch_bounds__(kThreads) crossEntropyKernel(CrossEntropyArgs arguments) {
  constexpr int V = kVector<T>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool present = row < arguments.rows;
  const int64_t classes = present ? arguments.classes : 0;
  const int64_t target = present ? arguments.targets[row] : 0;
  const T* const x = static_cast<const T*>(arguments.x) + row * arguments.classes;
  T* const gradient = static_cast<T*>(arguments.gradient) + row * arguments.classes;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * V;
  const int64_t step = static_cast<int64_t>(blockDim.x) * V;

  float largest = -scalar::infinity();
  float chosen = 0.0f;  // the target's logit, with the thread that has it
  for (int64_t column = begin; column < classes; column += step) {
    const VectorPart part = partOfRow<T>(classes, column);
    float values[V];
    loadPart(x + column, part, values);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (!part.has(i)) continue;
      largest = fmaxf(largest, values[i]);
      if (column + i == target) chosen = values[i];
    }
  }
  largest = rowMax(largest);
  chosen = rowSum(chosen);
  float total = 0.0f;
  for (int64_t column = begin; column < classes; column += step) {
    const VectorPart part = partOfRow<T>(classes, column);
    float values[V];
    loadPart(x + column, part, values);
#pragma unroll
    for (int i = 0; i < V; ++i)
      if (part.has(i)) total += scalar::exp(values[i] - largest);
  }
  total = rowSum(total);
  if (!present) return;
  const bool inside = target >= 0 && target < classes;
  if (threadIdx.x == 0) {
    arguments.partials[row] = inside ? scalar::log(total) - (chosen - largest) : scalar::nan();
    if (!inside) atomicAdd(arguments.outside, 1);
  }
  const float weight = 1.0f / static_cast<float>(arguments.rows);
  const float scale = weight / total;
  for (int64_t column = begin; column < classes; column += step) {
    const VectorPart part = partOfRow<T>(classes, column);
    float values[V];
    loadPart(x + column, part, values);
#pragma unroll
    for (int i = 0; i < V; ++i)
      values[i] = scalar::exp(values[i] - largest) * scale - (column + i == target ? weight : 0.0f);
    storePart(gradient + column, part, values);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) mseKernel(MseArgs arguments) {
  constexpr int V = kVector<T>;
  const int64_t begin = int64_t{blockIdx.x} * kMseRun;
  const int64_t left = arguments.count - begin;
  const int64_t length = left < kMseRun ? left : kMseRun;
  const float factor = 2.0f / static_cast<float>(arguments.count);
  float squares = 0.0f;
#pragma unroll 4
  for (int64_t first = static_cast<int64_t>(threadIdx.x) * V; first < length;
       first += kThreads * V) {
    const int64_t rest = length - first;
    const VectorPart part = {0, rest < V ? static_cast<int>(rest) : V, rest >= V};
    float x[V], y[V];
    loadPart(static_cast<const T*>(arguments.x) + begin + first, part, x);
    loadPart(static_cast<const T*>(arguments.y) + begin + first, part, y);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      x[i] -= y[i];  // zero outside the part
      squares = __fmaf_rn(x[i], x[i], squares);
      x[i] *= factor;
    }
    storePart(static_cast<T*>(arguments.gradient) + begin + first, part, x);
  }
  squares = rowSum(squares);
  if (threadIdx.x == 0) arguments.partials[blockIdx.x] = squares;
}

// The loss: the sum of the partial ones, divided by `count`.
__global__ void __launch_bounds__(kFinishThreads)
    meanLossKernel(const float* partials, int64_t partialCount, int64_t count, float* loss) {
  double total = 0.0;
  for (int64_t i = threadIdx.x; i < partialCount; i += kFinishThreads) total += partials[i];
  total = rowSum(total);
  if (threadIdx.x == 0) *loss = static_cast<float>(total / static_cast<double>(count));
}

template <class T>
void launchCrossEntropy(const CrossEntropyArgs& arguments, CudaContext& context) {
  const unsigned threads = rowThreads(vectorsPerRow<T>(arguments.classes), kThreads);
  const unsigned perBlock = rowsPerBlock(threads);
  context.launch("crossEntropy", crossEntropyKernel<T>, blocksFor(arguments.rows, perBlock),
                 dim3(threads, perBlock), arguments);
}

}  // namespace

void crossEntropyCuda(const CrossEntropyArgs& arguments, CudaContext& context) {
  context.zero("crossEntropy", arguments.outside, sizeof(int32_t));
  if (arguments.rows > 0) {
    if (arguments.dtype == DType::kFloat32)
      launchCrossEntropy<float>(arguments, context);
    else
      launchCrossEntropy<BFloat16>(arguments, context);
  }
  context.launch("crossEntropy's mean", meanLossKernel, 1, kFinishThreads, arguments.partials,
                 arguments.rows, arguments.rows, arguments.loss);
}

void mseCuda(const MseArgs& arguments, CudaContext& context) {
  const int64_t runs = msePartials(arguments.count);
  if (arguments.count > 0)
    context.launch("mse",
                   arguments.dtype == DType::kFloat32 ? mseKernel<float> : mseKernel<BFloat16>,
                   static_cast<unsigned>(runs), kThreads, arguments);
  context.launch("mse's mean", meanLossKernel, 1, kFinishThreads, arguments.partials, runs,
                 arguments.count, arguments.loss);
}

}  // namespace didr
