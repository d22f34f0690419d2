#include "native/ops/reduce/reduce.h"

#include "native/ops/reduce/softmax.h"
#include "test/native/elementwise/reference.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

struct Shape {
  int64_t outer, axis, inner;
  int64_t count() const { return outer * axis * inner; }
  size_t at(int64_t o, int64_t a, int64_t i) const {
    return static_cast<size_t>((o * axis + a) * inner + i);
  }
};

const Shape kShapes[] = {{0, 3, 2},       {3, 0, 2},      {2, 3, 0},      {1, 1, 1},
                         {2, 3, 1},       {1, 7, 5},      {4, 17, 1},     {3, 63, 1},
                         {3, 64, 1},      {3, 65, 1},     {2, 65, 3},     {2, 100, 17},
                         {1, 1000003, 1}, {1, 100003, 3}, {5, 257, 63},   {3, 100, 64},
                         {2, 77, 65},     {1, 9, 2500},   {2, 300, 1100}, {1, 4100, 33},
                         {70, 1000, 1},   {1, 140000, 2}, {2, 200000, 1}, {1, 2100, 1025}};

const Reduce kFloatKinds[] = {Reduce::kSum,       Reduce::kMean,       Reduce::kMax,   Reduce::kMin,
                              Reduce::kLogSumExp, Reduce::kSumSquares, Reduce::kArgMax};

// The reduction of one slice in float64, and the sum of magnitudes its error scales with.
struct Want {
  double value;
  double scale;
};

template <class Get>
Want wantedOf(Reduce kind, int64_t axis, const Get& get) {
  double sum = 0, magnitudes = 0, squares = 0, most = -INFINITY, least = INFINITY;
  int64_t argMax = 0;
  bool nan = false;
  for (int64_t a = 0; a < axis; ++a) {
    const double x = get(a);
    if (std::isnan(x)) {
      if (!nan) argMax = a;
      nan = true;
    }
    sum += x;
    magnitudes += std::fabs(x);
    squares += x * x;
    if (x > most && !nan) argMax = a;
    most = std::max(most, x);
    least = std::min(least, x);
  }
  double exponentials = 0;
  const double shift = std::isinf(most) ? 0 : most;
  for (int64_t a = 0; a < axis; ++a) exponentials += std::exp(get(a) - shift);
  switch (kind) {
    case Reduce::kSum:
      return {sum, magnitudes};
    case Reduce::kMean:
      return {sum / static_cast<double>(axis), magnitudes / static_cast<double>(axis)};
    case Reduce::kMax:
      return {nan ? NAN : most, 0};
    case Reduce::kMin:
      return {nan ? NAN : least, 0};
    case Reduce::kLogSumExp: {
      const double value = shift + std::log(exponentials);
      return {value, std::fabs(value) + 4};
    }
    case Reduce::kSumSquares:
      return {squares, squares};
    case Reduce::kArgMax:
      return {static_cast<double>(argMax), 0};
  }
  return {};
}

template <class T>
double unitOf() {
  return std::is_same_v<T, float> ? 0x1p-24 : 0x1p-8;
}

void checkClose(double got, const Want& want, double unit) {
  if (std::isnan(want.value)) {
    CHECK(std::isnan(got));
  } else if (std::isinf(want.value) || want.scale == 0) {
    CHECK(got == want.value);
  } else {
    CHECK(std::fabs(got - want.value) <= unit * std::fabs(want.value) + 1e-7 * want.scale);
  }
}

template <class T>
void checkReduce(const Shape& s, const std::vector<T>& x, Reduce kind) {
  CAPTURE(s.outer);
  CAPTURE(s.axis);
  CAPTURE(s.inner);
  CAPTURE(static_cast<int>(kind));
  const int64_t count = s.outer * s.inner;
  std::vector<double> got;
  atEveryLevel([&](const auto& launch) {
    const auto run = [&](auto& y) {
      Guarded<T> from(x, 1);
      launch(Op::reduce,
             ReduceArgs{from.data(), y.data(), kind, DTypeOf<T>::value, s.outer, s.axis, s.inner});
      got.clear();
      for (const auto value : y.values()) got.push_back(toFloat(value));
      Bytes bytes;
      bytes.add(y.values());
      return bytes;
    };
    if (kind == Reduce::kArgMax) {
      Guarded<int32_t> y(count);
      const Bytes bytes = run(y);
      got.clear();
      for (const int32_t value : y.values()) got.push_back(value);
      return bytes;
    }
    Guarded<T> y(count);
    return run(y);
  });
  for (int64_t o = 0; o < s.outer; ++o)
    for (int64_t i = 0; i < s.inner; ++i)
      checkClose(got[static_cast<size_t>(o * s.inner + i)],
                 wantedOf(kind, s.axis, [&](int64_t a) { return toFloat(x[s.at(o, a, i)]); }),
                 unitOf<T>());
}

