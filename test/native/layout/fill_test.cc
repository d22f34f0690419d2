#include "native/ops/layout/fill.h"

#include <algorithm>
#include <cmath>

#include "native/ops/layout/arange.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

const int64_t kCounts[] = {0, 1, 3, 5, 17, 63, 64, 65, 1000003};

template <class T>
T rounded(double value);
template <>
float rounded<float>(double value) {
  return static_cast<float>(value);
}
template <>
BFloat16 rounded<BFloat16>(double value) {
  return toBFloat16(static_cast<float>(value));
}
template <>
Float16 rounded<Float16>(double value) {
  return toFloat16(static_cast<float>(value));
}
template <>
int32_t rounded<int32_t>(double value) {
  if (std::isnan(value)) return 0;
  return static_cast<int32_t>(std::clamp(value, -2147483648.0, 2147483647.0));
}
template <>
uint8_t rounded<uint8_t>(double value) {
  if (std::isnan(value)) return 0;
  return static_cast<uint8_t>(std::clamp(value, 0.0, 255.0));
}

template <class T>
void checkFill(int64_t count, double value) {
  CAPTURE(nameOf(DTypeOf<T>::value));
  CAPTURE(count);
  CAPTURE(value);
  const std::vector<T> want(static_cast<size_t>(count), rounded<T>(value));
  for (const int64_t shift : {0, 1}) {
    atEveryLevel([&](const auto& launch) {
      Guarded<T> y(count, shift);
      launch(Op::fill, FillArgs{y.data(), count, DTypeOf<T>::value, value});
      CHECK((count == 0 || std::memcmp(y.data(), want.data(), want.size() * sizeof(T)) == 0));
      return Bytes();
    });
  }
}

template <class T>
void checkArange(int64_t count, double start, double step) {
  CAPTURE(nameOf(DTypeOf<T>::value));
  CAPTURE(count);
  std::vector<T> want;
  for (int64_t i = 0; i < count; ++i)
    want.push_back(rounded<T>(start + static_cast<double>(i) * step));
  atEveryLevel([&](const auto& launch) {
    Guarded<T> y(count, 1);
    launch(Op::arange, ArangeArgs{y.data(), count, DTypeOf<T>::value, start, step});
    CHECK((count == 0 || std::memcmp(y.data(), want.data(), want.size() * sizeof(T)) == 0));
    return Bytes();
  });
}

TEST_CASE("fill: every dtype, every count") {
  for (const int64_t count : kCounts) {
    checkFill<float>(count, 0.1);
    checkFill<BFloat16>(count, -1.005);
    checkFill<Float16>(count, 0.1);
    checkFill<int32_t>(count, 16777217);
    checkFill<uint8_t>(count, 200.9);
  }
  checkFill<float>(4200000, -0.0);  // past the caches
}

TEST_CASE("fill: values no dtype holds") {
  for (const double value : {1e300, -1e300, std::nan(""), 3e9, -3e9, 255.5, -0.5, 1e-60, 65520.0}) {
    checkFill<float>(5, value);
    checkFill<BFloat16>(5, value);
    checkFill<Float16>(5, value);
    checkFill<int32_t>(5, value);
    checkFill<uint8_t>(5, value);
  }
}

TEST_CASE("arange: from the index alone") {
  for (const int64_t count : kCounts) {
    checkArange<float>(count, 0.5, 0.1);
    checkArange<int32_t>(count, -7, 3000);
    checkArange<uint8_t>(count, 250, -0.3);
  }
  checkArange<BFloat16>(1000, -3, 0.37);
  checkArange<Float16>(1000, 60000, 100);
}

}  // namespace
}  // namespace didr::test
