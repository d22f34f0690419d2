// Rotary embedding on the CPU, see rope.h. Parallel over rows; a vector of angles is spread to
// pairs of lanes once and serves all heads of its row.
#include "native/ops/nn/rope.h"

#include "native/core/op.h"
#include "native/ops/nn/pairs.cpu.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::U32Half;

// The angles of one vector of pairs, each in both lanes of its pair.
DIDR_SIMD F32 loadRepeated(const float* p, Whole) {
  return simd::repeatEach(simd::loadBits<U32Half>(p));
}
DIDR_SIMD F32 loadRepeated(const float* p, Part part) {
  return simd::repeatEach(simd::loadBitsPartial<U32Half>(p, part.lanes / 2));
}

template <class T>
void rotate(const RopeArgs& arguments, CpuContext& context) {
  const int64_t size = arguments.size;
  const int64_t rowSize = arguments.heads * size;
  // Flips the sine's sign in the lanes of x_2i (forward) or x_2i+1 (inverse).
  const simd::I32 odd = simd::laneIndex() & 1;
  const simd::U32 signs = simd::asBits(arguments.inverse ? odd << 31 : (odd ^ 1) << 31);
  context.pool.parallelFor(
      arguments.rows, rowGrain(rowSize), [&](int64_t firstRow, int64_t lastRow) {
        for (int64_t row = firstRow; row < lastRow; ++row) {
          const T* x = static_cast<const T*>(arguments.x) + row * rowSize;
          T* y = static_cast<T*>(arguments.y) + row * rowSize;
          const int64_t angles = row % arguments.tableRows * (size / 2);
          forEachVector(0, size, [&](int64_t i, auto extent) {
            const F32 cos = loadRepeated(arguments.cos + angles + i / 2, extent);
            const F32 sin = simd::asFloat(
                simd::asBits(loadRepeated(arguments.sin + angles + i / 2, extent)) ^ signs);
            for (int64_t at = i; at < rowSize; at += size) {
              const F32 pairs = load(x + at, extent);
              store(y + at, simd::fma(simd::swapPairs(pairs), sin, pairs * cos), extent);
            }
          });
        }
      });
}

}  // namespace

void ropeCpu(const RopeArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    rotate<BFloat16>(arguments, context);
  else
    rotate<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
