#include "native/ops/elementwise/binary.h"

#include "test/native/elementwise/broadcasts.h"
#include "test/native/elementwise/reference.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

BinaryArgs argumentsOf(const void* a, const void* b, void* y, Binary kind, DType dtype,
                       const std::vector<int64_t>& shape, const Layout& layoutA,
                       const Layout& layoutB) {
  BinaryArgs arguments{a, b, y, kind, dtype, static_cast<int32_t>(shape.size()), {}, {}, {}};
  std::copy(shape.begin(), shape.end(), arguments.shape);
  std::copy(layoutA.strides.begin(), layoutA.strides.end(), arguments.aStrides);
  std::copy(layoutB.strides.begin(), layoutB.strides.end(), arguments.bStrides);
  return arguments;
}

// y[i] for a run of the op on whole arrays.
template <class Result, class T>
std::vector<Result> runBinary(const std::vector<T>& a, const std::vector<T>& b, Binary kind,
                              const std::vector<int64_t>& shape, const Layout& layoutA,
                              const Layout& layoutB) {
  std::vector<Result> result;
  const int64_t count = countOf(shape);
  atEveryLevel([&](const auto& launch) {
    Guarded<T> guardedA(a), guardedB(b, 1);
    Guarded<Result> y(count);
    launch(Op::binary, argumentsOf(guardedA.data(), guardedB.data(), y.data(), kind,
                                   DTypeOf<T>::value, shape, layoutA, layoutB));
    result = y.values();
    Bytes bytes;
    bytes.add(result);
    return bytes;
  });
  return result;
}

template <class Result, class T>
std::vector<Result> runBinary(const std::vector<T>& a, const std::vector<T>& b, Binary kind) {
  const auto count = static_cast<int64_t>(a.size());
  const Layout flat{{1}, count};
  return runBinary<Result>(a, b, kind, {count}, flat, flat);
}

float arithmeticOf(Binary kind, float a, float b) {
  switch (kind) {
    case Binary::kAdd:
      return a + b;
    case Binary::kSub:
      return a - b;
    case Binary::kMul:
      return a * b;
    case Binary::kDiv:
      return a / b;
    case Binary::kMaximum:
      return std::isnan(a) || std::isnan(b) ? kNan
             : a == b                       ? (std::signbit(a) ? b : a)
                                            : std::max(a, b);
    case Binary::kMinimum:
      return std::isnan(a) || std::isnan(b) ? kNan
             : a == b                       ? (std::signbit(a) ? a : b)
                                            : std::min(a, b);
    default:
      return 0;
  }
}

template <class T>
uint8_t comparisonOf(Binary kind, T a, T b) {
  switch (kind) {
    case Binary::kEqual:
      return a == b;
    case Binary::kNotEqual:
      return a != b;
    case Binary::kLess:
      return a < b;
    case Binary::kLessEqual:
      return a <= b;
    case Binary::kGreater:
      return a > b;
    case Binary::kGreaterEqual:
      return a >= b;
    case Binary::kLogicalAnd:
      return a != 0 && b != 0;
    case Binary::kLogicalOr:
      return a != 0 || b != 0;
    default:
      return 0;
  }
}

const Binary kArithmetic[] = {Binary::kAdd, Binary::kSub,     Binary::kMul,
                              Binary::kDiv, Binary::kMaximum, Binary::kMinimum};
const Binary kComparisons[] = {Binary::kEqual,     Binary::kNotEqual, Binary::kLess,
                               Binary::kLessEqual, Binary::kGreater,  Binary::kGreaterEqual};

// All pairs of hostile values.
void hostilePairs(std::vector<float>& a, std::vector<float>& b) {
  for (const float x : kHostile)
    for (const float y : kHostile) {
      a.push_back(x);
      b.push_back(y);
    }
}

