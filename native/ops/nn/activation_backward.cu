// dx = dy f'(x) on CUDA, see activation_backward.h; the derivatives and their bounds are those of
// activation_backward.cpu.cc, with the same bits.
//
// A grid-stride loop over vectors of 16 bytes; the last may be partial. Which activation it is, all
// threads agree on: one kernel per dtype serves them all. Bytes per element: x and dy read, dx
// written.
#include "native/ops/nn/activation_backward.h"
#include "native/ops/nn/silu.cuda.h"
#include "native/ops/nn/vectors.cuda.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

// A NaN passes, as the second operand of min and max.
__device__ inline float bounded(float x, float limit) {
  return scalar::min(limit, scalar::max(-limit, x));
}

__device__ inline float geluDerivative(float x) {
  constexpr float kInverseSqrt2Pi = 0x1.988454p-2f;
  const float z = bounded(x, 15.0f);
  return __fmaf_rn(z * kInverseSqrt2Pi, scalar::exp(z * z * -0.5f), scalar::normalCdf(z));
}

__device__ inline float geluTanhDerivative(float x) {
  constexpr float kTwiceSqrt2OverPi = 0x1.988454p0f;
  constexpr float kCubic = 0.044715f;
  const float z = bounded(x, 20.0f);
  const float square = z * z;
  const float u = z * __fmaf_rn(square, kCubic, 1.0f) * kTwiceSqrt2OverPi;
  const float slope = __fmaf_rn(square, 3 * kCubic, 1.0f) * kTwiceSqrt2OverPi;
  const float s = scalar::sigmoid(u);
  return __fmaf_rn(z * s * scalar::sigmoid(-u), slope, s);
}

__device__ inline float derivative(Activation activation, float x) {
  switch (activation) {
    case Activation::kNone:
      return 1.0f;
    case Activation::kRelu:
      return scalar::isNan(x) ? x : x > 0.0f ? 1.0f : 0.0f;
    case Activation::kGelu:
      return geluDerivative(x);
    case Activation::kGeluTanh:
      return geluTanhDerivative(x);
    case Activation::kSilu:
      return siluWithSlope(x).slope;
    case Activation::kTanh: {
      const float t = scalar::tanh(x);
      return (1.0f - t) * (1.0f + t);
    }
    case Activation::kSigmoid:
      return scalar::sigmoid(x) * scalar::sigmoid(-x);
  }
  return 0.0f;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    activationBackwardKernel(ActivationBackwardArgs arguments) {
  constexpr int V = kVector<T>;
  forEachPart<T>(arguments.count, [&](int64_t first, const VectorPart& part) {
    float x[V], dy[V];
    loadPart(static_cast<const T*>(arguments.x) + first, part, x);
    loadPart(static_cast<const T*>(arguments.dy) + first, part, dy);
#pragma unroll
    for (int i = 0; i < V; ++i) dy[i] *= derivative(arguments.activation, x[i]);
    storePart(static_cast<T*>(arguments.dx) + first, part, dy);
  });
}

}  // namespace

void activationBackwardCuda(const ActivationBackwardArgs& arguments, CudaContext& context) {
  if (arguments.count <= 0) return;
  const bool wide = arguments.dtype == DType::kFloat32;
  const unsigned blocks = context.gridStrideBlocks(
      arguments.count, kThreads * (wide ? kVector<float> : kVector<BFloat16>));
  context.launch("activationBackward",
                 wide ? activationBackwardKernel<float> : activationBackwardKernel<BFloat16>,
                 blocks, kThreads, arguments);
}

}  // namespace didr
