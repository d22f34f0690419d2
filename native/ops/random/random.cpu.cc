// Random draws on the CPU: Philox and Box-Muller in vectors, see noise.cpu.h.
//
// Parallel over runs of kNoiseRun elements; no run depends on another. Bytes: writes y, reads
// nothing.
#include "native/ops/random/random.h"

#include "native/core/op.h"
#include "native/ops/random/noise.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

struct UniformDraw {
  simd::F32 low, width, last;

  DIDR_MEMBER_HOST_DEVICE void group(const NoiseTile& tile, int64_t g,
                                     simd::F32 (&values)[4]) const {
    tile.uniforms(g, values);
    // Rounding may reach the excluded end.
    for (simd::F32& v : values) v = simd::min(simd::fma(width, v, low), last);
  }
};

struct NormalDraw {
  simd::F32 mean, std;

  DIDR_MEMBER_HOST_DEVICE void group(const NoiseTile& tile, int64_t g,
                                     simd::F32 (&values)[4]) const {
    tile.normals(g, values);
    for (simd::F32& v : values) v = simd::fma(std, v, mean);
  }
};

template <class T, class Draw>
DIDR_SIMD void writeTile(const Draw& draw, const NoiseTile& tile, T* y, int64_t count) {
  using namespace simd;
  const int64_t groups = count / kNoiseGroup;
  for (int64_t g = 0; g < groups; ++g) {
    F32 values[4];
    draw.group(tile, g, values);
    for (int v = 0; v < 4; ++v) store(y + g * kNoiseGroup + v * kLanes, values[v]);
  }
  const int64_t rest = count - groups * kNoiseGroup;
  if (rest == 0) return;
  F32 values[4];
  draw.group(tile, groups, values);
  for (int v = 0; v < 4 && v * kLanes < rest; ++v) {
    const int64_t lanes = rest - v * kLanes < kLanes ? rest - v * kLanes : kLanes;
    storePartial(y + groups * kNoiseGroup + v * kLanes, values[v], static_cast<int>(lanes));
  }
}

template <class T, class Draw, class Args>
DIDR_SIMD void fill(const Draw& draw, const Args& arguments, CpuContext& context) {
  T* const y = static_cast<T*>(arguments.y);
  context.pool.parallelFor(arguments.count, kNoiseRun, [&](int64_t begin, int64_t end) {
    forEachNoiseTile(arguments.seed, arguments.offset, begin, end,
                     [&](const NoiseTile& tile, int64_t first, int64_t last) {
                       writeTile(draw, tile, y + first, last - first);
                     });
  });
}

// The largest float below `high`, where that is not below `low`.
float lastBelow(float high, float low) {
  if (!(low < high)) return high;
  if (high == 0.0f) return floatOf(0x80000001u);
  return floatOf(high > 0.0f ? bitsOf(high) - 1u : bitsOf(high) + 1u);
}

}  // namespace

void uniformCpu(const UniformArgs& arguments, CpuContext& context) {
  const UniformDraw draw = {simd::broadcast(arguments.low),
                            simd::broadcast(arguments.high - arguments.low),
                            simd::broadcast(lastBelow(arguments.high, arguments.low))};
  if (arguments.dtype == DType::kBFloat16)
    fill<BFloat16>(draw, arguments, context);
  else
    fill<float>(draw, arguments, context);
}

void normalCpu(const NormalArgs& arguments, CpuContext& context) {
  const NormalDraw draw = {simd::broadcast(arguments.mean), simd::broadcast(arguments.std)};
  if (arguments.dtype == DType::kBFloat16)
    fill<BFloat16>(draw, arguments, context);
  else
    fill<float>(draw, arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
