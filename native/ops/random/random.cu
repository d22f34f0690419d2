// Random draws on CUDA: the contracts of random.h, the same bits as the CPU kernels.
//
// A thread makes 16 bytes of the result at a time: one Philox block and one vector store for float32, two blocks for
// bfloat16, in a grid-stride loop; nothing is read. The last vector may be partial. Bytes per element: writes 4 or 2.
// Arithmetic-bound: about 10 integer multiplications per element for Philox, and 20 floating operations for a normal.
#include "native/core/cuda_vector.h"
#include "native/ops/random/normal.h"
#include "native/ops/random/philox.h"
#include "native/ops/random/random.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

struct UniformMap {
  float low, width, last;
  __device__ void operator()(const UniformArgs& arguments, uint64_t block, float* x) const {
    const PhiloxBlock words = philoxDraw(arguments.seed, arguments.offset, block);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = fminf(__fmaf_rn(width, uniformOf(words.word[i]), low), last);
  }
};

struct NormalMap {
  __device__ void operator()(const NormalArgs& arguments, uint64_t block, float* x) const {
    const NormalBlock normals = normalDraw(arguments.seed, arguments.offset, block);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = __fmaf_rn(arguments.std, normals.value[i], arguments.mean);
  }
};

template <class T, class Arguments, class Map>
__global__ void __launch_bounds__(kThreads) drawKernel(Arguments arguments, Map map) {
  constexpr int V = kVector<T>;
  T* const y = static_cast<T*>(arguments.y);
  const int64_t stride = int64_t{gridDim.x} * kThreads * V;
  for (int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * V; first < arguments.count;
       first += stride) {
    float x[V];
#pragma unroll
    for (int q = 0; q < V / 4; ++q) map(arguments, static_cast<uint64_t>(first / 4 + q), x + 4 * q);
    const int64_t left = arguments.count - first;
    storePart(y + first, {0, left < V ? static_cast<int>(left) : V, left >= V}, x);
  }
}

template <class Arguments, class Map>
void draw(const char* name, const Arguments& arguments, const Map& map, CudaContext& context) {
  if (arguments.count <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    context.launch(name, drawKernel<float, Arguments, Map>,
                   context.gridStrideBlocks(arguments.count, kThreads * kVector<float>), kThreads,
                   arguments, map);
  else
    context.launch(name, drawKernel<BFloat16, Arguments, Map>,
                   context.gridStrideBlocks(arguments.count, kThreads * kVector<BFloat16>),
                   kThreads, arguments, map);
}

// The largest float below `high`, as long as that is not below `low`.
float lastBelow(float high, float low) {
  if (!(low < high)) return high;
  const uint32_t bits = bitsOf(high);
  if (high == 0.0f) return floatOf(0x80000001u);
  return floatOf(high > 0.0f ? bits - 1u : bits + 1u);
}

}  // namespace

void uniformCuda(const UniformArgs& arguments, CudaContext& context) {
  draw("uniform", arguments,
       UniformMap{arguments.low, arguments.high - arguments.low,
                  lastBelow(arguments.high, arguments.low)},
       context);
}

void normalCuda(const NormalArgs& arguments, CudaContext& context) {
  draw("normal", arguments, NormalMap{}, context);
}

}  // namespace didr
