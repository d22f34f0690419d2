// The moving averages on the CPU, see ema.h for the maths.
//
// Parallel over blocks of the list. Bytes per element: 8 read (6 where the value is bfloat16), 4 written.
#include "native/ops/optim/ema.h"

#include "native/core/op.h"
#include "native/core/simd.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

// Blocks worth a thread.
constexpr int64_t kGrain = 2;

template <class T>
DIDR_SIMD void averageBlock(const EmaRow& row, float gain, int64_t begin, int64_t end) {
  float* const average = row.average;
  const auto* value = static_cast<const T*>(row.value);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    const F32 a = simd::load(average + i);
    simd::store(average + i, a + (simd::load(value + i) - a) * gain);
  }
  if (i == end) return;
  const int lanes = simd::lanesLeft(end - i);
  const F32 a = simd::loadPartial(average + i, lanes);
  simd::storePartial(average + i, a + (simd::loadPartial(value + i, lanes) - a) * gain, lanes);
}

}  // namespace

void emaCpu(const EmaArgs& arguments, CpuContext& context) {
  const auto gain = static_cast<float>(1 - arguments.decay);
  context.pool.parallelFor(arguments.blocks, kGrain, [&](int64_t first, int64_t last) {
    forEachListBlock(arguments.rows, arguments.tensors, first, last,
                     [&](const EmaRow& row, int64_t begin, int64_t end, int64_t) {
                       if (row.dtype == DType::kBFloat16)
                         averageBlock<BFloat16>(row, gain, begin, end);
                       else
                         averageBlock<float>(row, gain, begin, end);
                     });
  });
}

}  // namespace DIDR_LEVEL
}  // namespace didr
