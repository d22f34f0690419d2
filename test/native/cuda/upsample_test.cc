#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

struct Image {
  int64_t planes, height, width;
};
constexpr Image kImages[] = {{0, 2, 3},  {2, 0, 3},  {2, 3, 0},    {1, 1, 1},
                             {3, 2, 2},  {2, 3, 5},  {4, 2, 4},    {2, 2, 8},
                             {3, 5, 12}, {2, 7, 31}, {1, 3, 1030}, {5, 8, 64}};

template <class T>
void checkUpsample(const Image& shape) {
  CAPTURE(shape.planes);
  CAPTURE(shape.height);
  CAPTURE(shape.width);
  const int64_t count = shape.planes * shape.height * shape.width;
  const std::vector<T> small = someValues<T>(count, 1), large = someValues<T>(4 * count, 2);
  const Array<T> x(small), y(4 * count), dy(large), dx(count);
  runEverywhere(Op::upsampleNearest2x, [&](Side side) {
    return UpsampleArgs{x.at(side),   y.at(side),  shape.planes,
                        shape.height, shape.width, DTypeOf<T>::value};
  });
  runEverywhere(Op::upsampleNearest2xBackward, [&](Side side) {
    return UpsampleBackwardArgs{dy.at(side),  dx.at(side), shape.planes,
                                shape.height, shape.width, DTypeOf<T>::value};
  });
  REQUIRE(sameBits(y.cuda(), y.cpu()));
  REQUIRE(sameBits(dx.cuda(), dx.cpu()));
  const std::vector<T> up = y.cuda(), down = dx.cuda();
  const auto width = static_cast<size_t>(shape.width);
  // Rows of all planes follow each other; two of the large image for one of the small.
  requireEach(up.size(), [&](size_t i) {
    const size_t from = i / (2 * width) / 2 * width + i % (2 * width) / 2;
    return toFloat(up[i]) == toFloat(small[from]);
  });
  requireEach(down.size(), [&](size_t i) {
    const size_t at = i / width * 4 * width + i % width * 2;
    double expected = 0.0, terms = 0.0;
    for (const size_t from : {at, at + 1, at + 2 * width, at + 2 * width + 1}) {
      expected += toFloat(large[from]);
      terms += std::fabs(toFloat(large[from]));
    }
    return std::fabs(toFloat(down[i]) - expected) <=
           terms * 2e-7 + std::fabs(expected) * 1.01 * kRounding<T>;
  });
}

TEST_CASE_TEMPLATE("upsampleNearest2x: the CPU's bits and float64, forward and backward", T, float,
                   BFloat16) {
  for (const Image& shape : kImages) checkUpsample<T>(shape);
}

TEST_CASE_TEMPLATE("upsampleNearest2x: a NaN stays in its four pixels", T, float, BFloat16) {
  std::vector<T> large = someValues<T>(4 * 24, 2);
  large[17] = storeAs(T{}, NAN);  // row 1, column 1 of 16
  const Array<T> dy(large), dx(24);
  runEverywhere(Op::upsampleNearest2xBackward, [&](Side side) {
    return UpsampleBackwardArgs{dy.at(side), dx.at(side), 1, 3, 8, DTypeOf<T>::value};
  });
  const std::vector<T> down = dx.cuda();
  requireEach(down.size(), [&](size_t i) { return std::isnan(toFloat(down[i])) == (i == 0); });
}

}  // namespace
}  // namespace didr::test
