// `cast` on CUDA. Contract: cast.h.
//
// One kernel for all pairs: a thread reads 8 elements (8 to 32 bytes), which become float32 in
// registers, and writes 8, in a grid-stride loop; both dtypes are chosen once per vector. float32
// holds what the narrower of the two can hold, except int32 to uint8, where only values outside
// [0, 255] round. Equal dtypes are copied. Bytes per element: what the two dtypes are wide.
#include "native/core/cuda_packed.h"
#include "native/core/cuda_vector.h"
#include "native/ops/elementwise/cast.h"

namespace didr {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 8;

// Towards zero; saturates, and NaN gives 0.
__device__ inline int32_t saturateToInt(float x) {
  if (!(x > -2147483648.0f)) return x == x ? INT32_MIN : 0;
  return x >= 2147483648.0f ? INT32_MAX : static_cast<int32_t>(x);
}

__device__ inline void fromFloat(float x, float& y) { y = x; }
__device__ inline void fromFloat(float x, BFloat16& y) { storeElement(&y, x); }
__device__ inline void fromFloat(float x, Float16& y) { y = toFloat16(x); }
__device__ inline void fromFloat(float x, int32_t& y) { y = saturateToInt(x); }
__device__ inline void fromFloat(float x, uint8_t& y) {
  const int32_t whole = saturateToInt(x);
  y = static_cast<uint8_t>(whole < 0 ? 0 : whole > 255 ? 255 : whole);
}

template <class T>
__device__ void loadFloats(const void* x, int64_t first, int count, float (&values)[kElements]) {
  const T* const from = static_cast<const T*>(x) + first;
  if (count == kElements) {
    Packed<T, kElements> packed;
    packed.load(from);
#pragma unroll
    for (int i = 0; i < kElements; ++i) values[i] = toFloat(packed.get(i));
  } else {
#pragma unroll
    for (int i = 0; i < kElements; ++i) values[i] = i < count ? toFloat(from[i]) : 0.0f;
  }
}

template <class T>
__device__ void storeFloats(void* y, int64_t first, int count, const float (&values)[kElements]) {
  Packed<T, kElements> packed;
  packed.clear();
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    T element;
    fromFloat(values[i], element);
    packed.set(i, element);
  }
  T* const to = static_cast<T*>(y) + first;
  if (count == kElements)
    packed.store(to);
  else
    packed.storeSome(to, count);
}

__global__ void __launch_bounds__(kThreads) castKernel(CastArgs arguments) {
  const int64_t step = int64_t{gridDim.x} * kThreads * kElements;
  for (int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kElements;
       first < arguments.count; first += step) {
    const int64_t left = arguments.count - first;
    const int count = left < kElements ? static_cast<int>(left) : kElements;
    float values[kElements];
    switch (arguments.from) {
      case DType::kFloat32:
        loadFloats<float>(arguments.x, first, count, values);
        break;
      case DType::kBFloat16:
        loadFloats<BFloat16>(arguments.x, first, count, values);
        break;
      case DType::kFloat16:
        loadFloats<Float16>(arguments.x, first, count, values);
        break;
      case DType::kInt32:
        loadFloats<int32_t>(arguments.x, first, count, values);
        break;
      case DType::kUint8:
        loadFloats<uint8_t>(arguments.x, first, count, values);
        break;
    }
    switch (arguments.to) {
      case DType::kFloat32:
        storeFloats<float>(arguments.y, first, count, values);
        break;
      case DType::kBFloat16:
        storeFloats<BFloat16>(arguments.y, first, count, values);
        break;
      case DType::kFloat16:
        storeFloats<Float16>(arguments.y, first, count, values);
        break;
      case DType::kInt32:
        storeFloats<int32_t>(arguments.y, first, count, values);
        break;
      case DType::kUint8:
        storeFloats<uint8_t>(arguments.y, first, count, values);
        break;
    }
  }
}

}  // namespace

void castCuda(const CastArgs& arguments, CudaContext& context) {
  if (arguments.count <= 0 || context.error != cudaSuccess) return;
  if (arguments.from == arguments.to) {
    context.check("cast",
                  cudaMemcpyAsync(arguments.y, arguments.x,
                                  static_cast<size_t>(arguments.count) * sizeOf(arguments.from),
                                  cudaMemcpyDeviceToDevice, context.stream));
    return;
  }
  context.launch("cast", castKernel,
                 context.gridStrideBlocks(arguments.count, kThreads * kElements), kThreads,
                 arguments);
}

}  // namespace didr
