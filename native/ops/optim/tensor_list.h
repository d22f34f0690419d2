// Work over a list of tensors in one op.
//
// An argument struct cannot hold the pointers of a model's parameters, so a multi-tensor op takes a table of rows, one
// per tensor, uploaded to the device for the call (about 100 bytes a tensor, against the megabytes that the op moves).
// Elements are cut into blocks of kListBlock, no block spans two tensors, and blocks are numbered through the list:
// the parallel loop runs over blocks, and each range finds its first row by bisection. A range may start or end inside a
// tensor, so a model of one large matrix and a hundred biases splits evenly.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

inline constexpr int64_t kListBlock = 8192;

DIDR_HOST_DEVICE int64_t listBlocks(int64_t count) { return (count + kListBlock - 1) / kListBlock; }

// The row that holds `block`: the last whose firstBlock is not above it. Rows of no elements hold none.
template <class Row>
DIDR_HOST_DEVICE int64_t rowOfBlock(const Row* rows, int64_t tensors, int64_t block) {
  int64_t low = 0;
  int64_t high = tensors;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (rows[middle].firstBlock <= block)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// Calls body(row, begin, end, block) for each block of [firstBlock, lastBlock), with its elements in the row's tensor.
template <class Row, class Body>
DIDR_HOST_DEVICE void forEachListBlock(const Row* rows, int64_t tensors, int64_t firstBlock,
                                       int64_t lastBlock, const Body& body) {
  if (firstBlock >= lastBlock) return;
  int64_t r = rowOfBlock(rows, tensors, firstBlock);
  for (int64_t block = firstBlock; block < lastBlock; ++block) {
    while (block - rows[r].firstBlock >= listBlocks(rows[r].count)) ++r;
    const int64_t begin = (block - rows[r].firstBlock) * kListBlock;
    const int64_t end = begin + kListBlock < rows[r].count ? begin + kListBlock : rows[r].count;
    body(rows[r], begin, end, block);
  }
}

}  // namespace didr
