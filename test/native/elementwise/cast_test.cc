#include "native/ops/elementwise/cast.h"

#include <algorithm>

#include "test/native/elementwise/reference.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

int32_t truncated(float x, double least, double most) {
  if (std::isnan(x)) return 0;
  return static_cast<int32_t>(std::clamp(std::trunc(static_cast<double>(x)), least, most));
}

template <class To>
To converted(float x);
template <>
float converted<float>(float x) {
  return x;
}
template <>
BFloat16 converted<BFloat16>(float x) {
  return toBFloat16(x);
}
template <>
Float16 converted<Float16>(float x) {
  return toFloat16(x);
}
template <>
int32_t converted<int32_t>(float x) {
  return truncated(x, INT32_MIN, INT32_MAX);
}
template <>
uint8_t converted<uint8_t>(float x) {
  return static_cast<uint8_t>(truncated(x, 0, 255));
}

template <class From, class To>
void checkPair(const std::vector<From>& x) {
  CAPTURE(nameOf(DTypeOf<From>::value));
  CAPTURE(nameOf(DTypeOf<To>::value));
  const auto count = static_cast<int64_t>(x.size());
  CAPTURE(count);
  std::vector<To> want;
  for (const From value : x) {
    if constexpr (std::is_same_v<From, To>)
      want.push_back(value);
    else
      want.push_back(converted<To>(toFloat(value)));
  }
  atEveryLevel([&](const auto& launch) {
    Guarded<From> from(x, 1);
    Guarded<To> to(count);
    launch(Op::cast,
           CastArgs{from.data(), to.data(), count, DTypeOf<From>::value, DTypeOf<To>::value});
    CHECK((count == 0 ||
           std::memcmp(to.data(), want.data(), static_cast<size_t>(count) * sizeof(To)) == 0));
    return Bytes();
  });
}

template <class From>
void checkFrom(const std::vector<From>& values) {
  for (const size_t count :
       {size_t{0}, size_t{1}, size_t{3}, size_t{17}, size_t{65}, values.size()}) {
    const std::vector<From> x(
        values.begin(), values.begin() + static_cast<int64_t>(std::min(count, values.size())));
    checkPair<From, float>(x);
    checkPair<From, BFloat16>(x);
    checkPair<From, Float16>(x);
    checkPair<From, int32_t>(x);
    checkPair<From, uint8_t>(x);
  }
}

TEST_CASE("cast: from float32") {
  std::vector<float> values(std::begin(kHostile), std::end(kHostile));
  for (const float scale : {1.0f, 300.0f, 70000.0f, 4e9f, 1e-5f, 1e-38f})
    for (const float x : someFloats(500, 9, scale)) values.push_back(x);
  checkFrom(values);
}

TEST_CASE("cast: from the 16-bit floats, every bit pattern") {
  std::vector<BFloat16> brains;
  std::vector<Float16> halves;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    brains.push_back({static_cast<uint16_t>(bits * 40503u)});
    halves.push_back({static_cast<uint16_t>(bits * 40503u)});
  }
  checkFrom(brains);
  checkFrom(halves);
}

TEST_CASE("cast: from integers") {
  std::vector<int32_t> ints = {0,   1,   -1,  255,       256,       -256,       16777217,
                               127, 128, 300, INT32_MAX, INT32_MIN, 2147483520, -16777219};
  for (const float x : someFloats(700, 10, 1e9f)) ints.push_back(static_cast<int32_t>(x));
  checkFrom(ints);
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<uint8_t>(i * 37));
  checkFrom(bytes);
}

}  // namespace
}  // namespace didr::test
