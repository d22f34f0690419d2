// Random shapes with operands that broadcast, or lie in memory in another order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace didr::test {

class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed * 2654435761u + 1u) {}
  uint32_t next() { return (state_ = state_ * 1664525u + 1013904223u) >> 8; }
  int64_t below(int64_t limit) { return static_cast<int64_t>(next()) % limit; }

 private:
  uint32_t state_;
};

struct Layout {
  std::vector<int64_t> strides;
  int64_t elements;  // that the operand holds
};

inline int64_t countOf(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

inline std::vector<int64_t> someShape(Random& random) {
  static constexpr int64_t kSizes[] = {1, 2, 3, 5, 8, 17, 33, 64, 70, 0};
  std::vector<int64_t> shape(static_cast<size_t>(random.below(6)));
  int64_t budget = 20000;
  for (int64_t& size : shape) {
    // Zero comes up now and then only.
    size = kSizes[random.below(random.below(8) == 0 ? 10 : 9)];
    size = std::min(size, std::max<int64_t>(budget, 1));
    budget /= std::max<int64_t>(size, 1);
  }
  return shape;
}

// Contiguous, with some axes broadcast; or with its axes in another order and gaps between elements.
inline Layout someLayout(const std::vector<int64_t>& shape, Random& random) {
  const size_t rank = shape.size();
  Layout layout{std::vector<int64_t>(rank), 1};
  std::vector<size_t> order(rank);
  for (size_t i = 0; i < rank; ++i) order[i] = rank - 1 - i;
  const int64_t kind = random.below(5);
  if (kind == 4)
    for (size_t i = rank; i > 1; --i)
      std::swap(order[i - 1], order[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  int64_t stride = kind == 4 ? 1 + random.below(3) : 1;
  int64_t last = 0;
  for (const size_t axis : order) {
    const bool broadcast = kind >= 1 && kind <= 2 && random.below(2) == 0;
    layout.strides[axis] = broadcast ? 0 : stride;
    if (broadcast) continue;
    last += std::max<int64_t>(shape[axis] - 1, 0) * stride;
    stride *= std::max<int64_t>(shape[axis], 1);
  }
  layout.elements = last + 1;
  return layout;
}

// Visits every index in order: visit(position, offsets of the operands).
template <class Visit>
void forEachIndex(const std::vector<int64_t>& shape, const std::vector<const Layout*>& operands,
                  const Visit& visit) {
  const int64_t count = countOf(shape);
  std::vector<int64_t> offsets(operands.size());
  for (int64_t position = 0; position < count; ++position) {
    std::fill(offsets.begin(), offsets.end(), 0);
    int64_t rest = position;
    for (size_t axis = shape.size(); axis-- > 0;) {
      const int64_t index = rest % shape[axis];
      rest /= shape[axis];
      for (size_t k = 0; k < operands.size(); ++k) offsets[k] += index * operands[k]->strides[axis];
    }
    visit(position, offsets);
  }
}

}  // namespace didr::test
