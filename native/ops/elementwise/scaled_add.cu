// `scaledAdd` on CUDA: y = a + scale b. Contract: scaled_add.h.
//
// A thread makes 16 bytes of y at a time, in a grid-stride loop; the last vector may be partial.
// Bytes per element: reads a and b once, writes y once.
#include "native/core/cuda_vector.h"
#include "native/ops/elementwise/scaled_add.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) scaledAddKernel(ScaledAddArgs arguments) {
  constexpr int V = kVector<T>;
  const T* const a = static_cast<const T*>(arguments.a);
  const T* const b = static_cast<const T*>(arguments.b);
  T* const y = static_cast<T*>(arguments.y);
  const int64_t step = int64_t{gridDim.x} * kThreads * V;
  for (int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * V; first < arguments.count;
       first += step) {
    const int64_t left = arguments.count - first;
    const VectorPart part = {0, left < V ? static_cast<int>(left) : V, left >= V};
    float p[V], q[V];
    loadPart(a + first, part, p);
    loadPart(b + first, part, q);
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] = __fmaf_rn(arguments.scale, q[i], p[i]);
    storePart(y + first, part, p);
  }
}

template <class T>
void launchScaledAdd(const ScaledAddArgs& arguments, CudaContext& context) {
  context.launch("scaledAdd", scaledAddKernel<T>,
                 context.gridStrideBlocks(arguments.count, kThreads * kVector<T>), kThreads,
                 arguments);
}

}  // namespace

void scaledAddCuda(const ScaledAddArgs& arguments, CudaContext& context) {
  if (arguments.count <= 0) return;
  if (arguments.dtype == DType::kBFloat16)
    launchScaledAdd<BFloat16>(arguments, context);
  else
    launchScaledAdd<float>(arguments, context);
}

}  // namespace didr