TEST_CASE("binary: float32 arithmetic is exact, on hostile pairs too") {
  std::vector<float> a, b;
  hostilePairs(a, b);
  for (const Binary kind : kArithmetic) {
    CAPTURE(static_cast<int>(kind));
    const std::vector<float> y = runBinary<float>(a, b, kind);
    int wrong = 0;
    for (size_t i = 0; i < a.size(); ++i)
      wrong += ulpsBetween(y[i], arithmeticOf(kind, a[i], b[i])) != 0;
    CHECK(wrong == 0);
  }
  for (const Binary kind : kComparisons) {
    CAPTURE(static_cast<int>(kind));
    const std::vector<uint8_t> y = runBinary<uint8_t>(a, b, kind);
    int wrong = 0;
    for (size_t i = 0; i < a.size(); ++i) wrong += y[i] != comparisonOf(kind, a[i], b[i]);
    CHECK(wrong == 0);
  }
}

TEST_CASE("binary: pow against float64") {
  std::vector<float> a, b;
  hostilePairs(a, b);
  const std::vector<float> bases = someFloats(20000, 3, 20.0f);
  const std::vector<float> exponents = someFloats(20000, 4, 20.0f);
  for (size_t i = 0; i < bases.size(); ++i) {
    a.push_back(std::fabs(bases[i]));
    b.push_back(exponents[i]);
    a.push_back(bases[i]);
    b.push_back(std::floor(exponents[i]));
    // Near 1 with a large exponent: where a float logarithm would fail.
    a.push_back(1.0f + bases[i] * 1e-4f);
    b.push_back(exponents[i] * 1000.0f);
  }
  const std::vector<float> y = runBinary<float>(a, b, Binary::kPow);
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double want = std::pow(static_cast<double>(a[i]), static_cast<double>(b[i]));
    const auto rounded = static_cast<double>(static_cast<float>(want));
    const double error = std::isfinite(rounded) && rounded != 0 ? ulpsBetween(y[i], want)
                                                                : ulpsBetween(y[i], rounded);
    if (error > 0.51) {
      CAPTURE(a[i]);
      CAPTURE(b[i]);
      CAPTURE(y[i]);
      CHECK(error <= 0.51);
    }
    worst = std::max(worst, error);
  }
  CHECK(worst > 0.4);  // or nothing was compared
}

TEST_CASE("binary: bfloat16 rounds once") {
  std::vector<BFloat16> a, b;
  for (const float x : kHostile)
    for (const float y : kHostile) {
      a.push_back(toBFloat16(x));
      b.push_back(toBFloat16(y));
    }
  for (const Binary kind : kArithmetic) {
    CAPTURE(static_cast<int>(kind));
    const std::vector<BFloat16> y = runBinary<BFloat16>(a, b, kind);
    int wrong = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      const float want = arithmeticOf(kind, toFloat(a[i]), toFloat(b[i]));
      wrong += ulpsBetween(toFloat(y[i]), toFloat(toBFloat16(want))) != 0;
    }
    CHECK(wrong == 0);
  }
  const std::vector<uint8_t> less = runBinary<uint8_t>(a, b, Binary::kLess);
  int wrong = 0;
  for (size_t i = 0; i < a.size(); ++i) wrong += less[i] != (toFloat(a[i]) < toFloat(b[i]));
  CHECK(wrong == 0);
}

