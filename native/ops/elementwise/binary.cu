// `binary` on CUDA: y = f(a, b) with broadcasting. Contract: binary.h; the operands:
// broadcast.cuda.h; pow: native/core/cuda_math.h.
//
// A thread makes 16 bytes of y at a time, or 8 elements (16 for uint8) where those are answers, of
// one byte each. The function is chosen once per vector; pow, whose float64 polynomials need
// registers of their own, has a kernel of its own. Bytes per element: what the contract asks for;
// bound by memory for everything but pow and, on int32, div.
#include <type_traits>

#include "native/core/cuda_math.h"
#include "native/core/cuda_vector.h"
#include "native/ops/elementwise/binary.h"
#include "native/ops/elementwise/broadcast.cuda.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

// What elements are computed in.
__device__ inline float valueOf(float x) { return x; }
__device__ inline float valueOf(BFloat16 x) { return toFloat(x); }
__device__ inline int32_t valueOf(int32_t x) { return x; }
__device__ inline int32_t valueOf(uint8_t x) { return x; }

template <class T>
struct StoredAs {
  static __device__ T of(T x) { return x; }
};
template <>
struct StoredAs<BFloat16> {
  static __device__ BFloat16 of(float x) {
    BFloat16 y;
    storeElement(&y, x);
    return y;
  }
};

// NaN where either is. Where they are equal only a zero's sign can differ: +0 is above -0.
__device__ inline float maximum(float a, float b) {
  if (scalar::isNan(a) || scalar::isNan(b)) return a + b;
  return a == b ? floatOf(bitsOf(a) & bitsOf(b)) : scalar::max(a, b);
}
__device__ inline float minimum(float a, float b) {
  if (scalar::isNan(a) || scalar::isNan(b)) return a + b;
  return a == b ? floatOf(bitsOf(a) | bitsOf(b)) : scalar::min(a, b);
}
__device__ inline float divide(float a, float b) { return a / b; }

__device__ inline int32_t maximum(int32_t a, int32_t b) { return a > b ? a : b; }
__device__ inline int32_t minimum(int32_t a, int32_t b) { return a < b ? a : b; }
__device__ inline int32_t divide(int32_t a, int32_t b) {
  if (b == 0) return 0;
  if (b == -1) return static_cast<int32_t>(0u - static_cast<uint32_t>(a));
  return a / b;
}

