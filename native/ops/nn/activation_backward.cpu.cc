// dx = dy f'(x) on the CPU, see activation_backward.h.
//
// Parallel over runs of elements. Derivatives from the functions of simd_math.h:
//   sigmoid' = s (1 - s)       tanh' = 1 - t^2
//   silu' = s (1 + x (1 - s))  gelu' = Phi(x) + x phi(x)
//   geluTanh' = s + x s (1 - s) 2 sqrt(2/pi) (1 + 3 c x^2),  s = sigmoid(2 sqrt(2/pi) (x + c x^3))
// Where x multiplies a factor that vanishes at infinity it is first bounded to where the product
// has already rounded to zero, so that infinity times zero never arises.
#include "native/ops/nn/activation_backward.h"

#include "native/core/op.h"
#include "native/core/simd_math.h"
#include "native/ops/nn/silu.cpu.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::broadcast;
using simd::F32;

// min and max pass a NaN in their second operand.
DIDR_SIMD F32 bounded(F32 x, float limit) {
  return simd::min(broadcast(limit), simd::max(broadcast(-limit), x));
}

struct NoneDerivative {
  __attribute__((always_inline)) static F32 of(F32) { return broadcast(1.0f); }
};
struct ReluDerivative {
  __attribute__((always_inline)) static F32 of(F32 x) {
    const F32 step = simd::select(x > simd::zero(), broadcast(1.0f), simd::zero());
    return simd::select(simd::isNan(x), x, step);
  }
};
struct SigmoidDerivative {
  // s(-x) rather than 1 - s(x), which cancels for large x.
  __attribute__((always_inline)) static F32 of(F32 x) {
    return simd::sigmoid(x) * simd::sigmoid(-x);
  }
};
struct TanhDerivative {
  __attribute__((always_inline)) static F32 of(F32 x) {
    const F32 t = simd::tanh(x);
    return (1.0f - t) * (1.0f + t);
  }
};
struct SiluDerivative {
  __attribute__((always_inline)) static F32 of(F32 x) { return simd::siluWithSlope(x).slope; }
};
struct GeluDerivative {
  __attribute__((always_inline)) static F32 of(F32 x) {
    constexpr float kInverseSqrt2Pi = 0x1.988454p-2f;
    const F32 z = bounded(x, 15.0f);
    return simd::fma(z * kInverseSqrt2Pi, simd::exp(z * z * -0.5f), simd::normalCdf(z));
  }
};
struct GeluTanhDerivative {
  __attribute__((always_inline)) static F32 of(F32 x) {
    constexpr float kTwiceSqrt2OverPi = 0x1.988454p0f;
    constexpr float kCubic = 0.044715f;
    const F32 z = bounded(x, 20.0f);
    const F32 square = z * z;
    const F32 u = z * simd::fma(square, broadcast(kCubic), broadcast(1.0f)) * kTwiceSqrt2OverPi;
    const F32 slope = simd::fma(square, broadcast(3 * kCubic), broadcast(1.0f)) * kTwiceSqrt2OverPi;
    const F32 s = simd::sigmoid(u);
    return simd::fma(z * s * simd::sigmoid(-u), slope, s);
  }
};

template <class Derivative, class T>
void backwardAs(const ActivationBackwardArgs& arguments, CpuContext& context) {
  const auto* x = static_cast<const T*>(arguments.x);
  const auto* dy = static_cast<const T*>(arguments.dy);
  auto* dx = static_cast<T*>(arguments.dx);
  context.pool.parallelFor(arguments.count, kElementGrain, [&](int64_t begin, int64_t end) {
    forEachVector(begin, end, [&](int64_t i, auto extent) {
      store(dx + i, load(dy + i, extent) * Derivative::of(load(x + i, extent)), extent);
    });
  });
}

template <class Derivative>
void backward(const ActivationBackwardArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    backwardAs<Derivative, BFloat16>(arguments, context);
  else
    backwardAs<Derivative, float>(arguments, context);
}

}  // namespace

void activationBackwardCpu(const ActivationBackwardArgs& arguments, CpuContext& context) {
  switch (arguments.activation) {
    case Activation::kNone:
      return backward<NoneDerivative>(arguments, context);
    case Activation::kRelu:
      return backward<ReluDerivative>(arguments, context);
    case Activation::kGelu:
      return backward<GeluDerivative>(arguments, context);
    case Activation::kGeluTanh:
      return backward<GeluTanhDerivative>(arguments, context);
    case Activation::kSilu:
      return backward<SiluDerivative>(arguments, context);
    case Activation::kTanh:
      return backward<TanhDerivative>(arguments, context);
    case Activation::kSigmoid:
      return backward<SigmoidDerivative>(arguments, context);
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