TEST_CASE("binary: int32 wraps and divides towards zero") {
  const int32_t values[] = {0,  1,     -1,     2,         -2,        3,       7,     -7,
                            10, 46341, -46341, INT32_MAX, INT32_MIN, 1 << 16, 12345, -99999};
  std::vector<int32_t> a, b;
  for (const int32_t x : values)
    for (const int32_t y : values) {
      a.push_back(x);
      b.push_back(y);
    }
  const auto wanted = [](Binary kind, int64_t x, int64_t y) -> int64_t {
    switch (kind) {
      case Binary::kAdd:
        return x + y;
      case Binary::kSub:
        return x - y;
      case Binary::kMul:
        return x * y;
      case Binary::kDiv:
        return y == 0 ? 0 : x / y;
      case Binary::kMaximum:
        return std::max(x, y);
      default:
        return std::min(x, y);
    }
  };
  for (const Binary kind : kArithmetic) {
    CAPTURE(static_cast<int>(kind));
    const std::vector<int32_t> y = runBinary<int32_t>(a, b, kind);
    for (size_t i = 0; i < a.size(); ++i)
      CHECK(y[i] == static_cast<int32_t>(static_cast<uint32_t>(wanted(kind, a[i], b[i]))));
  }
  for (const Binary kind : kComparisons) {
    CAPTURE(static_cast<int>(kind));
    const std::vector<uint8_t> y = runBinary<uint8_t>(a, b, kind);
    for (size_t i = 0; i < a.size(); ++i) CHECK(y[i] == comparisonOf(kind, a[i], b[i]));
  }
}

TEST_CASE("binary: uint8") {
  std::vector<uint8_t> a, b;
  for (int x = 0; x < 256; x += 5)
    for (const int y : {0, 1, 5, 100, 127, 128, 200, 255}) {
      a.push_back(static_cast<uint8_t>(x));
      b.push_back(static_cast<uint8_t>(y));
    }
  for (const Binary kind :
       {Binary::kEqual, Binary::kNotEqual, Binary::kLess, Binary::kLessEqual, Binary::kGreater,
        Binary::kGreaterEqual, Binary::kLogicalAnd, Binary::kLogicalOr}) {
    CAPTURE(static_cast<int>(kind));
    const std::vector<uint8_t> y = runBinary<uint8_t>(a, b, kind);
    for (size_t i = 0; i < a.size(); ++i) CHECK(y[i] == comparisonOf(kind, a[i], b[i]));
  }
}

template <class T>
void checkBroadcasts(uint32_t seed) {
  Random random(seed);
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    const std::vector<int64_t> shape = someShape(random);
    const Layout layoutA = someLayout(shape, random);
    const Layout layoutB = someLayout(shape, random);
    const std::vector<T> a = someValues<T>(layoutA.elements, seed + 1);
    const std::vector<T> b = someValues<T>(layoutB.elements, seed + 2);
    const std::vector<T> y = runBinary<T>(a, b, Binary::kSub, shape, layoutA, layoutB);
    int64_t wrong = 0;
    forEachIndex(shape, {&layoutA, &layoutB}, [&](int64_t position, const auto& offsets) {
      const float want =
          toFloat(a[static_cast<size_t>(offsets[0])]) - toFloat(b[static_cast<size_t>(offsets[1])]);
      const T rounded = storeAs(T{}, want);
      wrong += std::memcmp(&rounded, &y[static_cast<size_t>(position)], sizeof(T)) != 0;
    });
    CHECK(wrong == 0);
  }
}

TEST_CASE("binary: broadcasts and strides over random shapes") {
  checkBroadcasts<float>(11);
  checkBroadcasts<BFloat16>(12);
}

TEST_CASE("binary: in place, over threads and past the caches") {
  for (const int64_t count : {0, 1, 65, 1000003, 4500000}) {
    CAPTURE(count);
    const std::vector<float> a = someFloats(count, 5);
    const std::vector<float> b = someFloats(count, 6);
    const Layout flat{{1}, count};
    atEveryLevel([&](const auto& launch) {
      Guarded<float> x(a), z(b), y(count);
      launch(Op::binary, argumentsOf(x.data(), z.data(), y.data(), Binary::kAdd, DType::kFloat32,
                                     {count}, flat, flat));
      launch(Op::binary, argumentsOf(x.data(), z.data(), x.data(), Binary::kAdd, DType::kFloat32,
                                     {count}, flat, flat));
      int64_t wrong = 0;
      for (int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<size_t>(i);
        wrong += y.data()[i] != a[at] + b[at] || x.data()[i] != y.data()[i];
      }
      CHECK(wrong == 0);
      return Bytes();
    });
  }
}

}  // namespace
}  // namespace didr::test
