// The AdamW step on CUDA: the contract of adamw.h.
//
// One thread block per block of the list. Its first thread works out the row's scalars in float64;
// then a thread updates 4 elements at a time, 16 bytes of float32 or 8 of bfloat16, and the
// elements after a tensor's last vector one by one. The CPU's operations in its order and nothing
// fused, so its bits. The counts of steps go up in a second launch, when every block has read them.
// Bytes per float32 element: 16 read, 12 written; bfloat16 with master: 16 or 14 read, 14 written.
#include <cmath>

#include "native/core/cuda_math.h"
#include "native/core/cuda_packed.h"
#include "native/core/cuda_vector.h"
#include "native/ops/optim/adamw.h"
#include "native/ops/optim/list.cuda.h"

namespace didr {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 4;

// base^exponent by squaring.
__device__ inline double powerOf(double base, int64_t exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if ((exponent & 1) != 0) result *= base;
  return result;
}

// keep * before + gain * now, where keep + gain = 1, from the smaller of the two (see
// adamw.cpu.cc).
__device__ inline float mix(float before, float now, float keep, float gain) {
  return gain <= 0.5f ? before + (now - before) * gain : now + (before - now) * keep;
}

// The scalars of a row.
struct Update {
  float clip, keep1, gain1, keep2, gain2, shrink, stepSize, inverseRoot, eps;

  static __device__ Update of(const AdamwRow& row, float clip) {
    const int64_t step = int64_t{*row.step} + 1;
    return {clip,
            static_cast<float>(row.beta1),
            static_cast<float>(1.0 - row.beta1),
            static_cast<float>(row.beta2),
            static_cast<float>(1.0 - row.beta2),
            static_cast<float>(row.learningRate * row.weightDecay),
            static_cast<float>(row.learningRate / (1.0 - powerOf(row.beta1, step))),
            static_cast<float>(1.0 / std::sqrt(1.0 - powerOf(row.beta2, step))),
            static_cast<float>(row.eps)};
  }

  __device__ void apply(float gradient, float& p, float& m, float& v) const {
    const float g = gradient * clip;
    m = mix(m, g, keep1, gain1);
    v = mix(v, g * g, keep2, gain2);
    p = p - (p * shrink + stepSize * m / (scalar::sqrt(v) * inverseRoot + eps));
  }
};

// Elements [begin, end) of a row. `value` holds the float32 parameter: itself, or its master copy,
// which `rounded` (else null) follows.
template <class G>
__device__ void stepPiece(const AdamwRow& row, const Update& update, float* value,
                          BFloat16* rounded, int64_t begin, int64_t end) {
  const G* const gradient = inGlobalMemory(static_cast<const G*>(row.gradient));
  float* const firstMoment = inGlobalMemory(row.firstMoment);
  float* const secondMoment = inGlobalMemory(row.secondMoment);
  const int64_t whole = begin + (end - begin) / kElements * kElements;
  for (int64_t i = begin + int64_t{threadIdx.x} * kElements; i < whole; i += kThreads * kElements) {
    Packed<G, kElements> g;
    Packed<float, kElements> p, m, v;
    g.load(gradient + i);
    p.load(value + i);
    m.load(firstMoment + i);
    v.load(secondMoment + i);
    Packed<BFloat16, kElements> narrow;
    narrow.clear();
#pragma unroll
    for (int k = 0; k < kElements; ++k) {
      float pk = p.get(k), mk = m.get(k), vk = v.get(k);
      update.apply(toFloat(g.get(k)), pk, mk, vk);
      p.set(k, pk);
      m.set(k, mk);
      v.set(k, vk);
      BFloat16 element;
      storeElement(&element, pk);
      narrow.set(k, element);
    }
    m.store(firstMoment + i);
    v.store(secondMoment + i);
    p.store(value + i);
    if (rounded != nullptr) narrow.store(rounded + i);
  }
  for (int64_t i = whole + threadIdx.x; i < end; i += kThreads) {
    float p = value[i], m = firstMoment[i], v = secondMoment[i];
    update.apply(toFloat(gradient[i]), p, m, v);
    firstMoment[i] = m;
    secondMoment[i] = v;
    value[i] = p;
    if (rounded != nullptr) storeElement(rounded + i, p);
  }
}

__global__ void __launch_bounds__(kThreads) adamwKernel(AdamwArgs arguments) {
  const float clip = *arguments.clip;
  if (scalar::isNan(clip)) return;
  const ListPiece<AdamwRow> piece(arguments.rows, arguments.tensors, blockIdx.x);
  const AdamwRow& row = arguments.rows[piece.number];
  DIDR_SHARED(Update, shared, 1);
  if (threadIdx.x == 0) shared[0] = Update::of(row, clip);
  __syncthreads();
  const Update update = shared[0];
  const bool hasMaster = row.master != nullptr;
  float* const value = inGlobalMemory(hasMaster ? row.master : static_cast<float*>(row.parameter));
  BFloat16* const rounded = hasMaster ? static_cast<BFloat16*>(row.parameter) : nullptr;
  if (row.gradientDType == DType::kBFloat16)
    stepPiece<BFloat16>(row, update, value, rounded, piece.begin, piece.end);
  else
    stepPiece<float>(row, update, value, rounded, piece.begin, piece.end);
}

__global__ void __launch_bounds__(kThreads) adamwStepsKernel(AdamwArgs arguments) {
  if (scalar::isNan(*arguments.clip)) return;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < arguments.tensors) ++*arguments.rows[i].step;
}

}  // namespace

void adamwCuda(const AdamwArgs& arguments, CudaContext& context) {
  if (arguments.blocks > 0)
    context.launch("adamw", adamwKernel, dim3(static_cast<unsigned>(arguments.blocks)), kThreads,
                   arguments);
  if (arguments.tensors > 0)
    context.launch("adamw's steps", adamwStepsKernel,
                   dim3(static_cast<unsigned>((arguments.tensors + kThreads - 1) / kThreads)),
                   kThreads, arguments);
}

}  // namespace didr
