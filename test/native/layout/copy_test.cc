#include "native/ops/layout/copy.h"

#include <numeric>

#include "test/native/elementwise/broadcasts.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

using Sizes = std::vector<int64_t>;

Sizes contiguous(const Sizes& shape) {
  Sizes strides(shape.size());
  int64_t stride = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

StridedCopyArgs argumentsOf(const void* x, void* y, size_t size, const Sizes& shape,
                            const Sizes& xStrides, const Sizes& yStrides) {
  StridedCopyArgs arguments{
      x, y, static_cast<int32_t>(size), static_cast<int32_t>(shape.size()), {}, {}, {}};
  std::copy(shape.begin(), shape.end(), arguments.shape);
  std::copy(xStrides.begin(), xStrides.end(), arguments.xStrides);
  std::copy(yStrides.begin(), yStrides.end(), arguments.yStrides);
  return arguments;
}

template <class Bits>
std::vector<Bits> numbered(int64_t count) {
  std::vector<Bits> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<Bits>(i * 0x9e3779b97f4a7c15u >> (64 - 8 * sizeof(Bits)));
  return values;
}

// Copies x to y of `elements`, which keeps what no index writes.
template <class Bits>
void checkCopy(const std::vector<Bits>& x, int64_t xOffset, int64_t elements, int64_t yOffset,
               const Sizes& shape, const Sizes& xStrides, const Sizes& yStrides) {
  constexpr Bits kUntouched = static_cast<Bits>(0x5a5a5a5a5a5a5a5au);
  std::vector<Bits> want(static_cast<size_t>(elements), kUntouched);
  const Layout from{xStrides, 0}, to{yStrides, 0};
  forEachIndex(shape, {&from, &to}, [&](int64_t, const auto& offsets) {
    want[static_cast<size_t>(yOffset + offsets[1])] = x[static_cast<size_t>(xOffset + offsets[0])];
  });
  const std::vector<Bits> before(want.size(), kUntouched);
  atEveryLevel([&](const auto& launch) {
    Guarded<Bits> source(x), target(before);
    launch(Op::stridedCopy, argumentsOf(source.data() + xOffset, target.data() + yOffset,
                                        sizeof(Bits), shape, xStrides, yStrides));
    CHECK(
        (want.empty() || std::memcmp(target.data(), want.data(), want.size() * sizeof(Bits)) == 0));
    return Bytes();
  });
}

template <class Bits>
void checkPermutation(const Sizes& from, const Sizes& axes) {
  const Sizes own = contiguous(from);
  Sizes shape, xStrides;
  for (const int64_t axis : axes) {
    shape.push_back(from[static_cast<size_t>(axis)]);
    xStrides.push_back(own[static_cast<size_t>(axis)]);
  }
  const int64_t count = countOf(shape);
  checkCopy(numbered<Bits>(count), 0, count, 0, shape, xStrides, contiguous(shape));
}

TEST_CASE("stridedCopy: transposes of every element size, tiles and edges") {
  for (const Sizes& shape : {Sizes{1, 1}, Sizes{3, 5}, Sizes{16, 16}, Sizes{17, 63}, Sizes{64, 65},
                             Sizes{128, 64}, Sizes{257, 300}, Sizes{2, 1000}, Sizes{1000, 3}}) {
    CAPTURE(shape[0]);
    CAPTURE(shape[1]);
    checkPermutation<uint8_t>(shape, {1, 0});
    checkPermutation<uint16_t>(shape, {1, 0});
    checkPermutation<uint32_t>(shape, {1, 0});
    checkPermutation<uint64_t>(shape, {1, 0});
  }
}

TEST_CASE("stridedCopy: a large transpose goes past the caches, on whole and on broken lines") {
  checkPermutation<uint32_t>({2100, 2048}, {1, 0});
  checkPermutation<uint32_t>({2048, 2112}, {1, 0});
  checkPermutation<uint16_t>({3, 1600, 1824}, {0, 2, 1});
}

TEST_CASE("stridedCopy: random permutations") {
  Random random(21);
  for (int round = 0; round < 80; ++round) {
    const Sizes shape = someShape(random);
    Sizes axes(shape.size());
    std::iota(axes.begin(), axes.end(), 0);
    for (size_t i = axes.size(); i > 1; --i)
      std::swap(axes[i - 1], axes[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
    CAPTURE(round);
    checkPermutation<uint32_t>(shape, axes);
    checkPermutation<uint16_t>(shape, axes);
  }
}

TEST_CASE("stridedCopy: random slices and places") {
  Random random(22);
  for (int round = 0; round < 80; ++round) {
    CAPTURE(round);
    // A slice of x is copied to a place within a larger y, as concatenation does.
    const Sizes whole = someShape(random);
    Sizes shape, target;
    const Sizes own = contiguous(whole);
    int64_t xOffset = 0;
    for (size_t axis = 0; axis < whole.size(); ++axis) {
      const int64_t begin = random.below(whole[axis] + 1);
      shape.push_back(random.below(whole[axis] - begin + 1));
      xOffset += begin * own[axis];
      target.push_back(shape[axis] + random.below(3));
    }
    int64_t yOffset = 0;
    const Sizes yStrides = contiguous(target);
    for (size_t axis = 0; axis < whole.size(); ++axis)
      yOffset += random.below(target[axis] - shape[axis] + 1) * yStrides[axis];
    if (countOf(shape) == 0) xOffset = yOffset = 0;
    checkCopy(numbered<uint32_t>(countOf(whole)), xOffset, countOf(target), yOffset, shape, own,
              yStrides);
    checkCopy(numbered<uint8_t>(countOf(whole)), xOffset, countOf(target), yOffset, shape, own,
              yStrides);
  }
}

TEST_CASE("stridedCopy: broadcasts, in every axis") {
  Random random(23);
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    const Sizes shape = someShape(random);
    const Layout layout = someLayout(shape, random);
    checkCopy(numbered<uint32_t>(layout.elements), 0, countOf(shape), 0, shape, layout.strides,
              contiguous(shape));
  }
}

TEST_CASE("stridedCopy: long rows over threads") {
  const int64_t count = 1000003;
  checkCopy(numbered<uint32_t>(count), 0, count, 0, {count}, {1}, {1});
  checkCopy(numbered<uint16_t>(count), 0, count, 0, {count}, {1}, {1});
  checkCopy(numbered<uint32_t>(1), 0, count, 0, {count}, {0}, {1});
}

}  // namespace
}  // namespace didr::test
