// GroupNorm with SiLU on the CPU, see group_norm.h for the maths and shapes.
//
// Parallel over (sample, group): a group's channels are one contiguous run. Sums run over 16
// logical lanes in runs of kRun elements, which add up in float64. Backward, a channel's two sums
// come first (and go to `partials` for the parameters' gradients), then dx; z and its derivative
// are computed in both passes rather than stored.
#include "native/ops/nn/group_norm.h"

#include "native/core/op.h"
#include "native/core/simd_math.h"
#include "native/ops/nn/silu.cpu.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::broadcast;
using simd::F32;
using simd::LaneSum;

constexpr int64_t kRun = 4096;

// Calls body(begin, length) for runs of [0, count).
template <class Body>
DIDR_SIMD void forEachRun(int64_t count, const Body& body) {
  for (int64_t begin = 0; begin < count; begin += kRun)
    body(begin, count - begin < kRun ? count - begin : kRun);
}

struct Statistics {
  float mean, rstd;
};

template <class T>
DIDR_SIMD Statistics statisticsOf(const T* x, int64_t count, float epsilon) {
  double total = 0;
  forEachRun(count, [&](int64_t begin, int64_t length) {
    LaneSum sum;
    forEachLaneVector(length, [&](int64_t i, int part, auto extent) {
      sum.parts[part] += load(x + begin + i, extent);
    });
    total += static_cast<double>(sum.total());
  });
  const auto mean = static_cast<float>(total / static_cast<double>(count));
  double squares = 0;
  forEachRun(count, [&](int64_t begin, int64_t length) {
    LaneSum sum;
    forEachLaneVector(length, [&](int64_t i, int part, auto extent) {
      F32 d = load(x + begin + i, extent) - mean;
      if constexpr (!__is_same(decltype(extent), Whole))
        d = simd::select(simd::laneMask(extent.lanes), d, simd::zero());
      sum.parts[part] = simd::fma(d, d, sum.parts[part]);
    });
    squares += static_cast<double>(sum.total());
  });
  const auto variance = static_cast<float>(squares / static_cast<double>(count));
  return {mean, 1.0f / __builtin_sqrtf(variance + epsilon)};
}

template <class T>
DIDR_SIMD F32 parameter(const void* row, int64_t channel, float absent) {
  return broadcast(row == nullptr ? absent : toFloat(static_cast<const T*>(row)[channel]));
}

template <bool kSilu, class T>
void forwardAs(const GroupNormArgs& arguments, CpuContext& context) {
  const int64_t pixels = arguments.pixels;
  const int64_t perGroup = arguments.channels / arguments.groups;
  const int64_t count = perGroup * pixels;
  context.pool.parallelFor(arguments.batch * arguments.groups, rowGrain(4 * count),
                           [&](int64_t first, int64_t last) {
                             for (int64_t group = first; group < last; ++group) {
                               const T* x = static_cast<const T*>(arguments.x) + group * count;
                               T* y = static_cast<T*>(arguments.y) + group * count;
                               const Statistics of = statisticsOf(x, count, arguments.epsilon);
                               arguments.mean[group] = of.mean;
                               arguments.rstd[group] = of.rstd;
                               for (int64_t c = 0; c < perGroup; ++c, x += pixels, y += pixels) {
                                 const int64_t channel = group % arguments.groups * perGroup + c;
                                 const F32 weight = parameter<T>(arguments.weight, channel, 1.0f);
                                 const F32 bias = parameter<T>(arguments.bias, channel, 0.0f);
                                 forEachVector(0, pixels, [&](int64_t i, auto extent) {
                                   const F32 xhat = (load(x + i, extent) - of.mean) * of.rstd;
                                   const F32 z = simd::fma(xhat, weight, bias);
                                   store(y + i, kSilu ? simd::silu(z) : z, extent);
                                 });
                               }
                             }
                           });
}

// The normalised element and the cotangent of z at it.
struct Element {
  F32 xhat, dz;
};

template <bool kSilu, class T, class Extent>
DIDR_SIMD Element elementOf(const T* x, const T* dy, Statistics of, F32 weight, F32 bias,
                            Extent extent) {
  Element element{(load(x, extent) - of.mean) * of.rstd, load(dy, extent)};
  if constexpr (kSilu)
    element.dz = element.dz * simd::siluWithSlope(simd::fma(element.xhat, weight, bias)).slope;
  return element;
}

