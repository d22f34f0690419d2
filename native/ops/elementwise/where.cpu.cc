// `where` on the CPU: y = condition ? a : b with broadcasting. Contract: where.h.
//
// Parallel over the elements of y; bound by memory. The compiler turns the loops into vector
// selects, one loop per combination of operands that advance or repeat.
#include "native/ops/elementwise/where.h"

#include "native/core/op.h"
#include "native/ops/elementwise/broadcast.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

constexpr int64_t kGrain = 65536;

template <class Bits, int kC, int kA, int kB>
void loop(const uint8_t* condition, const Bits* a, const Bits* b, Bits* y, int64_t count) {
// y may be a or b: element i of y is written after element i of them is read.
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const Bits yes = a[i * kA];
    const Bits no = b[i * kB];
    y[i] = condition[i * kC] != 0 ? yes : no;
  }
}

template <class Bits, int kC>
void run(const void* const* operands, const bool* repeated, Bits* y, int64_t count) {
  const auto* condition = static_cast<const uint8_t*>(operands[0]);
  const auto* a = static_cast<const Bits*>(operands[1]);
  const auto* b = static_cast<const Bits*>(operands[2]);
  if (repeated[1])
    return repeated[2] ? loop<Bits, kC, 0, 0>(condition, a, b, y, count)
                       : loop<Bits, kC, 0, 1>(condition, a, b, y, count);
  return repeated[2] ? loop<Bits, kC, 1, 0>(condition, a, b, y, count)
                     : loop<Bits, kC, 1, 1>(condition, a, b, y, count);
}

template <class Bits>
void choose(const WhereArgs& arguments, CpuContext& context) {
  const BroadcastPlan<3> plan(arguments.rank, arguments.shape,
                              {arguments.cStrides, arguments.aStrides, arguments.bStrides});
  Bits* y = static_cast<Bits*>(arguments.y);
  context.pool.parallelFor(plan.count, kGrain, [&](int64_t begin, int64_t end) {
    forEachRun<3>(
        plan, begin, end, {arguments.condition, arguments.a, arguments.b},
        {1, sizeof(Bits), sizeof(Bits)},
        [&](int64_t position, int64_t count, const void* const* operands, const bool* repeated) {
          if (repeated[0])
            run<Bits, 0>(operands, repeated, y + position, count);
          else
            run<Bits, 1>(operands, repeated, y + position, count);
        });
  });
}

}  // namespace

void whereCpu(const WhereArgs& arguments, CpuContext& context) {
  switch (sizeOf(arguments.dtype)) {
    case 1:
      return choose<uint8_t>(arguments, context);
    case 2:
      return choose<uint16_t>(arguments, context);
    case 4:
      return choose<uint32_t>(arguments, context);
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
