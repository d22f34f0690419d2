// silu(a) b and its backward pass on CUDA, see swi_glu.h.
//
// A grid-stride loop over vectors of 16 bytes; the last may be partial. silu and its derivative share
// a sigmoid, with the CPU's bits (cuda_math.h): about 30 instructions per element, so that large
// float32 tensors are bound by memory. Bytes per element: a and b read, y written; backward a, b and
// dy read, da and db written.
#include "native/ops/nn/silu.cuda.h"
#include "native/ops/nn/swi_glu.h"
#include "native/ops/nn/vectors.cuda.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) swiGluKernel(SwiGluArgs arguments) {
  constexpr int V = kVector<T>;
  forEachPart<T>(arguments.count, [&](int64_t first, const VectorPart& part) {
    float a[V], b[V];
    loadPart(static_cast<const T*>(arguments.a) + first, part, a);
    loadPart(static_cast<const T*>(arguments.b) + first, part, b);
#pragma unroll
    for (int i = 0; i < V; ++i) a[i] = scalar::silu(a[i]) * b[i];
    storePart(static_cast<T*>(arguments.y) + first, part, a);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads) swiGluBackwardKernel(SwiGluBackwardArgs arguments) {
  constexpr int V = kVector<T>;
  forEachPart<T>(arguments.count, [&](int64_t first, const VectorPart& part) {
    float a[V], b[V], dy[V];
    loadPart(static_cast<const T*>(arguments.a) + first, part, a);
    loadPart(static_cast<const T*>(arguments.b) + first, part, b);
    loadPart(static_cast<const T*>(arguments.dy) + first, part, dy);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const Silu silu = siluWithSlope(a[i]);
      a[i] = dy[i] * b[i] * silu.slope;
      b[i] = dy[i] * silu.value;
    }
    storePart(static_cast<T*>(arguments.da) + first, part, a);
    storePart(static_cast<T*>(arguments.db) + first, part, b);
  });
}

}  // namespace

void swiGluCuda(const SwiGluArgs& arguments, CudaContext& context) {
  if (arguments.count <= 0) return;
  const bool wide = arguments.dtype == DType::kFloat32;
  const unsigned blocks = context.gridStrideBlocks(
      arguments.count, kThreads * (wide ? kVector<float> : kVector<BFloat16>));
  context.launch("swiGlu", wide ? swiGluKernel<float> : swiGluKernel<BFloat16>, blocks, kThreads,
                 arguments);
}

void swiGluBackwardCuda(const SwiGluBackwardArgs& arguments, CudaContext& context) {
  if (arguments.count <= 0) return;
  const bool wide = arguments.dtype == DType::kFloat32;
  const unsigned blocks = context.gridStrideBlocks(
      arguments.count, kThreads * (wide ? kVector<float> : kVector<BFloat16>));
  context.launch("swiGluBackward",
                 wide ? swiGluBackwardKernel<float> : swiGluBackwardKernel<BFloat16>, blocks,
                 kThreads, arguments);
}

}  // namespace didr
