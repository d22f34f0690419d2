// RMSNorm and LayerNorm of rows on the CPU, see norm.h for the maths and shapes.
//
// Parallel over blocks of rows of one sample. Weight, bias, scale and shift fold into one factor
// and one offset per column, once per block: y = xhat factor + offset. Statistics of a row are sums
// over 16 logical lanes; the variance is taken about the mean in a second pass, since a row is in
// the first cache then.
// Backward a block also sums dy xhat and dy per column into its rows of `partials`; loops over
// columns add those up.
#include "native/ops/nn/norm.h"

#include "native/core/op.h"
#include "native/core/refuse.h"
#include "native/ops/nn/scratch.cpu.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::broadcast;
using simd::F32;
using simd::LaneSum;

constexpr const char* kStarved = "no memory for a row of factors";

// The parameters as one type, absent ones null.
template <class T>
struct Affine {
  const T* weight;
  const T* bias;
  const T* scale;
  const T* shift;
  int64_t size;

  template <class Extent>
  __attribute__((always_inline)) static F32 orElse(const T* row, int64_t i, Extent extent,
                                                   float absent) {
    return row == nullptr ? broadcast(absent) : load(row + i, extent);
  }
  template <class Extent>
  __attribute__((always_inline)) F32 modulation(int64_t sample, int64_t i, Extent extent) const {
    return scale == nullptr ? broadcast(1.0f) : load(scale + sample * size + i, extent) + 1.0f;
  }
  void fold(int64_t sample, float* factor, float* offset) const {
    forEachVector(0, size, [&](int64_t i, auto extent) {
      const F32 m = modulation(sample, i, extent);
      store(factor + i, orElse(weight, i, extent, 1.0f) * m, extent);
      if (offset == nullptr) return;
      const F32 h = shift == nullptr ? simd::zero() : load(shift + sample * size + i, extent);
      store(offset + i, simd::fma(orElse(bias, i, extent, 0.0f), m, h), extent);
    });
  }
};

struct Statistics {
  float mean, rstd;
};

template <NormKind kKind, class T>
DIDR_SIMD Statistics statisticsOf(const T* x, int64_t size, float epsilon) {
  const auto count = static_cast<float>(size);
  float mean = 0;
  if constexpr (kKind == NormKind::kLayer) {
    LaneSum sum;
    forEachLaneVector(
        size, [&](int64_t i, int part, auto extent) { sum.parts[part] += load(x + i, extent); });
    mean = sum.total() / count;
  }
  LaneSum squares;
  const F32 centre = broadcast(mean);
  forEachLaneVector(size, [&](int64_t i, int part, auto extent) {
    F32 d = load(x + i, extent) - centre;
    if constexpr (!__is_same(decltype(extent), Whole) && kKind == NormKind::kLayer)
      d = simd::select(simd::laneMask(extent.lanes), d, simd::zero());
    squares.parts[part] = simd::fma(d, d, squares.parts[part]);
  });
  return {mean, 1.0f / __builtin_sqrtf(squares.total() / count + epsilon)};
}

