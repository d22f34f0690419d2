// `unary` on CUDA: y = f(x). Contract: unary.h; the functions: native/core/cuda_math.h.
//
// A thread makes 16 bytes of y at a time, or 8 elements (16 for uint8) where those are answers, of
// one byte each, in a grid-stride loop; the elements after the last vector go one by one. The
// function is chosen once per vector; kernels differ by what functions need of registers. Bytes per
// element: x read once, y written once; the exponential ones take 20 to 50 instructions an element,
// which most devices do in the time of the memory access.
#include <cmath>
#include <type_traits>

#include "native/core/cuda_math.h"
#include "native/core/cuda_packed.h"
#include "native/core/cuda_vector.h"
#include "native/ops/elementwise/unary.h"
#include "native/ops/layout/scalar.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

// A function and its parameters, as kernels take it.
struct Function {
  Unary kind;
  float lo, hi;  // clip
  int32_t intLo, intHi;
};

// Calls body(values) for the values of this thread's vectors of kCount elements, then of the single
// ones after them, and stores what it makes of them.
template <int kCount, class T, class Result, class Body>
__device__ void forEachVector(const T* x, Result* y, int64_t count, const Body& body) {
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t threads = int64_t{gridDim.x} * kThreads;
  const int64_t vectors = count / kCount;
  for (int64_t vector = thread; vector < vectors; vector += threads) {
    Packed<T, kCount> from;
    Packed<Result, kCount> to;
    from.load(x + vector * kCount);
    T values[kCount];
    Result results[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = from.get(i);
    body(values, results);
    to.clear();
#pragma unroll
    for (int i = 0; i < kCount; ++i) to.set(i, results[i]);
    to.store(y + vector * kCount);
  }
  for (int64_t i = vectors * kCount + thread; i < count; i += threads) {
    const T value[1] = {x[i]};
    Result result[1];
    body(value, result);
    y[i] = result[0];
  }
}

__device__ inline void store(float& y, float x) { y = x; }
__device__ inline void store(BFloat16& y, float x) { storeElement(&y, x); }

template <class T>
__global__ void __launch_bounds__(kThreads)
    algebraKernel(const T* x, T* y, int64_t count, Function function) {
  forEachVector<kVector<T>>(x, y, count, [&](const auto& values, auto& results) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(values)>>;
    const auto each = [&](const auto& f) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) store(results[i], f(toFloat(values[i])));
    };
    switch (function.kind) {
      case Unary::kNeg:
        return each([](float v) { return floatOf(bitsOf(v) ^ 0x80000000u); });
      case Unary::kAbs:
        return each([](float v) { return scalar::abs(v); });
      case Unary::kSquare:
        return each([](float v) { return v * v; });
      case Unary::kSqrt:
        return each([](float v) { return scalar::sqrt(v); });
      case Unary::kRsqrt:
        return each([](float v) { return 1.0f / scalar::sqrt(v); });
      case Unary::kReciprocal:
        return each([](float v) { return 1.0f / v; });
      case Unary::kRelu:
        return each([](float v) { return scalar::relu(v); });
      case Unary::kSign:
        return each([](float v) { return v > 0.0f ? 1.0f : v < 0.0f ? -1.0f : v; });
      case Unary::kFloor:
        return each([](float v) { return floorf(v); });
      default:  // clip
        return each([&](float v) { return scalar::min(function.hi, scalar::max(function.lo, v)); });
    }
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    exponentialKernel(const T* x, T* y, int64_t count, Function function) {
  forEachVector<kVector<T>>(x, y, count, [&](const auto& values, auto& results) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(values)>>;
    const auto each = [&](const auto& f) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) store(results[i], f(toFloat(values[i])));
    };
    switch (function.kind) {
      case Unary::kExp:
        return each([](float v) { return scalar::exp(v); });
      case Unary::kLog:
        return each([](float v) { return scalar::log(v); });
      case Unary::kTanh:
        return each([](float v) { return scalar::tanh(v); });
      case Unary::kSigmoid:
        return each([](float v) { return scalar::sigmoid(v); });
      case Unary::kSilu:
        return each([](float v) { return scalar::silu(v); });
      case Unary::kGelu:
        return each([](float v) { return scalar::gelu(v); });
      default:
        return each([](float v) { return scalar::geluTanh(v); });
    }
  });
}

// sin, and cos as the sine of a quarter turn more. sin keeps a zero's sign.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sineKernel(const T* x, T* y, int64_t count, int32_t quarters) {
  forEachVector<kVector<T>>(x, y, count, [&](const auto& values, auto& results) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(values)>>;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float v = toFloat(values[i]);
      const float sine = scalar::sinOfAngle(scalar::reduceAngle(v), quarters);
      store(results[i], quarters == 0 && v == 0.0f ? v : sine);
    }
  });
}

