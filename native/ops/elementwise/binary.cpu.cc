// `binary` on the CPU: y = f(a, b) with broadcasting. Contract: binary.h.
//
// Parallel over the elements of y. Each run is one vector loop, one per combination of operands
// that advance or repeat; a run is bound by memory for everything but pow and div, so a result
// larger than the caches is stored past them (reads 4+4, writes 4 bytes per float32 element).
#include "native/ops/elementwise/binary.h"

#include "native/core/op.h"
#include "native/core/simd.h"
#include "native/core/simd_math.h"
#include "native/ops/elementwise/broadcast.h"
#include "native/ops/elementwise/lanes.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::I32;
using simd::kLanes;

// NaN where either is. Where they are equal only a zero's sign can differ: +0 is above -0.
inline F32 withNan(F32 a, F32 b, F32 chosen) {
  return simd::select(simd::isNan(a) | simd::isNan(b), a + b, chosen);
}
inline F32 maximum(F32 a, F32 b) {
  const F32 chosen =
      simd::select(a == b, simd::asFloat(simd::asBits(a) & simd::asBits(b)), simd::max(a, b));
  return withNan(a, b, chosen);
}
inline F32 minimum(F32 a, F32 b) {
  const F32 chosen =
      simd::select(a == b, simd::asFloat(simd::asBits(a) | simd::asBits(b)), simd::min(a, b));
  return withNan(a, b, chosen);
}

// Sums and products of integers wrap: unsigned arithmetic has the same low bits.
inline I32 wrapping(simd::U32 x) { return simd::asInt(x); }

// No machine here divides vectors of integers.
inline int32_t divide(int32_t a, int32_t b) {
  if (b == 0) return 0;
  if (b == -1) return static_cast<int32_t>(0u - static_cast<uint32_t>(a));
  return a / b;
}
inline I32 divide(I32 a, I32 b) {
  I32 y;
  for (int i = 0; i < kLanes; ++i) y[i] = divide(a[i], b[i]);
  return y;
}

// One loop over a run. `Result` is the lanes' type in memory of y.
template <bool kRepeatA, bool kRepeatB, bool kStreaming, class T, class Result, class F>
void loop(const T* a, const T* b, Result* y, int64_t count, const F& f) {
  const auto repeatedA = repeat(a, kRepeatA);
  const auto repeatedB = repeat(b, kRepeatB);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    storeLanes<kStreaming>(
        y + i, f(kRepeatA ? repeatedA : loadLanes(a + i), kRepeatB ? repeatedB : loadLanes(b + i)));
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    storeLanesPartial(y + i,
                      f(kRepeatA ? repeatedA : loadLanesPartial(a + i, rest),
                        kRepeatB ? repeatedB : loadLanesPartial(b + i, rest)),
                      rest);
  }
}

template <bool kStreaming, class T, class Result, class F>
void run(const void* const* operands, const bool* repeated, Result* y, int64_t count, const F& f) {
  const T* a = static_cast<const T*>(operands[0]);
  const T* b = static_cast<const T*>(operands[1]);
  if (repeated[0])
    return repeated[1] ? loop<true, true, kStreaming>(a, b, y, count, f)
                       : loop<true, false, kStreaming>(a, b, y, count, f);
  return repeated[1] ? loop<false, true, kStreaming>(a, b, y, count, f)
                     : loop<false, false, kStreaming>(a, b, y, count, f);
}

constexpr int64_t kGrain = 65536;
constexpr int64_t kCostlyGrain = 8192;

template <class T, class Result, class F>
void apply(const BinaryArgs& arguments, CpuContext& context, const F& f, int64_t grain = kGrain) {
  const BroadcastPlan<2> plan(arguments.rank, arguments.shape,
                              {arguments.aStrides, arguments.bStrides});
  Result* y = static_cast<Result*>(arguments.y);
  // Written in place, a line is in the cache already.
  const bool inPlace = y == arguments.a || y == arguments.b;
  const int64_t streamedBytes = inPlace ? 0 : plan.count * static_cast<int64_t>(sizeof(Result));
  context.pool.parallelFor(plan.count, grain, [&](int64_t begin, int64_t end) {
    forEachRun<2>(
        plan, begin, end, {arguments.a, arguments.b}, {sizeof(T), sizeof(T)},
        [&](int64_t position, int64_t count, const void* const* operands, const bool* repeated) {
          if (streams(y + position, streamedBytes))
            run<true, T>(operands, repeated, y + position, count, f);
          else
            run<false, T>(operands, repeated, y + position, count, f);
        });
    simd::streamFence();
  });
}

