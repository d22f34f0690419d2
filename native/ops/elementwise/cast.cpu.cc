// `cast` on the CPU. Contract: cast.h.
//
// Every pair goes through a vector of float32, which holds what the narrower of the two can hold,
// except int32 to itself (copied) and int32 to uint8, where only values outside [0, 255] round.
// Parallel over elements; bound by memory.
#include "native/ops/elementwise/cast.h"

#include <cstring>

#include "native/core/op.h"
#include "native/core/simd.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::kLanes;

constexpr int64_t kGrain = 65536;

template <class From, class To>
void convert(const CastArgs& arguments, CpuContext& context) {
  const From* x = static_cast<const From*>(arguments.x);
  To* y = static_cast<To*>(arguments.y);
  context.pool.parallelFor(arguments.count, kGrain, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) simd::store(y + i, simd::load(x + i));
    if (i < end) {
      const int rest = static_cast<int>(end - i);
      simd::storePartial(y + i, simd::loadPartial(x + i, rest), rest);
    }
  });
}

template <class From>
void convertFrom(const CastArgs& arguments, CpuContext& context) {
  switch (arguments.to) {
    case DType::kFloat32:
      return convert<From, float>(arguments, context);
    case DType::kBFloat16:
      return convert<From, BFloat16>(arguments, context);
    case DType::kFloat16:
      return convert<From, Float16>(arguments, context);
    case DType::kInt32:
      return convert<From, int32_t>(arguments, context);
    case DType::kUint8:
      return convert<From, uint8_t>(arguments, context);
  }
}

}  // namespace

void castCpu(const CastArgs& arguments, CpuContext& context) {
  if (arguments.from == arguments.to) {
    const auto size = static_cast<int64_t>(sizeOf(arguments.from));
    const auto* x = static_cast<const unsigned char*>(arguments.x);
    auto* y = static_cast<unsigned char*>(arguments.y);
    context.pool.parallelFor(arguments.count, kGrain, [&](int64_t begin, int64_t end) {
      memcpy(y + begin * size, x + begin * size, static_cast<size_t>((end - begin) * size));
    });
    return;
  }
  switch (arguments.from) {
    case DType::kFloat32:
      return convertFrom<float>(arguments, context);
    case DType::kBFloat16:
      return convertFrom<BFloat16>(arguments, context);
    case DType::kFloat16:
      return convertFrom<Float16>(arguments, context);
    case DType::kInt32:
      return convertFrom<int32_t>(arguments, context);
    case DType::kUint8:
      return convertFrom<uint8_t>(arguments, context);
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
