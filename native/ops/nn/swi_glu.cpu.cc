// silu(a) b and its backward pass on the CPU, see swi_glu.h. Parallel over runs of elements.
#include "native/ops/nn/swi_glu.h"

#include "native/core/op.h"
#include "native/ops/nn/silu.cpu.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;

template <class T>
void forwardAs(const SwiGluArgs& arguments, CpuContext& context) {
  const auto* a = static_cast<const T*>(arguments.a);
  const auto* b = static_cast<const T*>(arguments.b);
  auto* y = static_cast<T*>(arguments.y);
  context.pool.parallelFor(arguments.count, kElementGrain, [&](int64_t begin, int64_t end) {
    forEachVector(begin, end, [&](int64_t i, auto extent) {
      store(y + i, simd::silu(load(a + i, extent)) * load(b + i, extent), extent);
    });
  });
}

template <class T>
void backwardAs(const SwiGluBackwardArgs& arguments, CpuContext& context) {
  const auto* a = static_cast<const T*>(arguments.a);
  const auto* b = static_cast<const T*>(arguments.b);
  const auto* dy = static_cast<const T*>(arguments.dy);
  auto* da = static_cast<T*>(arguments.da);
  auto* db = static_cast<T*>(arguments.db);
  context.pool.parallelFor(arguments.count, kElementGrain, [&](int64_t begin, int64_t end) {
    forEachVector(begin, end, [&](int64_t i, auto extent) {
      const F32 z = load(a + i, extent);
      const F32 gradient = load(dy + i, extent);
      const F32 other = load(b + i, extent);
      const simd::Silu silu = simd::siluWithSlope(z);
      store(db + i, gradient * silu.value, extent);
      store(da + i, gradient * other * silu.slope, extent);
    });
  });
}

}  // namespace

void swiGluCpu(const SwiGluArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    forwardAs<BFloat16>(arguments, context);
  else
    forwardAs<float>(arguments, context);
}

void swiGluBackwardCpu(const SwiGluBackwardArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    backwardAs<BFloat16>(arguments, context);
  else
    backwardAs<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