template <bool kSilu, class T>
void backwardAs(const GroupNormBackwardArgs& arguments, CpuContext& context) {
  const int64_t pixels = arguments.pixels;
  const int64_t perGroup = arguments.channels / arguments.groups;
  const int64_t count = perGroup * pixels;
  context.pool.parallelFor(
      arguments.batch * arguments.groups, rowGrain(8 * count), [&](int64_t first, int64_t last) {
        for (int64_t group = first; group < last; ++group) {
          const T* x = static_cast<const T*>(arguments.x) + group * count;
          const T* dy = static_cast<const T*>(arguments.dy) + group * count;
          T* dx = static_cast<T*>(arguments.dx) + group * count;
          const Statistics of{arguments.mean[group], arguments.rstd[group]};
          const int64_t firstChannel = group % arguments.groups * perGroup;
          float* partials = arguments.partials + 2 * group * perGroup;
          double alongXhat = 0;
          double alongOnes = 0;
          for (int64_t c = 0; c < perGroup; ++c) {
            const F32 weight = parameter<T>(arguments.weight, firstChannel + c, 1.0f);
            const F32 bias = parameter<T>(arguments.bias, firstChannel + c, 0.0f);
            double sumXhat = 0;
            double sumOnes = 0;
            forEachRun(pixels, [&](int64_t begin, int64_t length) {
              LaneSum products;
              LaneSum ones;
              const int64_t offset = c * pixels + begin;
              forEachLaneVector(length, [&](int64_t i, int part, auto extent) {
                const Element at =
                    elementOf<kSilu>(x + offset + i, dy + offset + i, of, weight, bias, extent);
                products.parts[part] = simd::fma(at.dz, at.xhat, products.parts[part]);
                ones.parts[part] += at.dz;
              });
              sumXhat += static_cast<double>(products.total());
              sumOnes += static_cast<double>(ones.total());
            });
            partials[2 * c] = static_cast<float>(sumXhat);
            partials[2 * c + 1] = static_cast<float>(sumOnes);
            alongXhat += static_cast<double>(weight[0]) * sumXhat;
            alongOnes += static_cast<double>(weight[0]) * sumOnes;
          }
          const F32 meanXhat =
              broadcast(static_cast<float>(alongXhat / static_cast<double>(count)));
          const F32 meanOnes =
              broadcast(static_cast<float>(alongOnes / static_cast<double>(count)));
          for (int64_t c = 0; c < perGroup; ++c, x += pixels, dy += pixels, dx += pixels) {
            const F32 weight = parameter<T>(arguments.weight, firstChannel + c, 1.0f);
            const F32 bias = parameter<T>(arguments.bias, firstChannel + c, 0.0f);
            forEachVector(0, pixels, [&](int64_t i, auto extent) {
              const Element at = elementOf<kSilu>(x + i, dy + i, of, weight, bias, extent);
              const F32 along = simd::fma(at.xhat, meanXhat, meanOnes);
              store(dx + i, (at.dz * weight - along) * of.rstd, extent);
            });
          }
        }
      });
  for (int64_t channel = 0; channel < arguments.channels; ++channel) {
    double dweight = 0;
    double dbias = 0;
    for (int64_t sample = 0; sample < arguments.batch; ++sample) {
      const float* sums = arguments.partials + 2 * (sample * arguments.channels + channel);
      dweight += static_cast<double>(sums[0]);
      dbias += static_cast<double>(sums[1]);
    }
    if (arguments.dweight != nullptr) arguments.dweight[channel] = static_cast<float>(dweight);
    if (arguments.dbias != nullptr) arguments.dbias[channel] = static_cast<float>(dbias);
  }
}

}  // namespace

void groupNormCpu(const GroupNormArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    arguments.silu ? forwardAs<true, BFloat16>(arguments, context)
                   : forwardAs<false, BFloat16>(arguments, context);
  else
    arguments.silu ? forwardAs<true, float>(arguments, context)
                   : forwardAs<false, float>(arguments, context);
}

void groupNormBackwardCpu(const GroupNormBackwardArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    arguments.silu ? backwardAs<true, BFloat16>(arguments, context)
                   : backwardAs<false, BFloat16>(arguments, context);
  else
    arguments.silu ? backwardAs<true, float>(arguments, context)
                   : backwardAs<false, float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
