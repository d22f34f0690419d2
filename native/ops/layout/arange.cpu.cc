// `arange` on the CPU. Contract: arange.h. Parallel over elements.
#include "native/ops/layout/arange.h"

#include "native/core/op.h"
#include "native/ops/layout/scalar.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

constexpr int64_t kGrain = 32768;

template <class T>
void count(const ArangeArgs& arguments, CpuContext& context) {
  T* y = static_cast<T*>(arguments.y);
  const double start = arguments.start;
  const double step = arguments.step;
  context.pool.parallelFor(arguments.count, kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      y[i] = elementOf<T>(start + static_cast<double>(i) * step);
  });
}

}  // namespace

void arangeCpu(const ArangeArgs& arguments, CpuContext& context) {
  switch (arguments.dtype) {
    case DType::kFloat32:
      return count<float>(arguments, context);
    case DType::kBFloat16:
      return count<BFloat16>(arguments, context);
    case DType::kFloat16:
      return count<Float16>(arguments, context);
    case DType::kInt32:
      return count<int32_t>(arguments, context);
    case DType::kUint8:
      return count<uint8_t>(arguments, context);
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
