// `fill` on the CPU. Contract: fill.h.
//
// The element is repeated to a vector once; large outputs are stored past the caches.
#include "native/ops/layout/fill.h"

#include <cstring>

#include "native/core/op.h"
#include "native/core/simd.h"
#include "native/ops/layout/scalar.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

constexpr int64_t kGrainBytes = 1 << 19;

template <class T>
void fillWith(const FillArgs& arguments, CpuContext& context) {
  constexpr int64_t kStep = simd::kVectorBytes / static_cast<int64_t>(sizeof(T));
  constexpr int64_t kGrain = kGrainBytes / static_cast<int64_t>(sizeof(T));
  const T element = elementOf<T>(arguments.value);
  T repeated[kStep];
  for (int64_t i = 0; i < kStep; ++i) repeated[i] = element;
  const auto pattern = simd::loadBits<simd::F32>(repeated);
  T* y = static_cast<T*>(arguments.y);
  const bool streaming = simd::streamingPays(y, arguments.count * static_cast<int64_t>(sizeof(T)));
  context.pool.parallelFor(arguments.count, kGrain, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    if (streaming) {
      for (; i + kStep <= end; i += kStep)
        simd::storeStreaming(reinterpret_cast<float*>(y + i), pattern);
      simd::streamFence();
    }
    for (; i + kStep <= end; i += kStep) simd::storeBits(y + i, pattern);
    for (; i < end; ++i) y[i] = element;
  });
}

}  // namespace

void fillCpu(const FillArgs& arguments, CpuContext& context) {
  switch (arguments.dtype) {
    case DType::kFloat32:
      return fillWith<float>(arguments, context);
    case DType::kBFloat16:
      return fillWith<BFloat16>(arguments, context);
    case DType::kFloat16:
      return fillWith<Float16>(arguments, context);
    case DType::kInt32:
      return fillWith<int32_t>(arguments, context);
    case DType::kUint8:
      return fillWith<uint8_t>(arguments, context);
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