// Integers wrap: unsigned arithmetic has the same low bits.
__device__ inline float add(float a, float b) { return a + b; }
__device__ inline float subtract(float a, float b) { return a - b; }
__device__ inline float multiply(float a, float b) { return a * b; }
__device__ inline int32_t add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
__device__ inline int32_t subtract(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}
__device__ inline int32_t multiply(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    arithmeticKernel(const T* a, const T* b, T* y, Binary kind, Broadcast<2> broadcast) {
  using Value = decltype(valueOf(T{}));
  forEachPlace<kVector<T>>(broadcast, [&](const auto& place) {
    constexpr int kCount = std::decay_t<decltype(place)>::kCount;
    T p[kCount], q[kCount], z[kCount];
    broadcast.load<0>(a, place.offset[0], p);
    broadcast.load<1>(b, place.offset[1], q);
    const auto each = [&](const auto& f) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) z[i] = StoredAs<T>::of(f(valueOf(p[i]), valueOf(q[i])));
    };
    switch (kind) {
      case Binary::kAdd:
        each([](Value u, Value v) { return add(u, v); });
        break;
      case Binary::kSub:
        each([](Value u, Value v) { return subtract(u, v); });
        break;
      case Binary::kMul:
        each([](Value u, Value v) { return multiply(u, v); });
        break;
      case Binary::kDiv:
        each([](Value u, Value v) { return divide(u, v); });
        break;
      case Binary::kMaximum:
        each([](Value u, Value v) { return maximum(u, v); });
        break;
      default:
        each([](Value u, Value v) { return minimum(u, v); });
    }
    storeResult(y + place.first, z);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    powKernel(const T* a, const T* b, T* y, Broadcast<2> broadcast) {
  forEachPlace<kVector<T>>(broadcast, [&](const auto& place) {
    constexpr int kCount = std::decay_t<decltype(place)>::kCount;
    T p[kCount], q[kCount], z[kCount];
    broadcast.load<0>(a, place.offset[0], p);
    broadcast.load<1>(b, place.offset[1], q);
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      z[i] = StoredAs<T>::of(scalar::pow(valueOf(p[i]), valueOf(q[i])));
    storeResult(y + place.first, z);
  });
}

// An answer is a bit of `answers`: for comparisons that of how a and b are to each other, for the
// logical ones that of how many of them are true.
enum Relation { kIsLess, kIsEqual, kIsGreater, kIsUnordered };

constexpr unsigned answersOf(Binary kind) {
  constexpr unsigned kLess = 1u << kIsLess, kEqual = 1u << kIsEqual, kGreater = 1u << kIsGreater;
  switch (kind) {
    case Binary::kEqual:
      return kEqual;
    case Binary::kNotEqual:
      return ~kEqual;
    case Binary::kLess:
      return kLess;
    case Binary::kLessEqual:
      return kLess | kEqual;
    case Binary::kGreater:
      return kGreater;
    case Binary::kGreaterEqual:
      return kGreater | kEqual;
    case Binary::kLogicalAnd:
      return 1u << 2;
    case Binary::kLogicalOr:
      return 1u << 1 | 1u << 2;
    default:
      return 0;
  }
}

// Elements that a thread answers at a time.
template <class T>
inline constexpr int kAnswers = sizeof(T) == 1 ? 16 : 8;

template <class T>
__global__ void __launch_bounds__(kThreads)
    answerKernel(const T* a, const T* b, uint8_t* y, bool logical, unsigned answers,
                 Broadcast<2> broadcast) {
  forEachPlace<kAnswers<T>>(broadcast, [&](const auto& place) {
    constexpr int kCount = std::decay_t<decltype(place)>::kCount;
    T p[kCount], q[kCount];
    uint8_t z[kCount];
    broadcast.load<0>(a, place.offset[0], p);
    broadcast.load<1>(b, place.offset[1], q);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const auto u = valueOf(p[i]);
      const auto v = valueOf(q[i]);
      unsigned bit = u < v ? kIsLess : u > v ? kIsGreater : u == v ? kIsEqual : kIsUnordered;
      if (logical) bit = (u != 0 ? 1u : 0u) + (v != 0 ? 1u : 0u);
      z[i] = static_cast<uint8_t>((answers >> bit) & 1u);
    }
    storeResult(y + place.first, z);
  });
}

template <class T>
void compute(const BinaryArgs& arguments, CudaContext& context) {
  const BroadcastPlan<2> plan(arguments.rank, arguments.shape,
                              {arguments.aStrides, arguments.bStrides});
  if (plan.count == 0) return;
  const T* const a = static_cast<const T*>(arguments.a);
  const T* const b = static_cast<const T*>(arguments.b);
  const auto broadcastBy = [&](int most) {
    return Broadcast<2>(plan, {a, b}, {sizeof(T), sizeof(T)}, most);
  };
  const bool logical =
      arguments.kind == Binary::kLogicalAnd || arguments.kind == Binary::kLogicalOr;
  if (logical || isComparison(arguments.kind)) {
    const Broadcast<2> broadcast = broadcastBy(kAnswers<T>);
    context.launch("binary's comparison", answerKernel<T>,
                   broadcastBlocks(context, broadcast, kThreads, kAnswers<T>), kThreads, a, b,
                   static_cast<uint8_t*>(arguments.y), logical, answersOf(arguments.kind),
                   broadcast);
    return;
  }
  if constexpr (sizeof(T) > 1) {
    const Broadcast<2> broadcast = broadcastBy(kVector<T>);
    const unsigned blocks = broadcastBlocks(context, broadcast, kThreads, kVector<T>);
    T* const y = static_cast<T*>(arguments.y);
    if (arguments.kind != Binary::kPow)
      context.launch("binary", arithmeticKernel<T>, blocks, kThreads, a, b, y, arguments.kind,
                     broadcast);
    else if constexpr (!std::is_same_v<T, int32_t>)
      context.launch("binary's pow", powKernel<T>, blocks, kThreads, a, b, y, broadcast);
  }
}

}  // namespace

void binaryCuda(const BinaryArgs& arguments, CudaContext& context) {
  switch (arguments.dtype) {
    case DType::kFloat32:
      return compute<float>(arguments, context);
    case DType::kBFloat16:
      return compute<BFloat16>(arguments, context);
    case DType::kInt32:
      return compute<int32_t>(arguments, context);
    case DType::kUint8:
      return compute<uint8_t>(arguments, context);
    case DType::kFloat16:
      return;
  }
}

}  // namespace didr
