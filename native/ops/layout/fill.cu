// `fill` on CUDA. Contract: fill.h.
//
// The element, repeated to 4 bytes, is stored 16 bytes at a time in a grid-stride loop; the bytes
// after the last 16 go one by one. Bytes per element: writes its size.
#include "native/core/cuda_launch.h"
#include "native/ops/layout/fill.h"
#include "native/ops/layout/scalar.h"

namespace didr {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kStoreBytes = 16;

__global__ void __launch_bounds__(kThreads) fillKernel(uint8_t* y, int64_t bytes, uint32_t word) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t stores = bytes / kStoreBytes;
  for (int64_t i = thread; i < stores; i += step)
    __stwb(reinterpret_cast<uint4*>(y) + i, make_uint4(word, word, word, word));
  const int64_t last = stores * kStoreBytes + thread;
  if (last < bytes) y[last] = static_cast<uint8_t>(word >> (8 * (last % 4)));
}

uint32_t wordOf(DType dtype, double value) {
  switch (dtype) {
    case DType::kFloat32:
      return bitsOf(elementOf<float>(value));
    case DType::kBFloat16:
      return elementOf<BFloat16>(value).bits * 0x10001u;
    case DType::kFloat16:
      return elementOf<Float16>(value).bits * 0x10001u;
    case DType::kInt32:
      return static_cast<uint32_t>(elementOf<int32_t>(value));
    case DType::kUint8:
      return elementOf<uint8_t>(value) * 0x1010101u;
  }
  return 0;
}

}  // namespace

void fillCuda(const FillArgs& arguments, CudaContext& context) {
  const int64_t bytes = arguments.count * static_cast<int64_t>(sizeOf(arguments.dtype));
  if (bytes == 0) return;
  context.launch("fill", fillKernel, context.gridStrideBlocks(bytes, kThreads * kStoreBytes),
                 kThreads, static_cast<uint8_t*>(arguments.y), bytes,
                 wordOf(arguments.dtype, arguments.value));
}

}  // namespace didr
