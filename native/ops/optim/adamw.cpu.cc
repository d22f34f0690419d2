// The AdamW step on the CPU, see adamw.h for the maths.
//
// Parallel over blocks of the list; every element is computed from its own five numbers, so any split gives the same
// bits. No product is fused with a sum, which keeps the bits the same on machines with and without fma; the op is bound
// by memory either way. Bytes per float32 element: 16 read, 12 written; bfloat16 with master: 16 or 14 read, 14 written.
#include "native/ops/optim/adamw.h"

#include "native/core/op.h"
#include "native/core/simd.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

// Blocks worth a thread.
constexpr int64_t kGrain = 1;

// base^exponent by squaring: the same bits from every compiler and library.
DIDR_SIMD double powerOf(double base, int64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

// keep * before + gain * now, where keep + gain = 1, from the smaller of the two: 0.999 in float32 is wrong by 1e-8, which
// a thousand steps of memory add up to 1e-5, while 1 - 0.999 is right to 6e-8 of itself.
DIDR_SIMD F32 mix(F32 before, F32 now, float keep, float gain) {
  return gain <= 0.5f ? before + (now - before) * gain : now + (before - now) * keep;
}

// The scalars of a row, worked out in float64.
struct Update {
  float clip, keep1, gain1, keep2, gain2, shrink, stepSize, inverseRoot, eps;

  __attribute__((always_inline)) Update(const AdamwRow& row, float clipFactor) : clip(clipFactor) {
    const int64_t step = int64_t{*row.step} + 1;
    keep1 = static_cast<float>(row.beta1);
    gain1 = static_cast<float>(1 - row.beta1);
    keep2 = static_cast<float>(row.beta2);
    gain2 = static_cast<float>(1 - row.beta2);
    shrink = static_cast<float>(row.learningRate * row.weightDecay);
    stepSize = static_cast<float>(row.learningRate / (1 - powerOf(row.beta1, step)));
    inverseRoot = static_cast<float>(1 / __builtin_sqrt(1 - powerOf(row.beta2, step)));
    eps = static_cast<float>(row.eps);
  }

  __attribute__((always_inline)) void apply(F32 gradient, F32& p, F32& m, F32& v) const {
    const F32 g = gradient * clip;
    m = mix(m, g, keep1, gain1);
    v = mix(v, g * g, keep2, gain2);
    // What the step takes off is summed first: a factor 1 - shrink of float32 would be wrong by up to 3e-8, more than
    // the decay itself at small learning rates.
    p = p - (p * shrink + stepSize * m / (simd::sqrt(v) * inverseRoot + eps));
  }
};

// Elements [begin, end) of a row. `value` holds the float32 parameter: itself, or its master copy.
template <class P, class G>
DIDR_SIMD void stepBlock(const AdamwRow& row, const Update& update, float* value, int64_t begin,
                         int64_t end) {
  const auto* gradient = static_cast<const G*>(row.gradient);
  auto* rounded = static_cast<P*>(row.parameter);
  float* const firstMoment = row.firstMoment;
  float* const secondMoment = row.secondMoment;
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    F32 p = simd::load(value + i);
    F32 m = simd::load(firstMoment + i);
    F32 v = simd::load(secondMoment + i);
    update.apply(simd::load(gradient + i), p, m, v);
    simd::store(firstMoment + i, m);
    simd::store(secondMoment + i, v);
    simd::store(value + i, p);
    if constexpr (sizeof(P) < sizeof(float)) simd::store(rounded + i, p);
  }
  if (i == end) return;
  const int lanes = simd::lanesLeft(end - i);
  F32 p = simd::loadPartial(value + i, lanes);
  F32 m = simd::loadPartial(firstMoment + i, lanes);
  F32 v = simd::loadPartial(secondMoment + i, lanes);
  update.apply(simd::loadPartial(gradient + i, lanes), p, m, v);
  simd::storePartial(firstMoment + i, m, lanes);
  simd::storePartial(secondMoment + i, v, lanes);
  simd::storePartial(value + i, p, lanes);
  if constexpr (sizeof(P) < sizeof(float)) simd::storePartial(rounded + i, p, lanes);
}

template <class P>
DIDR_SIMD void stepRow(const AdamwRow& row, const Update& update, float* value, int64_t begin,
                       int64_t end) {
  if (row.gradientDType == DType::kBFloat16)
    stepBlock<P, BFloat16>(row, update, value, begin, end);
  else
    stepBlock<P, float>(row, update, value, begin, end);
}

}  // namespace

void adamwCpu(const AdamwArgs& arguments, CpuContext& context) {
  const float clip = *arguments.clip;
  if (clip != clip) return;
  context.pool.parallelFor(arguments.blocks, kGrain, [&](int64_t first, int64_t last) {
    forEachListBlock(arguments.rows, arguments.tensors, first, last,
                     [&](const AdamwRow& row, int64_t begin, int64_t end, int64_t) {
                       const Update update(row, clip);
                       if (row.master != nullptr)
                         stepRow<BFloat16>(row, update, row.master, begin, end);
                       else
                         stepRow<float>(row, update, static_cast<float*>(row.parameter), begin,
                                        end);
                     });
  });
  for (int64_t i = 0; i < arguments.tensors; ++i) ++*arguments.rows[i].step;
}

}  // namespace DIDR_LEVEL
}  // namespace didr
