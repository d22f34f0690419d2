// A CUDA thread block's share of a list of tensors: one block of the list (tensor_list.h).
#pragma once

#include <cstdint>

#include "native/core/cuda_launch.h"
#include "native/ops/optim/tensor_list.h"

namespace didr {

// An address out of a table of rows: the compiler cannot see that it is one of global memory, and
// would make generic accesses of it.
template <class T>
__device__ T* inGlobalMemory(T* address) {
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(address));
#endif
  return address;
}

// The row that holds `block`, and its elements [begin, end).
template <class Row>
struct ListPiece {
  int64_t number;
  int64_t begin, end;

  __device__ ListPiece(const Row* rows, int64_t tensors, int64_t block)
      : number(rowOfBlock(rows, tensors, block)) {
    begin = (block - rows[number].firstBlock) * kListBlock;
    const int64_t count = rows[number].count;
    end = begin + kListBlock < count ? begin + kListBlock : count;
  }
};

}  // namespace didr