template <NormKind kKind, class T>
void forwardAs(const NormArgs& arguments, CpuContext& context) {
  const int64_t size = arguments.size;
  const Affine<T> affine{
      static_cast<const T*>(arguments.weight), static_cast<const T*>(arguments.bias),
      static_cast<const T*>(arguments.scale), static_cast<const T*>(arguments.shift), size};
  bool starved = false;
  context.pool.parallelFor(
      rowBlocks(arguments.rows, arguments.rowsPerSample), rowBlockGrain(size),
      [&](int64_t firstBlock, int64_t lastBlock) {
        float* factor = threadScratch.floats(2 * size);
        if (factor == nullptr) return __atomic_store_n(&starved, true, __ATOMIC_RELAXED);
        float* offset = factor + size;
        int64_t folded = -1;
        for (int64_t index = firstBlock; index < lastBlock; ++index) {
          const RowBlock block(index, arguments.rowsPerSample);
          if (block.sample != folded) affine.fold(folded = block.sample, factor, offset);
          for (int64_t row = block.begin; row < block.end; ++row) {
            const T* x = static_cast<const T*>(arguments.x) + row * size;
            T* y = static_cast<T*>(arguments.y) + row * size;
            const Statistics of = statisticsOf<kKind>(x, size, arguments.epsilon);
            const F32 mean = broadcast(of.mean);
            const F32 rstd = broadcast(of.rstd);
            forEachVector(0, size, [&](int64_t i, auto extent) {
              const F32 xhat = (load(x + i, extent) - mean) * rstd;
              store(y + i, simd::fma(xhat, load(factor + i, extent), load(offset + i, extent)),
                    extent);
            });
            if constexpr (kKind == NormKind::kLayer) arguments.mean[row] = of.mean;
            arguments.rstd[row] = of.rstd;
          }
        }
      });
  if (starved) refuse(context, Code::kOutOfMemory, kStarved);
}

// dx of one row, and its terms of the column sums.
template <NormKind kKind, class T>
DIDR_SIMD void backwardRow(const T* x, const T* dy, T* dx, Statistics of, const float* factor,
                           float* sumsXhat, float* sums, int64_t size) {
  const F32 mean = broadcast(of.mean);
  const F32 rstd = broadcast(of.rstd);
  LaneSum projection;
  LaneSum total;
  forEachLaneVector(size, [&](int64_t i, int part, auto extent) {
    const F32 g = load(dy + i, extent) * load(factor + i, extent);
    const F32 xhat = (load(x + i, extent) - mean) * rstd;
    projection.parts[part] = simd::fma(g, xhat, projection.parts[part]);
    if constexpr (kKind == NormKind::kLayer) total.parts[part] += g;
  });
  const auto count = static_cast<float>(size);
  const F32 alongXhat = broadcast(projection.total() / count);
  const F32 alongOnes = kKind == NormKind::kLayer ? broadcast(total.total() / count) : simd::zero();
  forEachVector(0, size, [&](int64_t i, auto extent) {
    const F32 gradient = load(dy + i, extent);
    const F32 g = gradient * load(factor + i, extent);
    const F32 xhat = (load(x + i, extent) - mean) * rstd;
    store(sumsXhat + i, simd::fma(gradient, xhat, load(sumsXhat + i, extent)), extent);
    if constexpr (kKind == NormKind::kLayer)
      store(sums + i, load(sums + i, extent) + gradient, extent);
    store(dx + i, (g - simd::fma(xhat, alongXhat, alongOnes)) * rstd, extent);
  });
}

// The sums of one sample's blocks at columns i to i + kLanes.
struct ColumnSums {
  F32 xhat, ones;
};
template <NormKind kKind, class Extent>
DIDR_SIMD ColumnSums addBlocks(const float* partials, int64_t blocks, int64_t size, int64_t i,
                               Extent extent) {
  ColumnSums sums{simd::zero(), simd::zero()};
  for (int64_t block = 0; block < blocks; ++block) {
    sums.xhat += load(partials + 2 * block * size + i, extent);
    if constexpr (kKind == NormKind::kLayer)
      sums.ones += load(partials + (2 * block + 1) * size + i, extent);
  }
  return sums;
}

