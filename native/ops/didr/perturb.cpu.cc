// x_t = alpha x0 + sigma eps on the CPU, see perturb.h for the maths and shapes.
//
// Parallel over runs of the flat [batch * sampleSize] order, since that is what the noise is
// aligned to; a run may hold many samples or a part of one. A group of noise that lies in one
// sample takes the sample's coefficients from registers; one that meets a sample's boundary, or the
// end, looks its coefficients up lane by lane.
// Bytes: 4 read and 4 written per float32 element, 4 more with `noise`. Large outputs are stored past
// the caches. The noise's arithmetic is the larger cost (see native/ops/random/noise.cpu.h) and too
// long for the core to see the next loads behind it, so x0 is asked for a tile ahead.
#include "native/ops/didr/perturb.h"

#include "native/core/op.h"
#include "native/ops/didr/samples.cpu.h"
#include "native/ops/random/noise.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

template <class T>
struct Perturbation {
  const T* x0;
  T* xt;
  T* noise;
  const float* coefficients;
  int64_t sampleSize;
};

// The elements [first, first + count) of one group, which may belong to several samples. Returns
// sums of the inputs.
template <class T>
__attribute__((noinline)) F32 perturbMixed(const Perturbation<T>& op, int64_t first, int64_t count,
                                           const F32 (&eps)[4]) {
  float alpha[kNoiseGroup] = {};
  float sigma[kNoiseGroup] = {};
  forEachSample(first, first + count, op.sampleSize,
                [&](int64_t sample, int64_t begin, int64_t end) {
                  for (int64_t i = begin; i < end; ++i) {
                    alpha[i - first] = op.coefficients[2 * sample];
                    sigma[i - first] = op.coefficients[2 * sample + 1];
                  }
                });
  F32 total = simd::zero();
  for (int v = 0; v < 4; ++v) {
    const int lanes = simd::lanesLeft(count - v * kLanes);
    const int64_t i = first + v * kLanes;
    if (lanes == 0) break;
    const F32 x0 = simd::loadPartial(op.x0 + i, lanes);
    total += x0;
    const F32 xt =
        simd::fma(simd::load(sigma + v * kLanes), eps[v], simd::load(alpha + v * kLanes) * x0);
    simd::storePartial(op.xt + i, xt, lanes);
    if (op.noise != nullptr) simd::storePartial(op.noise + i, eps[v], lanes);
  }
  return total;
}

// Elements [first, last) of a tile. Returns sums of the inputs, which are not finite if an input is
// not.
template <bool kStreaming, class T>
DIDR_SIMD F32 perturbTile(const Perturbation<T>& op, const NoiseTile& tile, int64_t first,
                          int64_t last) {
  F32 total = simd::zero();
  F32 alpha = simd::zero();
  F32 sigma = simd::zero();
  int64_t sampleEnd = -1;
  int64_t group = 0;
  for (int64_t i = first; i < last; i += kNoiseGroup, ++group) {
    simd::prefetch(op.x0 + i + kNoiseTile, kNoiseGroup);
    F32 eps[4];
    tile.normals(group, eps);
    const int64_t groupEnd = i + kNoiseGroup;
    if (groupEnd > sampleEnd) {
      const int64_t sample = i / op.sampleSize;
      sampleEnd = (sample + 1) * op.sampleSize;
      if (groupEnd > sampleEnd || groupEnd > last) {
        // A copy, so that eps itself may stay in registers.
        const F32 copy[4] = {eps[0], eps[1], eps[2], eps[3]};
        total += perturbMixed(op, i, groupEnd < last ? kNoiseGroup : last - i, copy);
        sampleEnd = -1;
        continue;
      }
      alpha = simd::broadcast(op.coefficients[2 * sample]);
      sigma = simd::broadcast(op.coefficients[2 * sample + 1]);
    }
    for (int v = 0; v < 4; ++v) {
      const F32 x0 = simd::load(op.x0 + i + v * kLanes);
      total += x0;
      simd::storeOutput<kStreaming>(op.xt + i + v * kLanes, simd::fma(sigma, eps[v], alpha * x0));
    }
    if (op.noise != nullptr)
      for (int v = 0; v < 4; ++v) simd::storeOutput<kStreaming>(op.noise + i + v * kLanes, eps[v]);
  }
  return total;
}

template <class T>
DIDR_SIMD void perturbAs(const PerturbArgs& arguments, CpuContext& context) {
  const Perturbation<T> op = {static_cast<const T*>(arguments.x0), static_cast<T*>(arguments.xt),
                              static_cast<T*>(arguments.noise), arguments.coefficients,
                              arguments.sampleSize};
  const int64_t count = arguments.batch * arguments.sampleSize;
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  const bool streaming = simd::streamingPays(op.xt, bytes) &&
                         (op.noise == nullptr || simd::streamingPays(op.noise, bytes));
  for (int64_t b = 0; b < arguments.batch; ++b) arguments.nonFinite[b] = 0;
  context.pool.parallelFor(count, kNoiseRun, [&](int64_t begin, int64_t end) {
    forEachNoiseTile(arguments.seed, arguments.offset, begin, end,
                     [&](const NoiseTile& tile, int64_t first, int64_t last) {
                       const F32 total = streaming ? perturbTile<true>(op, tile, first, last)
                                                   : perturbTile<false>(op, tile, first, last);
                       if (simd::any(simd::isNonFinite(total)))
                         countNonFiniteBySample(op.x0, first, last, op.sampleSize,
                                                arguments.nonFinite);
                     });
    if (streaming) simd::streamFence();
  });
}

}  // namespace

void perturbCpu(const PerturbArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    perturbAs<BFloat16>(arguments, context);
  else
    perturbAs<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
