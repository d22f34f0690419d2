// Rotary position embedding of interleaved pairs on CUDA, see rope.h.
//
// A row of threads (a warp for small rows, up to 256 threads for large ones) takes a row of x: all
// its heads share the row's angles, which after the first head come from the first cache. A thread
// takes vectors of 16 bytes, whole pairs, and rotates them as the CPU does, bit by bit. Bytes per
// element: x read, y written; the angles of a row once per multiprocessor.
#include "native/ops/nn/rope.h"
#include "native/ops/nn/vectors.cuda.h"

namespace didr {
namespace {

constexpr unsigned kThreads = 256;

// The angles of the pairs of one vector.
template <int kPairs>
__device__ void loadAngles(const float* source, const VectorPart& part, float (&angles)[kPairs]) {
  if (part.whole && kPairs == 4) {
    const float4 v = *reinterpret_cast<const float4*>(source);
    angles[0] = v.x;
    angles[1] = v.y;
    angles[kPairs - 2] = v.z;
    angles[kPairs - 1] = v.w;
  } else {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) angles[i] = part.has(2 * i) ? source[i] : 0.0f;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) ropeKernel(RopeArgs arguments) {
  constexpr int V = kVector<T>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= arguments.rows) return;
  const int64_t begin = row * arguments.heads * arguments.size;
  const int64_t angles = row % arguments.tableRows * (arguments.size / 2);
  // 32 bits count the vectors of a row: 2^32 of them would be 64 GB.
  const auto perHead = static_cast<unsigned>(vectorsPerRow<T>(arguments.size));
  const auto vectors = static_cast<unsigned>(arguments.heads) * perHead;
  for (unsigned vector = threadIdx.x; vector < vectors; vector += blockDim.x) {
    const unsigned head = vector / perHead;
    const int64_t column = int64_t{vector - head * perHead} * V;
    const VectorPart part = partOfRow<T>(arguments.size, column);
    const int64_t at = begin + head * arguments.size + column;
    float x[V], cos[V / 2], sin[V / 2];
    loadPart(static_cast<const T*>(arguments.x) + at, part, x);
    loadAngles(arguments.cos + angles + column / 2, part, cos);
    loadAngles(arguments.sin + angles + column / 2, part, sin);
#pragma unroll
    for (int i = 0; i < V / 2; ++i) {
      const float s = arguments.inverse ? -sin[i] : sin[i];
      const float even = x[2 * i];
      const float odd = x[2 * i + 1];
      x[2 * i] = __fmaf_rn(odd, -s, even * cos[i]);
      x[2 * i + 1] = __fmaf_rn(even, s, odd * cos[i]);
    }
    storePart(static_cast<T*>(arguments.y) + at, part, x);
  }
}

template <class T>
void launchRope(const RopeArgs& arguments, CudaContext& context) {
  const unsigned threads = rowThreads(arguments.heads * vectorsPerRow<T>(arguments.size), kThreads);
  const unsigned perBlock = rowsPerBlock(threads);
  context.launch("rope", ropeKernel<T>, blocksFor(arguments.rows, perBlock),
                 dim3(threads, perBlock), arguments);
}

}  // namespace

void ropeCuda(const RopeArgs& arguments, CudaContext& context) {
  if (arguments.rows <= 0 || arguments.heads <= 0 || arguments.size <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchRope<float>(arguments, context);
  else
    launchRope<BFloat16>(arguments, context);
}

}  // namespace didr
