#include "native/ops/elementwise/unary.h"

#include "native/core/simd_math.h"
#include "test/native/elementwise/reference.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

struct Case {
  Unary kind;
  double ulps;   // tolerance in units of the last place; 0: the exact result, correctly rounded
  double floor;  // and absolutely, for what is small beside the argument's own rounding
  float scale;   // of the random arguments
};

const Case kCases[] = {
    {Unary::kNeg, 0, 0, 10},        {Unary::kAbs, 0, 0, 10},      {Unary::kSquare, 0, 0, 10},
    {Unary::kSqrt, 0, 0, 10},       {Unary::kRsqrt, 1.5, 0, 10},  {Unary::kReciprocal, 0, 0, 10},
    {Unary::kExp, 1.1, 0, 45},      {Unary::kLog, 1, 0, 1000},    {Unary::kTanh, 2.5, 0, 3},
    {Unary::kSigmoid, 2.5, 0, 20},  {Unary::kSilu, 3, 1e-36, 20}, {Unary::kGelu, 6, 1e-36, 3},
    {Unary::kGeluTanh, 8, 1e-7, 3}, {Unary::kRelu, 0, 0, 10},     {Unary::kSign, 0, 0, 10},
    {Unary::kFloor, 0, 0, 1000},    {Unary::kSin, 1.5, 0, 100},   {Unary::kCos, 1.5, 0, 100},
};

std::vector<float> arguments(int64_t count, float scale) {
  std::vector<float> x = someFloats(count, 7, scale);
  for (size_t i = 0; i < x.size() && i < std::size(kHostile); ++i)
    x[x.size() - 1 - i] = kHostile[(i * 7) % std::size(kHostile)];
  return x;
}

template <class T>
std::vector<T> runUnary(const std::vector<T>& values, Unary kind, float lo = 0, float hi = 0) {
  std::vector<T> result;
  const auto count = static_cast<int64_t>(values.size());
  atEveryLevel([&](const auto& launch) {
    Guarded<T> x(values, 1), y(count);
    launch(Op::unary, UnaryArgs{x.data(), y.data(), count, kind, DTypeOf<T>::value, lo, hi});
    launch(Op::unary, UnaryArgs{x.data(), x.data(), count, kind, DTypeOf<T>::value, lo, hi});
    result = y.values();
    Bytes bytes, inPlace;
    bytes.add(result);
    inPlace.add(x.values());
    CHECK(bytes == inPlace);
    return bytes;
  });
  return result;
}

TEST_CASE("unary: float32 against float64") {
  for (const Case& c : kCases) {
    CAPTURE(static_cast<int>(c.kind));
    for (const int64_t count : {0, 1, 3, 5, 17, 63, 64, 65, 1000, 100003}) {
      const std::vector<float> x = arguments(count, c.scale);
      const std::vector<float> y = runUnary(x, c.kind);
      double worst = 0;
      float at = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double want = unaryOf(c.kind, x[i]);
        const double error =
            c.ulps == 0 ? ulpsBetween(y[i], static_cast<double>(static_cast<float>(want)))
            : std::fabs(static_cast<double>(y[i]) - want) <= c.floor ? 0
                                                                     : ulpsBetween(y[i], want);
        if (error > worst) {
          worst = error;
          at = x[i];
        }
      }
      CAPTURE(at);
      CHECK(worst <= c.ulps);
    }
  }
}

TEST_CASE("unary: bfloat16 is the float32 result rounded once") {
  for (const Case& c : kCases) {
    CAPTURE(static_cast<int>(c.kind));
    std::vector<BFloat16> x;
    std::vector<float> wide;
    for (const float value : arguments(1003, c.scale)) {
      x.push_back(toBFloat16(value));
      wide.push_back(toFloat(x.back()));
    }
    const std::vector<BFloat16> y = runUnary(x, c.kind);
    const std::vector<float> want = runUnary(wide, c.kind);
    int different = 0;
    for (size_t i = 0; i < x.size(); ++i) different += y[i].bits != toBFloat16(want[i]).bits;
    CHECK(different == 0);
  }
}

TEST_CASE("unary: accuracy over all exponents and signs") {
  // Every 65,521st float.
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 65521)
    x.push_back(floatOf(static_cast<uint32_t>(bits)));
  for (const Case& c : kCases) {
    CAPTURE(static_cast<int>(c.kind));
    if (c.ulps == 0) continue;
    const std::vector<float> y = runUnary(x, c.kind);
    double worst = 0;
    float at = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = unaryOf(c.kind, x[i]);
      if (std::fabs(static_cast<double>(y[i]) - want) <= c.floor) continue;
      const double error = ulpsBetween(y[i], want);
      if (error > worst) {
        worst = error;
        at = x[i];
      }
    }
    CAPTURE(at);
    CHECK(worst <= c.ulps);
  }
}

