// `where` on CUDA: y = condition ? a : b with broadcasting. Contract: where.h; the operands:
// broadcast.cuda.h.
//
// A thread chooses 16 bytes of y at a time (8 for elements of one byte). Bytes per element: what
// the contract asks for (a and b are both read: whether one of them could be left out is known an
// element at a time only).
#include <type_traits>

#include "native/core/cuda_vector.h"
#include "native/ops/elementwise/broadcast.cuda.h"
#include "native/ops/elementwise/where.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

// Elements that a thread chooses at a time.
template <class Bits>
inline constexpr int kChosen = sizeof(Bits) == 1 ? 8 : kVector<Bits>;

template <class Bits>
__global__ void __launch_bounds__(kThreads)
    whereKernel(const uint8_t* condition, const Bits* a, const Bits* b, Bits* y,
                Broadcast<3> broadcast) {
  forEachPlace<kChosen<Bits>>(broadcast, [&](const auto& place) {
    constexpr int kCount = std::decay_t<decltype(place)>::kCount;
    uint8_t c[kCount];
    Bits yes[kCount], no[kCount];
    broadcast.load<0>(condition, place.offset[0], c);
    broadcast.load<1>(a, place.offset[1], yes);
    broadcast.load<2>(b, place.offset[2], no);
#pragma unroll
    for (int i = 0; i < kCount; ++i) yes[i] = c[i] != 0 ? yes[i] : no[i];
    storeResult(y + place.first, yes);
  });
}

template <class Bits>
void choose(const WhereArgs& arguments, CudaContext& context) {
  const BroadcastPlan<3> plan(arguments.rank, arguments.shape,
                              {arguments.cStrides, arguments.aStrides, arguments.bStrides});
  if (plan.count == 0) return;
  const Broadcast<3> broadcast(plan, {arguments.condition, arguments.a, arguments.b},
                               {1, sizeof(Bits), sizeof(Bits)}, kChosen<Bits>);
  context.launch("where", whereKernel<Bits>,
                 broadcastBlocks(context, broadcast, kThreads, kChosen<Bits>), kThreads,
                 arguments.condition, static_cast<const Bits*>(arguments.a),
                 static_cast<const Bits*>(arguments.b), static_cast<Bits*>(arguments.y), broadcast);
}

}  // namespace

void whereCuda(const WhereArgs& arguments, CudaContext& context) {
  switch (sizeOf(arguments.dtype)) {
    case 1:
      return choose<uint8_t>(arguments, context);
    case 2:
      return choose<uint16_t>(arguments, context);
    case 4:
      return choose<uint32_t>(arguments, context);
  }
}

}  // namespace didr
