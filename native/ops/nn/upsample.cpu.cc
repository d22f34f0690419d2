// Nearest-neighbour upsampling by two and its backward pass on the CPU, see upsample.h. Parallel
// over rows of the small image. A widened row is copied for the second of its two rows; backward
// two rows are added before pairs of columns.
#include "native/ops/nn/upsample.h"

#include "native/core/op.h"
#include "native/ops/nn/pairs.cpu.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

// The two vectors of the wide row that belong to one vector of the narrow row.
template <class T>
DIDR_SIMD void storePair(T* p, F32 low, F32 high, Whole extent) {
  store(p, low, extent);
  store(p + kLanes, high, extent);
}
template <class T>
DIDR_SIMD void storePair(T* p, F32 low, F32 high, Part part) {
  simd::storePartial(p, low, simd::lanesLeft(2 * part.lanes));
  simd::storePartial(p + kLanes, high, simd::lanesLeft(2 * part.lanes - kLanes));
}
template <class T>
DIDR_SIMD void loadPair(const T* p, F32& low, F32& high, Whole extent) {
  low = load(p, extent);
  high = load(p + kLanes, extent);
}
template <class T>
DIDR_SIMD void loadPair(const T* p, F32& low, F32& high, Part part) {
  low = simd::loadPartial(p, simd::lanesLeft(2 * part.lanes));
  high = simd::loadPartial(p + kLanes, simd::lanesLeft(2 * part.lanes - kLanes));
}

template <class T>
void forwardAs(const UpsampleArgs& arguments, CpuContext& context) {
  const int64_t width = arguments.width;
  if (width == 0) return;
  context.pool.parallelFor(arguments.planes * arguments.height, rowGrain(4 * width),
                           [&](int64_t begin, int64_t end) {
                             for (int64_t row = begin; row < end; ++row) {
                               const T* x = static_cast<const T*>(arguments.x) + row * width;
                               T* y = static_cast<T*>(arguments.y) + row * 4 * width;
                               forEachVector(0, width, [&](int64_t i, auto extent) {
                                 const F32 v = load(x + i, extent);
                                 storePair(y + 2 * i, simd::repeatEach(simd::lowHalf(v)),
                                           simd::repeatEach(simd::highHalf(v)), extent);
                               });
                               memcpy(y + 2 * width, y, static_cast<size_t>(2 * width) * sizeof(T));
                             }
                           });
}

template <class T>
void backwardAs(const UpsampleBackwardArgs& arguments, CpuContext& context) {
  const int64_t width = arguments.width;
  context.pool.parallelFor(arguments.planes * arguments.height, rowGrain(4 * width),
                           [&](int64_t begin, int64_t end) {
                             for (int64_t row = begin; row < end; ++row) {
                               const T* dy = static_cast<const T*>(arguments.dy) + row * 4 * width;
                               T* dx = static_cast<T*>(arguments.dx) + row * width;
                               forEachVector(0, width, [&](int64_t i, auto extent) {
                                 F32 low, high, lowBelow, highBelow;
                                 loadPair(dy + 2 * i, low, high, extent);
                                 loadPair(dy + 2 * width + 2 * i, lowBelow, highBelow, extent);
                                 low += lowBelow;
                                 high += highBelow;
                                 store(dx + i,
                                       simd::join(simd::evenLanes(low + simd::swapPairs(low)),
                                                  simd::evenLanes(high + simd::swapPairs(high))),
                                       extent);
                               });
                             }
                           });
}

}  // namespace

void upsampleNearest2xCpu(const UpsampleArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    forwardAs<BFloat16>(arguments, context);
  else
    forwardAs<float>(arguments, context);
}

void upsampleNearest2xBackwardCpu(const UpsampleBackwardArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    backwardAs<BFloat16>(arguments, context);
  else
    backwardAs<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
