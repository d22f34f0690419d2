// Random draws on the CPU: Philox and Box-Muller in registers, see noise.cpu.h.
//
// Parallel over runs of kNoiseRun elements; no run depends on another. Bytes: writes y, reads nothing. Draws far larger
// than the caches are written past them.
#include "native/ops/random/random.h"

#include "native/core/op.h"
#include "native/ops/random/noise.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

struct UniformElement {
  simd::F32 low, width, last;

  DIDR_MEMBER_HOST_DEVICE void group(const NoiseRun& run, int64_t block,
                                     simd::F32 (&values)[4]) const {
    uniformGroup(run, block, values);
    // Rounding may reach the excluded end.
    for (simd::F32& v : values) v = simd::min(simd::fma(width, v, low), last);
  }
};

struct NormalElement {
  simd::F32 mean, std;

  DIDR_MEMBER_HOST_DEVICE void group(const NoiseRun& run, int64_t block,
                                     simd::F32 (&values)[4]) const {
    normalGroup(run, block, values);
    for (simd::F32& v : values) v = simd::fma(std, v, mean);
  }
};

template <bool kStreaming, class T, class Element>
DIDR_SIMD void fillRun(const Element& element, const NoiseRun& run, T* y, int64_t begin,
                       int64_t end) {
  using namespace simd;
  int64_t i = begin;
  for (; i + kNoiseGroup <= end; i += kNoiseGroup) {
    F32 values[4];
    element.group(run, i / 4, values);
    for (int v = 0; v < 4; ++v) storeOutput<kStreaming>(y + i + v * kLanes, values[v]);
  }
  if (i < end) {
    F32 values[4];
    element.group(run, i / 4, values);
    for (int v = 0; v < 4; ++v) {
      const int64_t left = end - i - v * kLanes;
      if (left > 0)
        storePartial(y + i + v * kLanes, values[v],
                     static_cast<int>(left < kLanes ? left : kLanes));
    }
  }
}

template <class T, class Element, class Args>
DIDR_SIMD void fill(const Element& element, const Args& arguments, CpuContext& context) {
  T* const y = static_cast<T*>(arguments.y);
  const bool streaming = simd::streamingPays(y, arguments.count * static_cast<int64_t>(sizeof(T)));
  context.pool.parallelFor(arguments.count, kNoiseRun, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kNoiseRun) {
      const int64_t last = first + kNoiseRun < end ? first + kNoiseRun : end;
      const NoiseRun run = noiseRunAt(arguments.seed, arguments.offset, first);
      if (streaming)
        fillRun<true>(element, run, y, first, last);
      else
        fillRun<false>(element, run, y, first, last);
    }
    if (streaming) simd::streamFence();
  });
}

// The largest float below `high`, as long as that is not below `low`.
float lastBelow(float high, float low) {
  if (!(low < high)) return high;
  const uint32_t bits = bitsOf(high);
  if (high == 0.0f) return floatOf(0x80000001u);
  return floatOf(high > 0.0f ? bits - 1u : bits + 1u);
}

}  // namespace

void uniformCpu(const UniformArgs& arguments, CpuContext& context) {
  const UniformElement element = {simd::broadcast(arguments.low),
                                  simd::broadcast(arguments.high - arguments.low),
                                  simd::broadcast(lastBelow(arguments.high, arguments.low))};
  if (arguments.dtype == DType::kBFloat16)
    fill<BFloat16>(element, arguments, context);
  else
    fill<float>(element, arguments, context);
}

void normalCpu(const NormalArgs& arguments, CpuContext& context) {
  const NormalElement element = {simd::broadcast(arguments.mean), simd::broadcast(arguments.std)};
  if (arguments.dtype == DType::kBFloat16)
    fill<BFloat16>(element, arguments, context);
  else
    fill<float>(element, arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
