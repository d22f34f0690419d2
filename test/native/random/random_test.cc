#include "native/ops/random/random.h"

#include <algorithm>
#include <cmath>

#include "native/ops/random/normal.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

constexpr uint64_t kSeed = 0x0123456789abcdefull;
constexpr uint64_t kOffset = 0xfedcba9876543210ull;

TEST_CASE("Philox4x32-10 gives Random123's known answers") {
  const PhiloxBlock zero = philox({{0, 0, 0, 0}}, 0, 0);
  const uint32_t zeroWords[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const uint32_t ones = 0xffffffff;
  const PhiloxBlock full = philox({{ones, ones, ones, ones}}, ones, ones);
  const uint32_t fullWords[] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  const PhiloxBlock pi =
      philox({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0);
  const uint32_t piWords[] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  for (int w = 0; w < 4; ++w) {
    CHECK(zero.word[w] == zeroWords[w]);
    CHECK(full.word[w] == fullWords[w]);
    CHECK(pi.word[w] == piWords[w]);
  }
  // The counter and key of a draw.
  const PhiloxBlock draw =
      philoxDraw(0x299f31d0a4093822ull, 0x0370734413198a2eull, 0x85a308d3243f6a88ull);
  for (int w = 0; w < 4; ++w) CHECK(draw.word[w] == piWords[w]);
}

float uniformElement(int64_t i) {
  return uniformOf(philoxDraw(kSeed, kOffset, static_cast<uint64_t>(i / 4)).word[i % 4]);
}
float normalElement(int64_t i) {
  return normalDraw(kSeed, kOffset, static_cast<uint64_t>(i / 4)).value[i % 4];
}

// Every element against the scalar formula, at every level and thread count.
template <class T>
void checkDraws(int64_t count, int64_t shift) {
  CAPTURE(count);
  std::vector<T> uniforms, normals;
  for (int64_t i = 0; i < count; ++i) {
    uniforms.push_back(storeAs(T{}, std::fmaf(5.0f, uniformElement(i), -2.0f)));
    normals.push_back(storeAs(T{}, std::fmaf(0.5f, normalElement(i), 3.0f)));
  }
  atEveryLevel([&](const auto& launch) {
    Guarded<T> uniform(count, shift), normal(count, shift);
    launch(Op::uniform,
           UniformArgs{uniform.data(), count, kSeed, kOffset, -2.0f, 3.0f, DTypeOf<T>::value});
    launch(Op::normal,
           NormalArgs{normal.data(), count, kSeed, kOffset, 3.0f, 0.5f, DTypeOf<T>::value});
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    CHECK((count == 0 || std::memcmp(uniform.data(), uniforms.data(), bytes) == 0));
    CHECK((count == 0 || std::memcmp(normal.data(), normals.data(), bytes) == 0));
    return Bytes();
  });
}

TEST_CASE_TEMPLATE("draws equal the scalar formula and are prefixes of longer ones", T, float,
                   BFloat16) {
  for (const int64_t count :
       {0, 1, 2, 3, 5, 17, 63, 64, 65, 767, 768, 769, 8191, 8192, 8193, 100003})
    checkDraws<T>(count, 0);
  checkDraws<T>(1000003, 0);
  checkDraws<T>(1003, 1);
}

TEST_CASE("a range's excluded end stays excluded") {
  for (const auto& [low, high] :
       {std::pair{1.0f, 1.0000002f}, {-1.0f, 0.0f}, {-3.0f, -2.9999998f}, {0.0f, 1e-44f}}) {
    Guarded<float> y(4096);
    ThreadPool pool(1);
    CpuContext context{pool, "uniform", {}};
    const UniformArgs arguments{y.data(), 4096, kSeed, 0, low, high, DType::kFloat32};
    cpuOps().kernels[static_cast<int>(Op::uniform)](&arguments, context);
    for (const float x : y.values()) {
      REQUIRE(x >= low);
      REQUIRE(x < high);
    }
  }
}

TEST_CASE("a normal's error against float64 Box-Muller is below 1e-6") {
  double largest = 0.0;
  const auto check = [&](uint32_t x0, uint32_t x1) {
    const NormalPair<ScalarArithmetic> pair = normalPairOf<ScalarArithmetic>(x0, x1);
    const double u = std::fmaf(static_cast<float>(x0 >> 1), 0x1p-31f, 0x1p-32f);
    const double radius = std::sqrt(-2.0 * std::log(u)) * (x1 >> 31 ? -1.0 : 1.0);
    const double angle = ((x1 & 0x7fffff) * 0x1p-23 - 0.5) * 1.5707963267948966;
    const double a = radius * std::cos(angle), b = radius * std::sin(angle);
    const bool swapped = (x1 & 0x40000000) != 0;
    largest = std::max(largest, std::fabs(pair.first - (swapped ? b : a)));
    largest = std::max(largest, std::fabs(pair.second - (swapped ? a : b)));
  };
  for (uint64_t block = 0; block < 1000000; ++block) {
    const PhiloxBlock words = philoxDraw(kSeed, 1, block);
    check(words.word[0], words.word[1]);
    // The tail, where the radius is largest, and the middle, where it is smallest.
    check(words.word[2] >> (words.word[0] % 32), words.word[3]);
    check(~(words.word[2] >> (words.word[0] % 32)), words.word[3]);
  }
  for (const uint32_t x0 :
       {0u, 1u, 2u, 3u, 0xffffffffu, 0xfffffffeu, 0xffffff00u, 0x80000000u, 0x7fffffffu})
    for (const uint32_t x1 :
         {0u, 0x3fffffffu, 0x40000000u, 0x7fffffu, 0x800000u, 0x400000u, 0xffffffffu})
      check(x0, x1);
  MESSAGE("largest error " << largest);
  CHECK(largest < 1e-6);
}

TEST_CASE("2^24 normals: moments, tails, independence and Kolmogorov-Smirnov") {
  constexpr int64_t kCount = int64_t{1} << 24;
  std::vector<float> draws(kCount);
  ThreadPool pool(2);
  CpuContext context{pool, "normal", {}};
  const NormalArgs arguments{draws.data(), kCount, kSeed, 5, 0.0f, 1.0f, DType::kFloat32};
  cpuOps().kernels[static_cast<int>(Op::normal)](&arguments, context);

  const double n = kCount;
  double moment[5] = {};
  double lag[5] = {};
  int64_t beyond[7] = {};
  for (int64_t i = 0; i < kCount; ++i) {
    const double x = draws[static_cast<size_t>(i)];
    double power = 1.0;
    for (double& m : moment) {
      m += power;
      power *= x;
    }
    for (int64_t k = 1; k < 5; ++k)
      if (i >= k) lag[k] += x * draws[static_cast<size_t>(i - k)];
    for (int k = 0; k < 7; ++k) beyond[k] += std::fabs(x) > k;
  }
  // Five standard errors of each.
  CHECK(std::fabs(moment[1] / n) < 5.0 * std::sqrt(1.0 / n));
  CHECK(std::fabs(moment[2] / n - 1.0) < 5.0 * std::sqrt(2.0 / n));
  CHECK(std::fabs(moment[3] / n) < 5.0 * std::sqrt(15.0 / n));
  CHECK(std::fabs(moment[4] / n - 3.0) < 5.0 * std::sqrt(96.0 / n));
  for (int k = 1; k < 5; ++k) CHECK(std::fabs(lag[k] / n) < 5.0 * std::sqrt(1.0 / n));
  for (int k = 0; k < 7; ++k) {
    const double expected = n * std::erfc(k / std::sqrt(2.0));
    CAPTURE(k);
    CHECK(std::fabs(static_cast<double>(beyond[k]) - expected) < 5.0 * std::sqrt(expected) + 2.0);
  }

  std::sort(draws.begin(), draws.end());
  CHECK(draws.back() > 4.8f);
  CHECK(draws.back() < 6.661f);
  CHECK(draws.front() < -4.8f);
  double distance = 0.0;
  for (int64_t i = 0; i < kCount; ++i) {
    const double below =
        0.5 * std::erfc(-static_cast<double>(draws[static_cast<size_t>(i)]) / std::sqrt(2.0));
    distance = std::max(
        {distance, below - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - below});
  }
  MESSAGE("Kolmogorov-Smirnov statistic " << distance * std::sqrt(n));
  CHECK(distance * std::sqrt(n) < 1.95);  // passed by 99.9% of perfect generators
}

TEST_CASE("2^24 uniforms: Kolmogorov-Smirnov, and every one of the 24 bits is fair") {
  constexpr int64_t kCount = int64_t{1} << 24;
  std::vector<float> draws(kCount);
  ThreadPool pool(2);
  CpuContext context{pool, "uniform", {}};
  const UniformArgs arguments{draws.data(), kCount, kSeed, 6, 0.0f, 1.0f, DType::kFloat32};
  cpuOps().kernels[static_cast<int>(Op::uniform)](&arguments, context);
  int64_t set[24] = {};
  for (const float x : draws) {
    const auto bits = static_cast<uint32_t>(x * 0x1p24f);
    REQUIRE(static_cast<float>(bits) * 0x1p-24f == x);
    for (int b = 0; b < 24; ++b) set[b] += bits >> b & 1;
  }
  for (const int64_t count : set)
    CHECK(std::fabs(static_cast<double>(count) - kCount / 2.0) < 5.0 * 2048.0);
  std::sort(draws.begin(), draws.end());
  double distance = 0.0;
  for (int64_t i = 0; i < kCount; ++i) {
    const double below = draws[static_cast<size_t>(i)];
    distance = std::max({distance, std::fabs(below - static_cast<double>(i) / kCount),
                         std::fabs(static_cast<double>(i + 1) / kCount - below)});
  }
  CHECK(distance * 4096.0 < 1.95);
}

}  // namespace
}  // namespace didr::test