__device__ inline int32_t wrapping(uint32_t x) { return static_cast<int32_t>(x); }

__global__ void __launch_bounds__(kThreads)
    integerKernel(const int32_t* x, int32_t* y, int64_t count, Function function) {
  forEachVector<kVector<int32_t>>(x, y, count, [&](const auto& values, auto& results) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(values)>>;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int32_t v = values[i];
      const uint32_t u = static_cast<uint32_t>(v);
      switch (function.kind) {
        case Unary::kNeg:
          results[i] = wrapping(0u - u);
          break;
        case Unary::kAbs:
          results[i] = v < 0 ? wrapping(0u - u) : v;
          break;
        case Unary::kSquare:
          results[i] = wrapping(u * u);
          break;
        case Unary::kSign:
          results[i] = (v > 0 ? 1 : 0) - (v < 0 ? 1 : 0);
          break;
        default: {  // clip
          const int32_t above = v > function.intLo ? v : function.intLo;
          results[i] = above < function.intHi ? above : function.intHi;
        }
      }
    }
  });
}

__device__ inline bool isZero(float x) { return x == 0.0f; }
__device__ inline bool isZero(BFloat16 x) { return (x.bits & 0x7fffu) == 0; }
__device__ inline bool isZero(int32_t x) { return x == 0; }
__device__ inline bool isZero(uint8_t x) { return x == 0; }

// Elements that a thread answers at a time.
template <class T>
inline constexpr int kAnswers = sizeof(T) == 1 ? 16 : 8;

// logicalNot, or isFinite.
template <class T>
__global__ void __launch_bounds__(kThreads)
    truthKernel(const T* x, uint8_t* y, int64_t count, bool finiteness) {
  forEachVector<kAnswers<T>>(x, y, count, [&](const auto& values, auto& results) {
    constexpr int kCount = std::extent_v<std::remove_reference_t<decltype(values)>>;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool truth = finiteness ? !scalar::isNonFinite(toFloat(values[i])) : isZero(values[i]);
      results[i] = truth ? 1 : 0;
    }
  });
}

template <class T>
void answer(const UnaryArgs& arguments, CudaContext& context) {
  context.launch("unary", truthKernel<T>,
                 context.gridStrideBlocks(arguments.count, kThreads * kAnswers<T>), kThreads,
                 static_cast<const T*>(arguments.x), static_cast<uint8_t*>(arguments.y),
                 arguments.count, arguments.kind == Unary::kIsFinite);
}

template <class T>
void computeFloat(const UnaryArgs& arguments, const Function& function, CudaContext& context) {
  const T* const x = static_cast<const T*>(arguments.x);
  T* const y = static_cast<T*>(arguments.y);
  const unsigned blocks = context.gridStrideBlocks(arguments.count, kThreads * kVector<T>);
  switch (arguments.kind) {
    case Unary::kIsFinite:
    case Unary::kLogicalNot:
      return answer<T>(arguments, context);
    case Unary::kExp:
    case Unary::kLog:
    case Unary::kTanh:
    case Unary::kSigmoid:
    case Unary::kSilu:
    case Unary::kGelu:
    case Unary::kGeluTanh:
      return context.launch("unary", exponentialKernel<T>, blocks, kThreads, x, y, arguments.count,
                            function);
    case Unary::kSin:
    case Unary::kCos:
      return context.launch("unary", sineKernel<T>, blocks, kThreads, x, y, arguments.count,
                            arguments.kind == Unary::kCos ? 1 : 0);
    default:
      return context.launch("unary", algebraKernel<T>, blocks, kThreads, x, y, arguments.count,
                            function);
  }
}

}  // namespace

void unaryCuda(const UnaryArgs& arguments, CudaContext& context) {
  if (arguments.count <= 0) return;
  const Function function = {arguments.kind, static_cast<float>(arguments.lo),
                             static_cast<float>(arguments.hi), elementOf<int32_t>(arguments.lo),
                             elementOf<int32_t>(arguments.hi)};
  switch (arguments.dtype) {
    case DType::kFloat32:
      return computeFloat<float>(arguments, function, context);
    case DType::kBFloat16:
      return computeFloat<BFloat16>(arguments, function, context);
    case DType::kInt32:
      if (arguments.kind == Unary::kLogicalNot) return answer<int32_t>(arguments, context);
      return context.launch("unary", integerKernel,
                            context.gridStrideBlocks(arguments.count, kThreads * kVector<int32_t>),
                            kThreads, static_cast<const int32_t*>(arguments.x),
                            static_cast<int32_t*>(arguments.y), arguments.count, function);
    case DType::kUint8:
      if (arguments.kind == Unary::kLogicalNot) answer<uint8_t>(arguments, context);
      return;
    case DType::kFloat16:
      return;
  }
}

}  // namespace didr
