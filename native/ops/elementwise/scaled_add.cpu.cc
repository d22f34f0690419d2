// `scaledAdd` on the CPU. Contract: scaled_add.h.
//
// Parallel over elements and bound by memory: a result larger than the caches is stored past them unless it is written
// in place, so that its lines are not read first.
#include "native/ops/elementwise/scaled_add.h"

#include "native/core/op.h"
#include "native/core/simd.h"
#include "native/ops/elementwise/lanes.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

constexpr int64_t kGrain = 65536;

template <bool kStreaming, class T>
void addScaled(const T* a, const T* b, T* y, int64_t count, F32 scale) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    storeLanes<kStreaming>(y + i, simd::fma(scale, loadLanes(b + i), loadLanes(a + i)));
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    storeLanesPartial(
        y + i, simd::fma(scale, loadLanesPartial(b + i, rest), loadLanesPartial(a + i, rest)),
        rest);
  }
}

template <class T>
void addScaledAs(const ScaledAddArgs& arguments, CpuContext& context) {
  const T* a = static_cast<const T*>(arguments.a);
  const T* b = static_cast<const T*>(arguments.b);
  T* y = static_cast<T*>(arguments.y);
  const F32 scale = simd::broadcast(arguments.scale);
  const bool streaming =
      y != a && y != b && streams(y, arguments.count * static_cast<int64_t>(sizeof(T)));
  context.pool.parallelFor(arguments.count, kGrain, [&](int64_t begin, int64_t end) {
    if (!streaming) return addScaled<false>(a + begin, b + begin, y + begin, end - begin, scale);
    addScaled<true>(a + begin, b + begin, y + begin, end - begin, scale);
    simd::streamFence();
  });
}

}  // namespace

void scaledAddCpu(const ScaledAddArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    addScaledAs<BFloat16>(arguments, context);
  else
    addScaledAs<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