template <NormKind kKind, class T>
void backwardAs(const NormBackwardArgs& arguments, CpuContext& context) {
  const int64_t size = arguments.size;
  const int64_t blocks = rowBlocks(arguments.rows, arguments.rowsPerSample);
  const Affine<T> affine{static_cast<const T*>(arguments.weight),
                         static_cast<const T*>(arguments.bias),
                         static_cast<const T*>(arguments.scale), nullptr, size};
  bool starved = false;
  context.pool.parallelFor(blocks, rowBlockGrain(size), [&](int64_t firstBlock, int64_t lastBlock) {
    float* factor = threadScratch.floats(size);
    if (factor == nullptr) return __atomic_store_n(&starved, true, __ATOMIC_RELAXED);
    int64_t folded = -1;
    for (int64_t index = firstBlock; index < lastBlock; ++index) {
      const RowBlock block(index, arguments.rowsPerSample);
      if (block.sample != folded) affine.fold(folded = block.sample, factor, nullptr);
      float* sumsXhat = arguments.partials + 2 * index * size;
      clear(sumsXhat, 2 * size);
      for (int64_t row = block.begin; row < block.end; ++row) {
        const float mean = kKind == NormKind::kLayer ? arguments.mean[row] : 0.0f;
        backwardRow<kKind>(static_cast<const T*>(arguments.x) + row * size,
                           static_cast<const T*>(arguments.dy) + row * size,
                           static_cast<T*>(arguments.dx) + row * size,
                           Statistics{mean, arguments.rstd[row]}, factor, sumsXhat, sumsXhat + size,
                           size);
      }
    }
  });
  if (starved) return refuse(context, Code::kOutOfMemory, kStarved);

  const int64_t samples = arguments.rows == 0 ? 0 : arguments.rows / arguments.rowsPerSample;
  const int64_t perSample = samples == 0 ? 0 : blocks / samples;
  // Whole vectors of columns per range: no two threads share one.
  context.pool.parallelFor(
      size, rowGrain(2 * blocks) / simd::kLogicalLanes * simd::kLogicalLanes + simd::kLogicalLanes,
      [&](int64_t begin, int64_t end) {
        forEachVector(begin, end, [&](int64_t i, auto extent) {
          F32 dweight = simd::zero();
          F32 dbias = simd::zero();
          const F32 weight = Affine<T>::orElse(affine.weight, i, extent, 1.0f);
          const F32 bias = Affine<T>::orElse(affine.bias, i, extent, 0.0f);
          for (int64_t sample = 0; sample < samples; ++sample) {
            const ColumnSums sums = addBlocks<kKind>(
                arguments.partials + 2 * sample * perSample * size, perSample, size, i, extent);
            const F32 m = affine.modulation(sample, i, extent);
            dweight = simd::fma(m, sums.xhat, dweight);
            dbias = simd::fma(m, sums.ones, dbias);
            const int64_t at = sample * size + i;
            if (arguments.dscale != nullptr)
              store(arguments.dscale + at, simd::fma(weight, sums.xhat, bias * sums.ones), extent);
            if (arguments.dshift != nullptr) store(arguments.dshift + at, sums.ones, extent);
          }
          if (arguments.dweight != nullptr) store(arguments.dweight + i, dweight, extent);
          if (arguments.dbias != nullptr) store(arguments.dbias + i, dbias, extent);
        });
      });
}

}  // namespace

void normCpu(const NormArgs& arguments, CpuContext& context) {
  const bool rms = arguments.kind == NormKind::kRms;
  if (arguments.dtype == DType::kBFloat16)
    rms ? forwardAs<NormKind::kRms, BFloat16>(arguments, context)
        : forwardAs<NormKind::kLayer, BFloat16>(arguments, context);
  else
    rms ? forwardAs<NormKind::kRms, float>(arguments, context)
        : forwardAs<NormKind::kLayer, float>(arguments, context);
}

void normBackwardCpu(const NormBackwardArgs& arguments, CpuContext& context) {
  const bool rms = arguments.kind == NormKind::kRms;
  if (arguments.dtype == DType::kBFloat16)
    rms ? backwardAs<NormKind::kRms, BFloat16>(arguments, context)
        : backwardAs<NormKind::kLayer, BFloat16>(arguments, context);
  else
    rms ? backwardAs<NormKind::kRms, float>(arguments, context)
        : backwardAs<NormKind::kLayer, float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
