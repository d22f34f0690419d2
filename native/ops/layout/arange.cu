// `arange` on CUDA. Contract: arange.h.
//
// A thread makes 16 bytes of the result at a time, in a grid-stride loop; nothing is read. Every
// element comes from its index in float64, one product and one sum. Bytes per element: writes its
// size.
#include "native/core/cuda_packed.h"
#include "native/core/cuda_vector.h"
#include "native/ops/layout/arange.h"
#include "native/ops/layout/scalar.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) arangeKernel(ArangeArgs arguments) {
  constexpr int V = kVector<T>;
  T* const y = static_cast<T*>(arguments.y);
  const int64_t step = int64_t{gridDim.x} * kThreads * V;
  for (int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * V; first < arguments.count;
       first += step) {
    Packed<T, V> elements;
    elements.clear();
#pragma unroll
    for (int i = 0; i < V; ++i)
      elements.set(i,
                   elementOf<T>(arguments.start + static_cast<double>(first + i) * arguments.step));
    if (first + V <= arguments.count)
      elements.store(y + first);
    else
      elements.storeSome(y + first, arguments.count - first);
  }
}

template <class T>
void launchArange(const ArangeArgs& arguments, CudaContext& context) {
  context.launch("arange", arangeKernel<T>,
                 context.gridStrideBlocks(arguments.count, kThreads * kVector<T>), kThreads,
                 arguments);
}

}  // namespace

void arangeCuda(const ArangeArgs& arguments, CudaContext& context) {
  if (arguments.count <= 0) return;
  switch (arguments.dtype) {
    case DType::kFloat32:
      return launchArange<float>(arguments, context);
    case DType::kBFloat16:
      return launchArange<BFloat16>(arguments, context);
    case DType::kFloat16:
      return launchArange<Float16>(arguments, context);
    case DType::kInt32:
      return launchArange<int32_t>(arguments, context);
    case DType::kUint8:
      return launchArange<uint8_t>(arguments, context);
  }
}

}  // namespace didr