template <class T>
void compare(const BinaryArgs& arguments, CpuContext& context) {
  using V = decltype(loadLanes(static_cast<const T*>(nullptr)));
  const auto answer = [&](const auto& f) { apply<T, Truth>(arguments, context, f); };
  switch (arguments.kind) {
    case Binary::kEqual:
      return answer([](V a, V b) -> I32 { return a == b; });
    case Binary::kNotEqual:
      return answer([](V a, V b) -> I32 { return a != b; });
    case Binary::kLess:
      return answer([](V a, V b) -> I32 { return a < b; });
    case Binary::kLessEqual:
      return answer([](V a, V b) -> I32 { return a <= b; });
    case Binary::kGreater:
      return answer([](V a, V b) -> I32 { return a > b; });
    case Binary::kGreaterEqual:
      return answer([](V a, V b) -> I32 { return a >= b; });
    case Binary::kLogicalAnd:
      return answer([](V a, V b) -> I32 { return (a != 0) & (b != 0); });
    case Binary::kLogicalOr:
      return answer([](V a, V b) -> I32 { return (a != 0) | (b != 0); });
    default:
      return;
  }
}

template <class T>
void computeFloat(const BinaryArgs& arguments, CpuContext& context) {
  switch (arguments.kind) {
    case Binary::kAdd:
      return apply<T, T>(arguments, context, [](F32 a, F32 b) { return a + b; });
    case Binary::kSub:
      return apply<T, T>(arguments, context, [](F32 a, F32 b) { return a - b; });
    case Binary::kMul:
      return apply<T, T>(arguments, context, [](F32 a, F32 b) { return a * b; });
    case Binary::kDiv:
      return apply<T, T>(arguments, context, [](F32 a, F32 b) { return a / b; });
    case Binary::kPow:
      return apply<T, T>(
          arguments, context, [](F32 a, F32 b) { return simd::pow(a, b); }, kCostlyGrain);
    case Binary::kMaximum:
      return apply<T, T>(arguments, context, [](F32 a, F32 b) { return maximum(a, b); });
    case Binary::kMinimum:
      return apply<T, T>(arguments, context, [](F32 a, F32 b) { return minimum(a, b); });
    default:
      return compare<T>(arguments, context);
  }
}

void computeInt(const BinaryArgs& arguments, CpuContext& context) {
  using simd::asBits;
  using T = int32_t;
  switch (arguments.kind) {
    case Binary::kAdd:
      return apply<T, T>(arguments, context,
                         [](I32 a, I32 b) { return wrapping(asBits(a) + asBits(b)); });
    case Binary::kSub:
      return apply<T, T>(arguments, context,
                         [](I32 a, I32 b) { return wrapping(asBits(a) - asBits(b)); });
    case Binary::kMul:
      return apply<T, T>(arguments, context,
                         [](I32 a, I32 b) { return wrapping(asBits(a) * asBits(b)); });
    case Binary::kDiv:
      return apply<T, T>(
          arguments, context, [](I32 a, I32 b) { return divide(a, b); }, kCostlyGrain);
    case Binary::kMaximum:
      return apply<T, T>(arguments, context, [](I32 a, I32 b) { return simd::max(a, b); });
    case Binary::kMinimum:
      return apply<T, T>(arguments, context, [](I32 a, I32 b) { return simd::min(a, b); });
    default:
      return compare<T>(arguments, context);
  }
}

}  // namespace

void binaryCpu(const BinaryArgs& arguments, CpuContext& context) {
  switch (arguments.dtype) {
    case DType::kFloat32:
      return computeFloat<float>(arguments, context);
    case DType::kBFloat16:
      return computeFloat<BFloat16>(arguments, context);
    case DType::kInt32:
      return computeInt(arguments, context);
    case DType::kUint8:
      return compare<uint8_t>(arguments, context);
    case DType::kFloat16:
      return;
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
