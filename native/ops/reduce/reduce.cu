// `reduce` on CUDA. Contract: reduce.h; what is accumulated: accumulate.cuda.h.
//
//   rows      inner = 1: a row of threads (a warp for short axes, up to 256 threads for long ones)
//             per result, which reads vectors of 16 bytes where rows begin at them
//   columns   inner > 1: a block of up to 256 threads, side by side along inner (16 bytes each
//             where rows begin at them) and one behind the other along the axis
// An axis with few results is cut into sections (reduceSections); their accumulators go through the
// workspace, and one warp per result merges them in a second launch. Lanes merge by butterflies,
// warps in order, rows by a tree: the order depends on the shape alone. Sums are float64, one
// operation per element; devices with few float64 units are bound by them, the others by memory.
// Bytes per element: x read once.
#include <type_traits>

#include "native/ops/reduce/accumulate.cuda.h"
#include "native/ops/reduce/reduce.h"

namespace didr {
namespace {

constexpr int kRowThreads = 256;
constexpr int kMergeThreads = 256;

__device__ inline void storeReduced(const ReduceArgs& arguments, int64_t at, float x) {
  if (arguments.dtype == DType::kFloat32)
    storeElement(static_cast<float*>(arguments.y) + at, x);
  else
    storeElement(static_cast<BFloat16*>(arguments.y) + at, x);
}
__device__ inline void storeReduced(const ReduceArgs& arguments, int64_t at, int32_t x) {
  static_cast<int32_t*>(arguments.y)[at] = x;
}

// The elements of the axis in section `number`.
__device__ inline int64_t lengthOf(const ReduceArgs& arguments, const ReduceSections& sections,
                                   int64_t number) {
  const int64_t left = arguments.axis - number * sections.length;
  return left < sections.length ? left : sections.length;
}

template <class Accumulator>
__device__ void keep(const ReduceArgs& arguments, const ReduceSections& sections, int64_t at,
                     const Accumulator& total, const ReduceMode& mode) {
  static_assert(sizeof(Accumulator) <= 16, "reduceWorkspace has 16 bytes for each");
  if (sections.count == 1)
    storeReduced(arguments, at, total.result(mode));
  else
    static_cast<Accumulator*>(arguments.workspace)[at] = total;
}

template <class Accumulator, class T>
__global__ void __launch_bounds__(kRowThreads, 4)
    reduceRowsKernel(ReduceArgs arguments, ReduceSections sections, ReduceMode mode) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int64_t outer = sections.count == 1 ? row : row / sections.count;
  const bool present = outer < arguments.outer;
  Accumulator total = Accumulator::identity();
  if (present) {
    const int64_t section = row - outer * sections.count;
    const int64_t first = section * sections.length;
    addRow(total, static_cast<const T*>(arguments.x) + outer * arguments.axis + first, first,
           lengthOf(arguments, sections, section), mode);
  }
  total = mergeRow(total);
  if (present && threadIdx.x == 0) keep(arguments, sections, row, total, mode);
}

template <class Accumulator, class T>
__global__ void __launch_bounds__(kColumnThreads)
    reduceColumnsKernel(ReduceArgs arguments, ReduceSections sections, int64_t chunks,
                        ReduceMode mode) {
  constexpr int V = kVector<T>;
  const int64_t number = int64_t{blockIdx.x} * blockDim.z + threadIdx.z;
  const int64_t slice = number / chunks;
  const int64_t outer = sections.count == 1 ? slice : slice / sections.count;
  const bool present = outer < arguments.outer;
  const ColumnSet<V> columns(number - slice * chunks, arguments.inner);
  Accumulator totals[V];
#pragma unroll
  for (int v = 0; v < V; ++v) totals[v] = Accumulator::identity();
  if (present) {
    const int64_t section = slice - outer * sections.count;
    const int64_t first = section * sections.length;
    const int64_t end = first + lengthOf(arguments, sections, section);
    const T* const x =
        static_cast<const T*>(arguments.x) + outer * arguments.axis * arguments.inner;
    for (int64_t a = first + threadIdx.y; a < end; a += blockDim.y) {
      ValueOf<T> values[V];
      loadColumns(x + a * arguments.inner, columns, values);
#pragma unroll
      for (int v = 0; v < V; ++v) totals[v].add(values[v], a, mode);
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const Accumulator total = mergeColumn(totals[v]);
    if (present && threadIdx.y == 0 && v < columns.count)
      keep(arguments, sections, slice * arguments.inner + columns.column(v), total, mode);
  }
}

// One warp per result.
template <class Accumulator>
__global__ void __launch_bounds__(kMergeThreads)
    mergeSectionsKernel(ReduceArgs arguments, ReduceSections sections, ReduceMode mode) {
  const int64_t at = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool present = at < arguments.outer * arguments.inner;
  Accumulator total = Accumulator::identity();
  if (present) {
    const int64_t outer = at / arguments.inner;
    const Accumulator* const partials = static_cast<const Accumulator*>(arguments.workspace) +
                                        outer * sections.count * arguments.inner +
                                        (at - outer * arguments.inner);
    for (int64_t s = threadIdx.x; s < sections.count; s += kWarpThreads)
      total = Accumulator::merge(total, partials[s * arguments.inner]);
  }
  total = mergeRow(total);
  if (present && threadIdx.x == 0) storeReduced(arguments, at, total.result(mode));
}

template <class Accumulator, class T>
void reduceWith(const ReduceArgs& arguments, CudaContext& context) {
  const ReduceSections sections = reduceSections(arguments.outer, arguments.axis, arguments.inner);
  ReduceMode mode = {arguments.kind == Reduce::kSumSquares, 0, 1.0};
  if (arguments.kind == Reduce::kMin)
    mode.flip = arguments.dtype == DType::kInt32 ? 0xffffffffu : 0x80000000u;
  if (arguments.kind == Reduce::kMean) mode.divisor = static_cast<double>(arguments.axis);
  const int64_t slices = arguments.outer * sections.count;
  if (arguments.inner == 1) {
    const unsigned threads = rowThreads(sections.length / kVector<T>, kRowThreads);
    const unsigned rows = rowsPerBlock(threads);
    context.launch("reduce", reduceRowsKernel<Accumulator, T>, blocksFor(slices, rows),
                   dim3(threads, rows), arguments, sections, mode);
  } else {
    const ColumnBlock block = columnBlock<T>(slices, sections.length, arguments.inner);
    context.launch("reduce", reduceColumnsKernel<Accumulator, T>,
                   dim3(static_cast<unsigned>(block.blocks)), block.threads, arguments, sections,
                   block.chunks, mode);
  }
  if (sections.count == 1) return;
  constexpr unsigned kRows = kMergeThreads / kWarpThreads;
  context.launch("reduce's sections", mergeSectionsKernel<Accumulator>,
                 blocksFor(arguments.outer * arguments.inner, kRows), dim3(kWarpThreads, kRows),
                 arguments, sections, mode);
}

template <class T>
void reduceAs(const ReduceArgs& arguments, CudaContext& context) {
  using Value = decltype(valueOf(T{}));
  switch (arguments.kind) {
    case Reduce::kSum:
    case Reduce::kMean:
    case Reduce::kSumSquares:
      return reduceWith<Sum<Value>, T>(arguments, context);
    case Reduce::kMax:
    case Reduce::kMin:
      return reduceWith<Largest<Value>, T>(arguments, context);
    case Reduce::kArgMax:
      return reduceWith<IndexOfLargest<Value>, T>(arguments, context);
    case Reduce::kLogSumExp:
      if constexpr (std::is_same_v<Value, float>) reduceWith<LogSumExp, T>(arguments, context);
      return;
  }
}

}  // namespace

void reduceCuda(const ReduceArgs& arguments, CudaContext& context) {
  if (arguments.outer * arguments.inner == 0) return;
  switch (arguments.dtype) {
    case DType::kFloat32:
      return reduceAs<float>(arguments, context);
    case DType::kBFloat16:
      return reduceAs<BFloat16>(arguments, context);
    case DType::kInt32:
      return reduceAs<int32_t>(arguments, context);
    case DType::kFloat16:
    case DType::kUint8:
      return;
  }
}

}  // namespace didr
