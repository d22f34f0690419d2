// `unary` on the CPU: y = f(x). Contract: unary.h; the functions: native/core/simd_math.h.
//
// Parallel over elements. One load, a straight line of vector arithmetic, one store: what is cheap
// is bound by memory (4 bytes read, 4 written per float32 element), so a result larger than the
// caches is stored past them unless it is written in place.
#include "native/ops/elementwise/unary.h"

#include "native/core/op.h"
#include "native/core/simd.h"
#include "native/core/simd_math.h"
#include "native/ops/elementwise/activation.cpu.h"
#include "native/ops/elementwise/lanes.h"
#include "native/ops/layout/scalar.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::broadcast;
using simd::F32;
using simd::I32;
using simd::kLanes;
using simd::select;
using simd::zero;

// Elements worth a thread: some microseconds of work.
constexpr int64_t kGrain = 65536;
constexpr int64_t kCostlyGrain = 16384;

template <bool kStreaming, class T, class Result, class F>
void loop(const T* x, Result* y, int64_t count, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) storeLanes<kStreaming>(y + i, f(loadLanes(x + i)));
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    storeLanesPartial(y + i, f(loadLanesPartial(x + i, rest)), rest);
  }
}

template <class T, class Result = T, class F>
void apply(const UnaryArgs& arguments, CpuContext& context, int64_t grain, const F& f) {
  const T* x = static_cast<const T*>(arguments.x);
  Result* y = static_cast<Result*>(arguments.y);
  const int64_t bytes = arguments.count * static_cast<int64_t>(sizeof(Result));
  const bool streaming = arguments.x != arguments.y && streams(y, bytes);
  context.pool.parallelFor(arguments.count, grain, [&](int64_t begin, int64_t end) {
    if (!streaming) return loop<false>(x + begin, y + begin, end - begin, f);
    loop<true>(x + begin, y + begin, end - begin, f);
    simd::streamFence();
  });
}

// Towards minus infinity; floats from 2^23 on are whole.
inline F32 floorOf(F32 x) {
  const I32 small = simd::abs(x) < 0x1p23f;
  const F32 truncated = simd::toFloat(simd::truncateToInt(select(small, x, zero())));
  const F32 whole = truncated - select(truncated > x, broadcast(1.0f), zero());
  return select(small, simd::copySign(whole, x), x);
}

template <class T>
void computeFloat(const UnaryArgs& arguments, CpuContext& context) {
  const auto cheap = [&](const auto& f) { apply<T>(arguments, context, kGrain, f); };
  const auto costly = [&](const auto& f) { apply<T>(arguments, context, kCostlyGrain, f); };
  switch (arguments.kind) {
    case Unary::kNeg:
      return cheap([](F32 x) { return -x; });
    case Unary::kAbs:
      return cheap([](F32 x) { return simd::abs(x); });
    case Unary::kSquare:
      return cheap([](F32 x) { return x * x; });
    case Unary::kSqrt:
      return cheap([](F32 x) { return simd::sqrt(x); });
    case Unary::kRsqrt:
      return cheap([](F32 x) { return 1.0f / simd::sqrt(x); });
    case Unary::kReciprocal:
      return cheap([](F32 x) { return 1.0f / x; });
    case Unary::kExp:
      return costly([](F32 x) { return simd::exp(x); });
    case Unary::kLog:
      return costly([](F32 x) { return simd::log(x); });
    case Unary::kTanh:
      return costly([](F32 x) { return simd::tanh(x); });
    case Unary::kSigmoid:
      return costly([](F32 x) { return simd::sigmoid(x); });
    case Unary::kSilu:
      return costly([](F32 x) { return simd::silu(x); });
    case Unary::kGelu:
      return costly([](F32 x) { return simd::gelu(x); });
    case Unary::kGeluTanh:
      return costly([](F32 x) { return simd::geluTanh(x); });
    case Unary::kRelu:
      return cheap([](F32 x) { return simd::relu(x); });
    case Unary::kSign:
      return cheap([](F32 x) {
        return select(x > zero(), broadcast(1.0f), select(x < zero(), broadcast(-1.0f), x));
      });
    case Unary::kFloor:
      return cheap([](F32 x) { return floorOf(x); });
    case Unary::kSin:
      return costly([](F32 x) { return simd::sin(x); });
    case Unary::kCos:
      return costly([](F32 x) { return simd::cos(x); });
    case Unary::kIsFinite:
      return apply<T, Truth>(arguments, context, kGrain,
                             [](F32 x) -> I32 { return ~simd::isNonFinite(x); });
    case Unary::kLogicalNot:
      return apply<T, Truth>(arguments, context, kGrain, [](F32 x) -> I32 { return x == zero(); });
    case Unary::kClip: {
      const F32 lo = broadcast(static_cast<float>(arguments.lo));
      const F32 hi = broadcast(static_cast<float>(arguments.hi));
      return cheap([lo, hi](F32 x) { return simd::min(hi, simd::max(lo, x)); });
    }
  }
}

void computeInt(const UnaryArgs& arguments, CpuContext& context) {
  using simd::asBits;
  using simd::asInt;
  const auto cheap = [&](const auto& f) { apply<int32_t>(arguments, context, kGrain, f); };
  switch (arguments.kind) {
    // Unsigned arithmetic: the smallest integer wraps to itself.
    case Unary::kNeg:
      return cheap([](I32 x) { return asInt(-asBits(x)); });
    case Unary::kAbs:
      return cheap([](I32 x) { return select(x < 0, asInt(-asBits(x)), x); });
    case Unary::kSquare:
      return cheap([](I32 x) { return asInt(asBits(x) * asBits(x)); });
    case Unary::kSign:
      return cheap([](I32 x) -> I32 { return (x < 0) - (x > 0); });
    case Unary::kLogicalNot:
      return apply<int32_t, Truth>(arguments, context, kGrain, [](I32 x) -> I32 { return x == 0; });
    case Unary::kClip: {
      const I32 lo = broadcast(elementOf<int32_t>(arguments.lo));
      const I32 hi = broadcast(elementOf<int32_t>(arguments.hi));
      return cheap([lo, hi](I32 x) { return simd::min(hi, simd::max(lo, x)); });
    }
    default:
      return;
  }
}

}  // namespace

void unaryCpu(const UnaryArgs& arguments, CpuContext& context) {
  switch (arguments.dtype) {
    case DType::kFloat32:
      return computeFloat<float>(arguments, context);
    case DType::kBFloat16:
      return computeFloat<BFloat16>(arguments, context);
    case DType::kInt32:
      return computeInt(arguments, context);
    case DType::kUint8:
      if (arguments.kind == Unary::kLogicalNot)
        apply<uint8_t, Truth>(arguments, context, kGrain, [](I32 x) -> I32 { return x == 0; });
      return;
    case DType::kFloat16:
      return;
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
