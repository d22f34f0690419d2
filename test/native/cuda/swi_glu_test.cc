#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

constexpr int64_t kCounts[] = {0, 1,  3,  4,  5,  7,    8,
                               9, 17, 63, 64, 65, 2051, kRaceDetection ? 10003 : 100003};

template <class T>
void checkSwiGlu(const std::vector<T>& a, const std::vector<T>& b, const std::vector<T>& dy,
                 bool inPlace) {
  const auto count = static_cast<int64_t>(a.size());
  CAPTURE(count);
  CAPTURE(inPlace);
  const Array<T> aa(a), ab(b), ady(dy), y(count), otherA(count), otherB(count);
  const Array<T>& da = inPlace ? ady : otherA;
  const Array<T>& db = inPlace ? aa : otherB;
  runEverywhere(Op::swiGlu, [&](Side side) {
    return SwiGluArgs{aa.at(side), ab.at(side), y.at(side), count, DTypeOf<T>::value};
  });
  runEverywhere(Op::swiGluBackward, [&](Side side) {
    return SwiGluBackwardArgs{aa.at(side), ab.at(side), ady.at(side),     da.at(side),
                              db.at(side), count,       DTypeOf<T>::value};
  });
  const auto same = [](const std::vector<T>& one, const std::vector<T>& two) {
    requireEach(one.size(), [&](size_t i) {
      const float p = toFloat(one[i]), q = toFloat(two[i]);
      return bitsOf(p) == bitsOf(q) || (std::isnan(p) && std::isnan(q));
    });
  };
  same(y.cuda(), y.cpu());
  same(da.cuda(), da.cpu());
  same(db.cuda(), db.cpu());

  const std::vector<T> value = y.cuda(), gradientA = da.cuda(), gradientB = db.cuda();
  requireEach(value.size(), [&](size_t i) {
    const double z = toFloat(a[i]), other = toFloat(b[i]), gradient = toFloat(dy[i]);
    if (!std::isfinite(z)) return true;  // the CPU's bits have been compared
    const double s = 1.0 / (1.0 + std::exp(-z));
    const auto close = [](T actual, double expected) {
      return std::fabs(toFloat(actual) - expected) <=
             std::fabs(expected) * (1e-6 + 1.01 * kRounding<T>)+1e-38;
    };
    return close(value[i], z * s * other) && close(gradientB[i], gradient * z * s) &&
           // The slope's two terms cancel near its zero.
           std::fabs(toFloat(gradientA[i]) - gradient * other * s * (1.0 + z * (1.0 - s))) <=
               std::fabs(gradient * other) * (1e-6 + 1.1 * 1.01 * kRounding<T>);
  });
}

TEST_CASE_TEMPLATE("swiGlu: the CPU's bits and float64, forward and backward", T, float, BFloat16) {
  for (const int64_t count : kCounts) {
    std::vector<T> a = someValues<T>(count, 1);
    for (T& x : a) x = storeAs(T{}, 4.0f * toFloat(x));
    for (const bool inPlace : {false, true})
      checkSwiGlu<T>(a, someValues<T>(count, 2), someValues<T>(count, 3), inPlace);
  }
}

TEST_CASE_TEMPLATE("swiGlu: far out and non-finite", T, float, BFloat16) {
  std::vector<T> a, b, dy;
  for (const float z : {0.0f, -0.0f, 90.0f, -90.0f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN}) {
    a.push_back(storeAs(T{}, z));
    b.push_back(storeAs(T{}, 0.5f));
    dy.push_back(storeAs(T{}, 1.0f));
  }
  const auto count = static_cast<int64_t>(a.size());
  checkSwiGlu<T>(a, b, dy, false);
  const Array<T> aa(a), ab(b), ady(dy), da(count), db(count);
  runEverywhere(Op::swiGluBackward, [&](Side side) {
    return SwiGluBackwardArgs{aa.at(side), ab.at(side), ady.at(side),     da.at(side),
                              db.at(side), count,       DTypeOf<T>::value};
  });
  const std::vector<T> gradient = da.cuda(), other = db.cuda();
  REQUIRE(toFloat(gradient[6]) == 0.5f);  // silu'(inf) = 1
  REQUIRE(toFloat(gradient[7]) == 0.0f);
  REQUIRE(toFloat(other[6]) == INFINITY);
  REQUIRE(toFloat(other[7]) == 0.0f);
  REQUIRE(std::isnan(toFloat(gradient[8])));
}

}  // namespace
}  // namespace didr::test