TEST_CASE("reduce: every kind on every shape, float32 and bfloat16") {
  for (const Shape& s : kShapes)
    for (const Reduce kind : kFloatKinds) {
      checkReduce(s, someValues<float>(s.count(), 31, 3), kind);
      if (s.count() < 200000) checkReduce(s, someValues<BFloat16>(s.count(), 32, 3), kind);
    }
}

TEST_CASE("reduce: NaN and infinities, wherever they are") {
  for (const Shape& s : {Shape{1, 300, 1}, Shape{2, 70, 3}, Shape{1, 40, 70}, Shape{1, 140000, 1}})
    for (const float special : {kNan, kInfinity, -kInfinity})
      for (const int64_t a : {int64_t{0}, s.axis / 2, s.axis - 1}) {
        CAPTURE(special);
        CAPTURE(a);
        std::vector<float> x = someFloats(s.count(), 33);
        x[s.at(s.outer - 1, a, s.inner - 1)] = special;
        for (const Reduce kind :
             {Reduce::kMax, Reduce::kMin, Reduce::kLogSumExp, Reduce::kArgMax, Reduce::kMean})
          checkReduce(s, x, kind);
      }
  // Slices of one value: the first index wins.
  for (const float value : {kNan, -kInfinity, 2.5f, -0.0f})
    for (const Shape& s : {Shape{1, 1000, 1}, Shape{1, 9, 3}, Shape{1, 150000, 1}}) {
      const std::vector<float> x(static_cast<size_t>(s.count()), value);
      for (const Reduce kind : {Reduce::kMax, Reduce::kArgMax, Reduce::kLogSumExp})
        checkReduce(s, x, kind);
    }
}

TEST_CASE("reduce: logSumExp of large values neither overflows nor underflows") {
  const Shape s{2, 100, 2};
  std::vector<float> x = someFloats(s.count(), 34);
  for (float& value : x) value += 3e4f;
  checkReduce(s, x, Reduce::kLogSumExp);
  for (float& value : x) value -= 6e4f;
  checkReduce(s, x, Reduce::kLogSumExp);
}

TEST_CASE("reduce: int32 sums wrap; max, min and argMax are exact") {
  for (const Shape& s : {Shape{1, 0, 2}, Shape{1, 1, 1}, Shape{2, 1000, 1}, Shape{3, 70, 5},
                         Shape{1, 20, 1500}, Shape{1, 300007, 1}}) {
    CAPTURE(s.axis);
    std::vector<int32_t> x;
    for (const float value : someFloats(s.count(), 35, 1e9f))
      x.push_back(static_cast<int32_t>(value));
    for (const Reduce kind : {Reduce::kSum, Reduce::kMax, Reduce::kMin, Reduce::kArgMax}) {
      CAPTURE(static_cast<int>(kind));
      std::vector<int32_t> got;
      atEveryLevel([&](const auto& launch) {
        Guarded<int32_t> from(x), y(s.outer * s.inner);
        launch(Op::reduce,
               ReduceArgs{from.data(), y.data(), kind, DType::kInt32, s.outer, s.axis, s.inner});
        got = y.values();
        Bytes bytes;
        bytes.add(got);
        return bytes;
      });
      for (int64_t o = 0; o < s.outer; ++o)
        for (int64_t i = 0; i < s.inner; ++i) {
          uint32_t sum = 0;
          int32_t most = INT32_MIN, least = INT32_MAX, argMax = 0;
          for (int64_t a = 0; a < s.axis; ++a) {
            const int32_t value = x[s.at(o, a, i)];
            sum += static_cast<uint32_t>(value);
            if (value > most) argMax = static_cast<int32_t>(a);
            most = std::max(most, value);
            least = std::min(least, value);
          }
          const int32_t want = kind == Reduce::kSum   ? static_cast<int32_t>(sum)
                               : kind == Reduce::kMax ? most
                               : kind == Reduce::kMin ? least
                                                      : argMax;
          CHECK(got[static_cast<size_t>(o * s.inner + i)] == want);
        }
    }
  }
}

