// Cross entropy and mean square error with their gradients on the CPU, see losses.h.
//
// Parallel over at most kMostBlocks blocks of rows or elements, cut by the shape alone; their
// float64 sums are added in order afterwards. A row of logits stays in the first cache for its
// three passes (maximum, sum, gradient).
#include "native/ops/nn/losses.h"

#include "native/core/op.h"
#include "native/core/refuse.h"
#include "native/core/simd_math.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::broadcast;
using simd::F32;
using simd::LaneSum;

constexpr int64_t kMostBlocks = 1024;
// Elements summed in float32 before float64 takes over.
constexpr int64_t kRun = 4096;

// Calls sumOf(begin, end) for blocks of [0, count) and returns the sum of its results.
template <class SumOf>
double sumOverBlocks(CpuContext& context, int64_t count, int64_t multiple, int64_t costOfOne,
                     const SumOf& sumOf) {
  const int64_t share = (count + kMostBlocks - 1) / kMostBlocks;
  const int64_t block = (share + multiple - 1) / multiple * multiple;
  const int64_t blocks = count == 0 ? 0 : (count + block - 1) / block;
  double sums[kMostBlocks];
  context.pool.parallelFor(blocks, rowGrain(block * costOfOne), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t last = (i + 1) * block;
      sums[i] = sumOf(i * block, last < count ? last : count);
    }
  });
  double total = 0;
  for (int64_t i = 0; i < blocks; ++i) total += sums[i];
  return total;
}

// The loss of one row; its gradient, times `weight`, to `gradient`.
template <class T>
DIDR_SIMD float crossEntropyOfRow(const T* x, T* gradient, int64_t classes, int64_t target,
                                  float weight) {
  F32 lanes = broadcast(-__builtin_inff());
  forEachVector(0, classes, [&](int64_t i, auto extent) {
    F32 v = load(x + i, extent);
    if constexpr (!__is_same(decltype(extent), Whole))
      v = simd::select(simd::laneMask(extent.lanes), v, lanes);
    lanes = simd::max(lanes, v);
  });
  float largest = lanes[0];
  for (int i = 1; i < simd::kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  const F32 shift = broadcast(largest);
  LaneSum sum;
  forEachLaneVector(classes, [&](int64_t i, int part, auto extent) {
    F32 e = simd::exp(load(x + i, extent) - shift);
    if constexpr (!__is_same(decltype(extent), Whole))
      e = simd::select(simd::laneMask(extent.lanes), e, simd::zero());
    sum.parts[part] += e;
  });
  const float total = sum.total();
  // Before the gradient may overwrite it.
  const float chosen = toFloat(x[target]);
  const float loss = simd::log(broadcast(total))[0] - (chosen - largest);
  const F32 scale = broadcast(weight / total);
  forEachVector(0, classes, [&](int64_t i, auto extent) {
    const F32 p = simd::exp(load(x + i, extent) - shift) * scale;
    const simd::I32 column = simd::laneIndex() + static_cast<int32_t>(i);
    const F32 one =
        simd::select(column == static_cast<int32_t>(target), broadcast(weight), simd::zero());
    store(gradient + i, p - one, extent);
  });
  return loss;
}

template <class T>
void crossEntropyAs(const CrossEntropyArgs& arguments, CpuContext& context) {
  const int64_t classes = arguments.classes;
  const float weight = 1.0f / static_cast<float>(arguments.rows);
  constexpr int64_t kCostOfExp = 8;
  const double total = sumOverBlocks(
      context, arguments.rows, 1, classes * kCostOfExp, [&](int64_t begin, int64_t end) {
        double sum = 0;
        for (int64_t row = begin; row < end; ++row)
          sum += static_cast<double>(
              crossEntropyOfRow(static_cast<const T*>(arguments.x) + row * classes,
                                static_cast<T*>(arguments.gradient) + row * classes, classes,
                                arguments.targets[row], weight));
        return sum;
      });
  *arguments.loss = static_cast<float>(total / static_cast<double>(arguments.rows));
}

template <class T>
void mseAs(const MseArgs& arguments, CpuContext& context) {
  const auto* x = static_cast<const T*>(arguments.x);
  const auto* y = static_cast<const T*>(arguments.y);
  auto* gradient = static_cast<T*>(arguments.gradient);
  const F32 factor = broadcast(2.0f / static_cast<float>(arguments.count));
  const double total =
      sumOverBlocks(context, arguments.count, kRun, 1, [&](int64_t begin, int64_t end) {
        double sum = 0;
        for (int64_t run = begin; run < end; run += kRun) {
          LaneSum squares;
          forEachLaneVector(end - run < kRun ? end - run : kRun,
                            [&](int64_t i, int part, auto extent) {
                              const F32 d = load(x + run + i, extent) - load(y + run + i, extent);
                              squares.parts[part] = simd::fma(d, d, squares.parts[part]);
                              store(gradient + run + i, d * factor, extent);
                            });
          sum += static_cast<double>(squares.total());
        }
        return sum;
      });
  *arguments.loss = static_cast<float>(total / static_cast<double>(arguments.count));
}

}  // namespace

void crossEntropyCpu(const CrossEntropyArgs& arguments, CpuContext& context) {
  for (int64_t row = 0; row < arguments.rows; ++row)
    if (arguments.targets[row] < 0 || arguments.targets[row] >= arguments.classes)
      return refuse(context, Code::kRange, kTargetOutside);
  if (arguments.dtype == DType::kBFloat16)
    crossEntropyAs<BFloat16>(arguments, context);
  else
    crossEntropyAs<float>(arguments, context);
}

void mseCpu(const MseArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    mseAs<BFloat16>(arguments, context);
  else
    mseAs<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
