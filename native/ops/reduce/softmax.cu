// `softmax` on CUDA. Contract: softmax.h; the largest element and the sum of exponentials:
// accumulate.cuda.h.
//
//   rows      inner = 1: a row of threads (a warp for short axes, up to 512 threads for long ones)
//             per slice. Slices of up to 8192 elements that begin at vectors stay in registers
//             between the two passes: x is read once. Longer ones, and those at odd addresses, are
//             read twice, the second time mostly from the second cache.
//   columns   inner > 1: a block of up to 256 threads, side by side along inner and one behind the
//             other along the axis; x is read twice, the second time mostly from the caches
// Exponentials are float32; an element of a slice in registers takes one and a rescaling, the
// others two. Sums are float64, in an order that the shape alone fixes. Bytes per element: x read
// once (or twice), y written once.
#include "native/ops/reduce/accumulate.cuda.h"
#include "native/ops/reduce/softmax.h"

namespace didr {
namespace {

constexpr int kRowThreads = 512;
constexpr int kHeldElements = 16;  // of a thread

// exp(x - shift) scale.
struct Normaliser {
  float shift;
  float scale;

  explicit __device__ Normaliser(const LogSumExp& total) : shift(total.shift()) {
    const float sum = static_cast<float>(total.sum);
    scale = scalar::isNonFinite(sum) ? sum - sum : 1.0f / sum;  // neither infinity nor NaN divides
  }
  __device__ float operator()(float x) const { return scalar::exp(x - shift) * scale; }
};

template <class T>
__global__ void __launch_bounds__(kRowThreads, 2) softmaxRowsKernel(SoftmaxArgs arguments) {
  constexpr int V = kVector<T>;
  constexpr int kHeld = kHeldElements / V;
  constexpr ReduceMode kPlain = {false, 0, 1.0};
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool present = row < arguments.outer;
  const int64_t count = present ? arguments.axis : 0;
  const T* const x = static_cast<const T*>(arguments.x) + row * arguments.axis;
  T* const y = static_cast<T*>(arguments.y) + row * arguments.axis;
  LogSumExp total = LogSumExp::identity();

  // The same for every row: barriers are below.
  if (arguments.axis % V == 0 && arguments.axis <= int64_t{blockDim.x} * kHeldElements) {
    float held[kHeld][V];
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const int64_t first = (int64_t{k} * blockDim.x + threadIdx.x) * V;
      if (first >= count) continue;
      loadVector(x + first, held[k]);
      addVector(total, held[k], first, kPlain);
    }
    const Normaliser normalise(mergeRow(total));
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const int64_t first = (int64_t{k} * blockDim.x + threadIdx.x) * V;
      if (first >= count) continue;
#pragma unroll
      for (int v = 0; v < V; ++v) held[k][v] = normalise(held[k][v]);
      storeVector(y + first, held[k]);
    }
    return;
  }

  addRow(total, x, 0, count, kPlain);
  const Normaliser normalise(mergeRow(total));
  const int64_t whole = isAligned<T, V>(x) && isAligned<T, V>(y) ? count / V * V : 0;
  for (int64_t i = int64_t{threadIdx.x} * V; i < whole; i += int64_t{blockDim.x} * V) {
    float values[V];
    loadVector(x + i, values);
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = normalise(values[v]);
    storeVector(y + i, values);
  }
  for (int64_t i = whole + threadIdx.x; i < count; i += blockDim.x)
    storeElement(y + i, normalise(toFloat(x[i])));
}

template <class T>
__global__ void __launch_bounds__(kColumnThreads)
    softmaxColumnsKernel(SoftmaxArgs arguments, int64_t chunks) {
  constexpr int V = kVector<T>;
  constexpr ReduceMode kPlain = {false, 0, 1.0};
  const int64_t number = int64_t{blockIdx.x} * blockDim.z + threadIdx.z;
  const int64_t outer = number / chunks;
  const int64_t rows = outer < arguments.outer ? arguments.axis : 0;
  const ColumnSet<V> columns(number - outer * chunks, arguments.inner);
  const int64_t slice = outer * arguments.axis * arguments.inner;
  const T* const x = static_cast<const T*>(arguments.x) + slice;
  T* const y = static_cast<T*>(arguments.y) + slice;
  LogSumExp totals[V];
#pragma unroll
  for (int v = 0; v < V; ++v) totals[v] = LogSumExp::identity();
  for (int64_t a = threadIdx.y; a < rows; a += blockDim.y) {
    float values[V];
    loadColumns(x + a * arguments.inner, columns, values);
#pragma unroll
    for (int v = 0; v < V; ++v) totals[v].add(values[v], a, kPlain);
  }
  float shifts[V], scales[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const Normaliser normalise(mergeColumn(totals[v]));
    shifts[v] = normalise.shift;
    scales[v] = normalise.scale;
  }
  for (int64_t a = threadIdx.y; a < rows; a += blockDim.y) {
    float values[V];
    loadColumns(x + a * arguments.inner, columns, values);
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = scalar::exp(values[v] - shifts[v]) * scales[v];
    T* const row = y + a * arguments.inner;
    if (columns.vector) {
      storeVector(row + columns.first, values);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v)
        if (v < columns.count) storeElement(row + columns.column(v), values[v]);
    }
  }
}

template <class T>
void launchSoftmax(const SoftmaxArgs& arguments, CudaContext& context) {
  if (arguments.inner == 1) {
    // Slices in registers: as few threads as hold them.
    const unsigned threads =
        rowThreads((arguments.axis + kHeldElements - 1) / kHeldElements, kRowThreads);
    const unsigned rows = rowsPerBlock(threads);
    context.launch("softmax", softmaxRowsKernel<T>, blocksFor(arguments.outer, rows),
                   dim3(threads, rows), arguments);
    return;
  }
  const ColumnBlock block = columnBlock<T>(arguments.outer, arguments.axis, arguments.inner);
  context.launch("softmax", softmaxColumnsKernel<T>, dim3(static_cast<unsigned>(block.blocks)),
                 block.threads, arguments, block.chunks);
}

}  // namespace

void softmaxCuda(const SoftmaxArgs& arguments, CudaContext& context) {
  if (arguments.outer * arguments.axis * arguments.inner == 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchSoftmax<float>(arguments, context);
  else
    launchSoftmax<BFloat16>(arguments, context);
}

}  // namespace didr
