// Lists of tensors for the multi-tensor ops.
#pragma once

#include <deque>
#include <utility>

#include "native/ops/optim/tensor_list.h"
#include "test/native/every_level.h"

namespace didr::test {

// Empty tensors first, last and in between; whole blocks and both sides of one; a tensor of many blocks.
inline const std::vector<int64_t> kListSizes = {
    0, 1, 3, 0, 5, 17, 63, 64, 65, kListBlock - 1, kListBlock, kListBlock + 1, 0, 100003, 2, 0};

// Arrays that live as long as the list.
template <class T>
class GuardedList {
 public:
  Guarded<T>& add(const std::vector<T>& values, int64_t shift = 0) {
    return arrays_.emplace_back(values, shift);
  }
  Guarded<T>& operator[](size_t i) { return arrays_[i]; }
  std::vector<T> all() {
    std::vector<T> values;
    for (Guarded<T>& array : arrays_)
      for (const T& value : array.values()) values.push_back(value);
    return values;
  }

 private:
  std::deque<Guarded<T>> arrays_;
};

// Gives rows their first blocks; returns the number of blocks.
template <class Row>
int64_t numberBlocks(std::vector<Row>& rows) {
  int64_t blocks = 0;
  for (Row& row : rows) {
    row.firstBlock = blocks;
    blocks += listBlocks(row.count);
  }
  return blocks;
}

}  // namespace didr::test
