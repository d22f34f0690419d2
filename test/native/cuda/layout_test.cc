// fill, arange and stridedCopy: the CPU's bits, and those of the contract.
#include <numeric>

#include "test/native/cuda/both_devices.h"
#include "test/native/elementwise/broadcasts.h"

namespace didr::test {
namespace {

using Sizes = std::vector<int64_t>;

constexpr int64_t kCounts[] = {
    0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 65, 1023, 8195, kRaceDetection ? 5003 : 300007};
constexpr double kNumbers[] = {0.0,  -1.0,  1.0 / 3.0, 65519.9, 3e9,
                               -3e9, 256.7, 1e-42,     NAN,     INFINITY};

// The bytes of an array of `count` elements of `dtype`, after both devices have run.
template <class Make>
void requireSameBytes(Op op, int64_t count, DType dtype, const Make& make) {
  const Array<uint8_t> y(count * static_cast<int64_t>(sizeOf(dtype)));
  runEverywhere(op, [&](Side side) { return make(y.at(side)); });
  REQUIRE(sameBits(y.cuda(), y.cpu()));
}

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt32,
                             DType::kUint8};

TEST_CASE("fill: the CPU's bits in every dtype") {
  for (const DType dtype : kDTypes)
    for (const int64_t count : kCounts)
      for (const double value : kNumbers) {
        if (count > 100 && value != 1.0 / 3.0) continue;
        CAPTURE(nameOf(dtype));
        CAPTURE(count);
        CAPTURE(value);
        requireSameBytes(Op::fill, count, dtype, [&](void* y) {
          return FillArgs{y, count, dtype, value};
        });
      }
}

TEST_CASE("arange: the CPU's bits in every dtype") {
  for (const DType dtype : kDTypes)
    for (const int64_t count : kCounts)
      for (const auto& [start, step] : {std::pair{0.0, 1.0}, {-3.5, 0.1}, {2e9, 1e6}, {1.0, NAN}}) {
        if (count > 100 && start != -3.5) continue;
        CAPTURE(nameOf(dtype));
        CAPTURE(count);
        CAPTURE(start);
        requireSameBytes(Op::arange, count, dtype, [&](void* y) {
          return ArangeArgs{y, count, dtype, start, step};
        });
      }
}

Sizes contiguous(const Sizes& shape) {
  Sizes strides(shape.size());
  int64_t stride = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

struct Copy {
  Sizes shape, xStrides, yStrides;
  int64_t xOffset = 0, yOffset = 0;
  int64_t xCount = 1, yCount = 1;  // elements behind the offsets
};

template <class Bits>
void checkCopy(const Copy& copy) {
  CAPTURE(sizeof(Bits));
  std::vector<Bits> from(static_cast<size_t>(copy.xOffset + copy.xCount));
  for (size_t i = 0; i < from.size(); ++i)
    from[i] = static_cast<Bits>((i + 1) * 0x9e3779b97f4a7c15u >> (64 - 8 * sizeof(Bits)));
  constexpr Bits kUntouched = static_cast<Bits>(0x5a5a5a5a5a5a5a5au);
  std::vector<Bits> expected(static_cast<size_t>(copy.yOffset + copy.yCount), kUntouched);
  const Array<Bits> x(from), y(expected);
  const Layout source{copy.xStrides, 0}, target{copy.yStrides, 0};
  forEachIndex(copy.shape, {&source, &target}, [&](int64_t, const auto& offsets) {
    expected[static_cast<size_t>(copy.yOffset + offsets[1])] =
        from[static_cast<size_t>(copy.xOffset + offsets[0])];
  });
  runEverywhere(Op::stridedCopy, [&](Side side) {
    StridedCopyArgs arguments{x.at(side) + copy.xOffset,
                              y.at(side) + copy.yOffset,
                              static_cast<int32_t>(sizeof(Bits)),
                              static_cast<int32_t>(copy.shape.size()),
                              {},
                              {},
                              {}};
    std::copy(copy.shape.begin(), copy.shape.end(), arguments.shape);
    std::copy(copy.xStrides.begin(), copy.xStrides.end(), arguments.xStrides);
    std::copy(copy.yStrides.begin(), copy.yStrides.end(), arguments.yStrides);
    return arguments;
  });
  REQUIRE(sameBits(y.cuda(), expected));
  REQUIRE(sameBits(y.cpu(), expected));
}

void checkEverySize(const Copy& copy) {
  checkCopy<uint8_t>(copy);
  checkCopy<uint16_t>(copy);
  checkCopy<uint32_t>(copy);
  checkCopy<uint64_t>(copy);
}

// x of shape `from`, its axes in another order; x and y begin `offset` elements into their arrays.
void checkPermutation(const Sizes& from, const std::vector<size_t>& axes, int64_t offset = 0) {
  const Sizes own = contiguous(from);
  Copy copy;
  for (const size_t axis : axes) {
    copy.shape.push_back(from[axis]);
    copy.xStrides.push_back(own[axis]);
  }
  copy.yStrides = contiguous(copy.shape);
  copy.xCount = copy.yCount = countOf(from);
  copy.xOffset = offset;
  copy.yOffset = offset;
  CAPTURE(from.size());
  CAPTURE(from[0]);
  CAPTURE(from.back());
  CAPTURE(offset);
  checkEverySize(copy);
}

TEST_CASE("stridedCopy: transposes, tiles, their edges and what is too small for them") {
  for (const Sizes& shape :
       {Sizes{1, 1}, Sizes{3, 5}, Sizes{2, 64}, Sizes{64, 2}, Sizes{3, 300}, Sizes{300, 3},
        Sizes{2, 700}, Sizes{700, 2}, Sizes{32, 32}, Sizes{33, 31}, Sizes{128, 132},
        Sizes{132, 260}, Sizes{17, 130}, Sizes{0, 40}, Sizes{4, 1200}, Sizes{1200, 4}}) {
    checkPermutation(shape, {1, 0});
    checkPermutation(shape, {1, 0}, 1);
    checkPermutation(shape, {1, 0}, 2);
  }
}

TEST_CASE("stridedCopy: permutations of more axes") {
  checkPermutation({2, 3, 20, 12}, {0, 2, 3, 1});  // channels last
  checkPermutation({2, 20, 12, 3}, {0, 3, 1, 2});  // channels first
  checkPermutation({3, 7, 4, 8}, {0, 2, 1, 3});    // heads before tokens
  checkPermutation({3, 7, 4, 5}, {0, 2, 1, 3});    // the same in rows that vectors do not fit
  checkPermutation({5, 36, 40}, {2, 0, 1});
  checkPermutation({5, 36, 40}, {2, 1, 0}, 3);
  checkPermutation({6, 40, 5, 44}, {3, 2, 1, 0});
  checkPermutation({2, 2, 2, 2, 2, 2, 2, 2}, {7, 5, 3, 1, 6, 4, 2, 0});
}

TEST_CASE("stridedCopy: slices, parts of a whole, broadcasts and rank 0") {
  checkEverySize({{}, {}, {}});
  // [6, 50] cut out of [9, 64], at several columns.
  for (const int64_t column : {0, 1, 4, 8}) {
    checkEverySize({{6, 50}, {64, 1}, {50, 1}, 2 * 64 + column, 0, 6 * 64, 300});
    checkEverySize({{6, 48}, {64, 1}, {48, 1}, 2 * 64 + column, 0, 6 * 64, 288});
    // The same as a part of a larger y, which keeps the rest.
    checkEverySize({{6, 50}, {50, 1}, {64, 1}, 0, 64 + column, 300, 9 * 64});
    checkEverySize({{6, 48}, {48, 1}, {64, 1}, 0, 64 + column, 288, 9 * 64});
  }
  // Every second element; a row and a column broadcast.
  checkEverySize({{100}, {2}, {1}, 1, 0, 200, 100});
  checkEverySize({{30, 40}, {0, 1}, {40, 1}, 0, 0, 40, 1200});
  checkEverySize({{30, 40}, {1, 0}, {40, 1}, 0, 0, 30, 1200});
  checkEverySize({{3, 0, 5}, {1, 1, 1}, {0, 5, 1}});
}

TEST_CASE("stridedCopy: any strides") {
  Random random(11);
  for (int round = 0; round < (kRaceDetection ? 10 : 60); ++round) {
    CAPTURE(round);
    const Sizes shape = someShape(random);
    const Layout layout = someLayout(shape, random);
    checkEverySize({shape, layout.strides, contiguous(shape), 0, 0, layout.elements,
                    std::max<int64_t>(countOf(shape), 1)});
  }
}

}  // namespace
}  // namespace didr::test