TEST_CASE("reduce: the error of a long sum stays under 1e-6 relative") {
  const int64_t count = 1 << 24;
  std::vector<float> x = someFloats(count, 36);
  double exact = 0;
  for (float& value : x) {
    value = std::fabs(value) + 0.1f;
    exact += static_cast<double>(value);
  }
  atEveryLevel([&](const auto& launch) {
    float y = 0;
    launch(Op::reduce, ReduceArgs{x.data(), &y, Reduce::kSum, DType::kFloat32, 1, count, 1});
    CHECK(std::fabs(static_cast<double>(y) / exact - 1) < 1e-6);
    Bytes bytes;
    bytes.add(std::vector<float>{y});
    return bytes;
  });
}

template <class T>
void checkSoftmax(const Shape& s, const std::vector<T>& x) {
  CAPTURE(s.outer);
  CAPTURE(s.axis);
  CAPTURE(s.inner);
  std::vector<T> got;
  atEveryLevel([&](const auto& launch) {
    Guarded<T> from(x, 1), y(s.count());
    launch(Op::softmax,
           SoftmaxArgs{from.data(), y.data(), DTypeOf<T>::value, s.outer, s.axis, s.inner});
    launch(Op::softmax,
           SoftmaxArgs{from.data(), from.data(), DTypeOf<T>::value, s.outer, s.axis, s.inner});
    got = y.values();
    Bytes bytes, inPlace;
    bytes.add(got);
    inPlace.add(from.values());
    CHECK(bytes == inPlace);
    return bytes;
  });
  for (int64_t o = 0; o < s.outer; ++o)
    for (int64_t i = 0; i < s.inner; ++i) {
      double most = -INFINITY, sum = 0, total = 0;
      for (int64_t a = 0; a < s.axis; ++a)
        most = std::max(most, static_cast<double>(toFloat(x[s.at(o, a, i)])));
      for (int64_t a = 0; a < s.axis; ++a) sum += std::exp(toFloat(x[s.at(o, a, i)]) - most);
      double worst = 0;
      for (int64_t a = 0; a < s.axis; ++a) {
        const double want = std::exp(toFloat(x[s.at(o, a, i)]) - most) / sum;
        const double y = toFloat(got[s.at(o, a, i)]);
        total += y;
        // x - m, which reaches 12 here, is rounded before exp: half of 2^-20.
        const double error = std::fabs(y - want) - 2e-38;
        worst = std::max(worst, error / want);
      }
      CHECK(worst <= unitOf<T>() + 13 * 0x1p-24);
      if (s.axis > 0) CHECK(std::fabs(total - 1) < 4 * unitOf<T>() + 1e-6);
    }
}

TEST_CASE("softmax: every shape, float32 and bfloat16") {
  for (const Shape& s : kShapes) {
    checkSoftmax(s, someValues<float>(s.count(), 41, 3));
    if (s.count() < 200000) checkSoftmax(s, someValues<BFloat16>(s.count(), 42, 3));
  }
}

TEST_CASE("softmax: shifted by its maximum, and not defined without a finite one") {
  const Shape s{1, 70, 1};
  std::vector<float> x = someFloats(s.count(), 43);
  for (float& value : x) value += 200.0f;
  checkSoftmax(s, x);
  x[3] = -kInfinity;
  const auto run = [&](const std::vector<float>& from) {
    std::vector<float> y(from.size());
    atEveryLevel([&](const auto& launch) {
      launch(Op::softmax, SoftmaxArgs{from.data(), y.data(), DType::kFloat32, 1, 70, 1});
      return Bytes();
    });
    return y;
  };
  CHECK(run(x)[3] == 0.0f);
  for (const float special : {kNan, kInfinity}) {
    x[3] = special;
    for (const float y : run(x)) CHECK(std::isnan(y));
  }
  for (const float y : run(std::vector<float>(70, -kInfinity))) CHECK(std::isnan(y));
}

TEST_CASE("reduce: which dtypes a reduction takes") {
  CHECK(supports(Reduce::kSum, DType::kInt32));
  CHECK(!supports(Reduce::kMean, DType::kInt32));
  CHECK(!supports(Reduce::kSum, DType::kUint8));
  CHECK(resultOf(Reduce::kArgMax, DType::kBFloat16) == DType::kInt32);
  CHECK(resultOf(Reduce::kSum, DType::kBFloat16) == DType::kBFloat16);
}

}  // namespace
}  // namespace didr::test
