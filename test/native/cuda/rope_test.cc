#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

struct RopeCase {
  int64_t rows, heads, size, tableRows;
};
constexpr RopeCase kCases[] = {{0, 2, 4, 1},    {3, 0, 4, 3},   {3, 2, 0, 3},   {1, 1, 2, 1},
                               {5, 3, 6, 5},    {6, 2, 32, 3},  {9, 1, 8, 9},   {12, 6, 64, 4},
                               {2, 30, 128, 2}, {2, 5, 262, 1}, {1, 1, 4098, 1}};

template <class T>
void checkRope(const RopeCase& shape, bool inverse, bool inPlace) {
  CAPTURE(shape.rows);
  CAPTURE(shape.heads);
  CAPTURE(shape.size);
  CAPTURE(inverse);
  const int64_t count = shape.rows * shape.heads * shape.size;
  const std::vector<T> values = someValues<T>(count, 1);
  std::vector<float> cosines, sines;
  for (int64_t i = 0; i < shape.tableRows * shape.size / 2; ++i) {
    cosines.push_back(std::cos(0.37f * static_cast<float>(i)));
    sines.push_back(std::sin(0.37f * static_cast<float>(i)));
  }
  const Array<T> x(values), other(count);
  const Array<float> cos(cosines), sin(sines);
  const Array<T>& y = inPlace ? x : other;
  runEverywhere(Op::rope, [&](Side side) {
    return RopeArgs{x.at(side),  cos.at(side), sin.at(side),    y.at(side), shape.rows,
                    shape.heads, shape.size,   shape.tableRows, inverse,    DTypeOf<T>::value};
  });
  const std::vector<T> cuda = y.cuda();
  REQUIRE(sameBits(cuda, y.cpu()));
  requireEach(cuda.size(), [&](size_t i) {
    const size_t row = i / static_cast<size_t>(shape.heads * shape.size);
    const size_t pair = i % static_cast<size_t>(shape.size) / 2;
    const size_t angle =
        row % static_cast<size_t>(shape.tableRows) * static_cast<size_t>(shape.size / 2) + pair;
    const double c = cosines[angle], s = inverse ? -sines[angle] : sines[angle];
    const double own = toFloat(values[i]), partner = toFloat(values[i ^ 1]);
    const double expected = own * c + (i % 2 == 0 ? -s : s) * partner;
    return std::fabs(toFloat(cuda[i]) - expected) <=
           (std::fabs(own * c) + std::fabs(s * partner)) * 0x1p-23 +
               std::fabs(expected) * 1.01 * kRounding<T>;
  });
}

TEST_CASE_TEMPLATE("rope: the CPU's bits and float64, both ways", T, float, BFloat16) {
  for (const RopeCase& shape : kCases)
    for (const bool inverse : {false, true}) checkRope<T>(shape, inverse, inverse);
}

TEST_CASE_TEMPLATE("rope: a NaN stays in its pair", T, float, BFloat16) {
  constexpr int64_t kSize = 16;
  std::vector<T> values = someValues<T>(3 * kSize, 1);
  values[21] = storeAs(T{}, NAN);
  const Array<T> x(values), y(3 * kSize);
  const Array<float> cos(someValues<float>(kSize / 2, 2)), sin(someValues<float>(kSize / 2, 3));
  runEverywhere(Op::rope, [&](Side side) {
    return RopeArgs{x.at(side), cos.at(side), sin.at(side),     y.at(side), 1, 3, kSize,
                    1,          false,        DTypeOf<T>::value};
  });
  const std::vector<T> cuda = y.cuda();
  requireEach(cuda.size(),
              [&](size_t i) { return std::isnan(toFloat(cuda[i])) == (i == 20 || i == 21); });
}

}  // namespace
}  // namespace didr::test