TEST_CASE("unary: clip keeps NaN and works on both sides") {
  const std::vector<float> x = arguments(1003, 3);
  const std::vector<float> y = runUnary(x, Unary::kClip, -1.25f, 2.0f);
  for (size_t i = 0; i < x.size(); ++i)
    CHECK(ulpsBetween(y[i], unaryOf(Unary::kClip, x[i], -1.25, 2)) == 0);
}

TEST_CASE("unary: answers are bytes") {
  for (const Unary kind : {Unary::kIsFinite, Unary::kLogicalNot}) {
    for (const int64_t count : {0, 1, 3, 17, 65, 1000}) {
      const std::vector<float> x = arguments(count, 3);
      atEveryLevel([&](const auto& launch) {
        Guarded<float> from(x);
        Guarded<uint8_t> y(count);
        launch(Op::unary, UnaryArgs{from.data(), y.data(), count, kind, DType::kFloat32, 0, 0});
        const std::vector<uint8_t> got = y.values();
        for (size_t i = 0; i < x.size(); ++i) CHECK(got[i] == unaryOf(kind, x[i]));
        return Bytes();
      });
    }
  }
  const std::vector<uint8_t> bytes = {0, 1, 2, 255, 0, 128, 7};
  atEveryLevel([&](const auto& launch) {
    Guarded<uint8_t> x(bytes), y(7);
    launch(Op::unary, UnaryArgs{x.data(), y.data(), 7, Unary::kLogicalNot, DType::kUint8, 0, 0});
    CHECK(y.values() == std::vector<uint8_t>{1, 0, 0, 0, 1, 0, 0});
    return Bytes();
  });
}

TEST_CASE("unary: int32 wraps, and clip's bounds saturate") {
  const std::vector<int32_t> x = {0,      1,       -1, INT32_MAX, INT32_MIN, 46341,
                                  -46341, 1 << 16, 7,  -3,        100};
  const auto wrapped = [](int64_t value) {
    return static_cast<int32_t>(static_cast<uint32_t>(value));
  };
  const auto check = [&](Unary kind, const auto& want, float lo, float hi) {
    CAPTURE(static_cast<int>(kind));
    const std::vector<int32_t> y = runUnary(x, kind, lo, hi);
    for (size_t i = 0; i < x.size(); ++i) CHECK(y[i] == want(x[i]));
  };
  check(
      Unary::kNeg, [&](int64_t v) { return wrapped(-v); }, 0, 0);
  check(
      Unary::kAbs, [&](int64_t v) { return wrapped(v < 0 ? -v : v); }, 0, 0);
  check(
      Unary::kSquare, [&](int64_t v) { return wrapped(v * v); }, 0, 0);
  check(
      Unary::kSign, [](int64_t v) { return v > 0   ? 1
                                           : v < 0 ? -1
                                                   : 0; }, 0, 0);
  check(
      Unary::kClip, [](int64_t v) { return std::clamp<int64_t>(v, -2, 50); }, -2.9f, 50.5f);
  check(
      Unary::kClip, [](int64_t v) { return v; }, -kInfinity, 1e20f);
}

TEST_CASE("unary: which dtypes a function takes") {
  CHECK(supports(Unary::kExp, DType::kBFloat16));
  CHECK(!supports(Unary::kExp, DType::kInt32));
  CHECK(supports(Unary::kClip, DType::kInt32));
  CHECK(supports(Unary::kLogicalNot, DType::kUint8));
  CHECK(!supports(Unary::kNeg, DType::kUint8));
  CHECK(!supports(Unary::kNeg, DType::kFloat16));
  CHECK(resultOf(Unary::kIsFinite, DType::kFloat32) == DType::kUint8);
  CHECK(resultOf(Unary::kClip, DType::kInt32) == DType::kInt32);
}

// erf is for kernels only, so it is tested at the level of this file.
TEST_CASE("erf against float64") {
  namespace simd = DIDR_LEVEL::simd;
  double worst = 0;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 16381) {
    const float x = floatOf(static_cast<uint32_t>(bits));
    const float y = simd::erf(simd::broadcast(x))[0];
    worst = std::max(worst, ulpsBetween(y, std::erf(static_cast<double>(x))));
  }
  CHECK(worst <= 2.5);
}

}  // namespace
}  // namespace didr::test
