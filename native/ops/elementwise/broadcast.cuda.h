// How the threads of a CUDA grid read broadcast operands, in grid-stride loops over the result.
//
//   vectors    a thread reads kCount neighbouring elements at a time, as whole words, or the one
//              element that stands for all of them. The host allows it where rows (or, for operands
//              that lie as the result does, the whole) are cut into vectors at aligned addresses.
//   elements   one at a time, neighbouring threads on neighbouring elements: everything else, and
//              what is left after the last vector
#pragma once

#include <cstdint>

#include "native/core/cuda_index.h"
#include "native/core/cuda_packed.h"
#include "native/ops/elementwise/broadcast_plan.h"

namespace didr {

template <int kOperands>
struct Broadcast {
  int32_t rank;
  int64_t count;
  int64_t vectors;  // that are read as such
  Divisor sizes[8];
  int64_t strides[kOperands][8];
  bool contiguous[kOperands];

  // `bases` and `elementSizes` are the operands', `most` the elements of a vector.
  Broadcast(const BroadcastPlan<kOperands>& plan, const void* const (&bases)[kOperands],
            const int (&elementSizes)[kOperands], int most)
      : rank(plan.rank), count(plan.count), vectors(plan.count / most), strides{} {
    const int last = rank - 1;
    for (int axis = 0; axis < rank; ++axis) sizes[axis] = Divisor(plan.shape[axis]);
    for (int k = 0; k < kOperands; ++k) {
      const int64_t* const own = plan.strides[k];
      contiguous[k] = plan.isContiguous(k);
      bool stays = true;
      bool inRows = plan.shape[last] % most == 0 && (own[last] == 0 || own[last] == 1);
      for (int axis = 0; axis < rank; ++axis) {
        strides[k][axis] = own[axis];
        stays = stays && own[axis] == 0;
        inRows = inRows && (own[last] == 0 || axis == last || own[axis] % most == 0);
      }
      const uintptr_t bytes = static_cast<uintptr_t>(most * elementSizes[k]);
      const bool aligned =
          own[last] == 0 || reinterpret_cast<uintptr_t>(bases[k]) % (bytes < 16 ? bytes : 16) == 0;
      if (!aligned || !(contiguous[k] || stays || inRows)) vectors = 0;
    }
  }

  __device__ void offsets(int64_t position, int64_t (&offset)[kOperands]) const {
    if (rank == 1) {
#pragma unroll
      for (int k = 0; k < kOperands; ++k) offset[k] = position * strides[k][0];
      return;
    }
#pragma unroll
    for (int k = 0; k < kOperands; ++k) offset[k] = 0;
#pragma unroll 1
    for (int axis = rank - 1; axis >= 0; --axis) {
      const int64_t next = axis > 0 ? sizes[axis].quotient(position) : 0;
      const int64_t index = position - next * sizes[axis].size;
#pragma unroll
      for (int k = 0; k < kOperands; ++k) offset[k] += index * strides[k][axis];
      position = next;
    }
  }

  // The first element of the vector or, where the operand stays at one, all of them.
  template <int kOperand, class T, int kCount>
  __device__ void load(const T* base, int64_t offset, T (&x)[kCount]) const {
    if constexpr (kCount == 1) {
      x[0] = base[offset];
    } else if (strides[kOperand][rank - 1] == 0) {
      const T element = base[offset];
#pragma unroll
      for (int i = 0; i < kCount; ++i) x[i] = element;
    } else {
      Packed<T, kCount> packed;
      packed.load(base + offset);
#pragma unroll
      for (int i = 0; i < kCount; ++i) x[i] = packed.get(i);
    }
  }
};

template <class T, int kCount>
__device__ void storeResult(T* y, const T (&z)[kCount]) {
  if constexpr (kCount == 1) {
    *y = z[0];
  } else {
    Packed<T, kCount> packed;
    packed.clear();
#pragma unroll
    for (int i = 0; i < kCount; ++i) packed.set(i, z[i]);
    packed.store(y);
  }
}

// Where the elements begin that a thread works on together, and their number as a type.
template <int kCountOf, int kOperands>
struct BroadcastPlace {
  static constexpr int kCount = kCountOf;
  int64_t first;
  int64_t offset[kOperands];
};

// Calls body(place) for this thread's vectors, then for its elements.
template <int kCount, int kOperands, class Body>
__device__ void forEachPlace(const Broadcast<kOperands>& broadcast, const Body& body) {
  const int64_t thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const int64_t threads = int64_t{gridDim.x} * blockDim.x;
  for (int64_t vector = thread; vector < broadcast.vectors; vector += threads) {
    BroadcastPlace<kCount, kOperands> place;
    place.first = vector * kCount;
    broadcast.offsets(place.first, place.offset);
#pragma unroll
    for (int k = 0; k < kOperands; ++k)
      if (broadcast.contiguous[k]) place.offset[k] = place.first;
    body(place);
  }
  for (int64_t i = broadcast.vectors * kCount + thread; i < broadcast.count; i += threads) {
    BroadcastPlace<1, kOperands> place;
    place.first = i;
    broadcast.offsets(i, place.offset);
    body(place);
  }
}

// Blocks for a result of which a thread makes `most` elements at a time, or one.
template <int kOperands>
unsigned broadcastBlocks(const CudaContext& context, const Broadcast<kOperands>& broadcast,
                         int threads, int most) {
  return context.gridStrideBlocks(broadcast.count,
                                  int64_t{threads} * (broadcast.vectors > 0 ? most : 1));
}

}  // namespace didr
