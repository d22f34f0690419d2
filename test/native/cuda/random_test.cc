#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

constexpr int64_t kCounts[] = {
    0, 1, 3, 4, 5, 7, 8, 9, 17, 63, 64, 65, 1023, 8195, kRaceDetection ? 10003 : 1000003};

TEST_CASE_TEMPLATE("normal: the CPU's bits", T, float, BFloat16) {
  for (const int64_t count : kCounts) {
    CAPTURE(count);
    const Array<T> y(count);
    runEverywhere(Op::normal, [&](Side side) {
      return NormalArgs{y.at(side), count, 0x123456789abcdefull, uint64_t{1} << 40,
                        0.25f,      3.0f,  DTypeOf<T>::value};
    });
    REQUIRE(sameBits(y.cuda(), y.cpu()));
  }
}

TEST_CASE_TEMPLATE("uniform: the CPU's bits, below the upper end", T, float, BFloat16) {
  for (const int64_t count : kCounts) {
    CAPTURE(count);
    const Array<T> y(count);
    runEverywhere(Op::uniform, [&](Side side) {
      return UniformArgs{y.at(side), count, 42, 7, 16777214.0f, 16777216.0f, DTypeOf<T>::value};
    });
    const std::vector<T> cuda = y.cuda();
    REQUIRE(sameBits(cuda, y.cpu()));
    if (sizeof(T) == 4)
      requireEach(cuda.size(), [&](size_t i) { return toFloat(cuda[i]) < 16777216.0f; });
  }
}

// Elements past 2^34, where the counter's second word comes in, need no array of that size: the CPU and the device
// share the formula, so it is enough that its known answers hold on the device.
TEST_CASE("uniform: Philox's known answers") {
  const Array<float> y(int64_t{4});
  runEverywhere(Op::uniform, [&](Side side) {
    return UniformArgs{y.at(side), 4, 0, 0, 0.0f, 1.0f, DType::kFloat32};
  });
  const uint32_t words[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  for (size_t i = 0; i < 4; ++i)
    REQUIRE(y.cuda()[i] == static_cast<float>(words[i] >> 8) * 0x1p-24f);
}

}  // namespace
}  // namespace didr::test
