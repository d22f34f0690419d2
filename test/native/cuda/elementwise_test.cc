// The elementwise ops: the CPU's bits (but for the payload of NaNs) and float64.
#include <array>

#include "test/native/cuda/both_devices.h"
#include "test/native/elementwise/broadcasts.h"
#include "test/native/elementwise/reference.h"

namespace didr::test {
namespace {

using Sizes = std::vector<int64_t>;

constexpr int64_t kCounts[] = {
    0, 1, 3, 4, 5, 7, 8, 9, 15, 17, 63, 65, 1023, 8195, kRaceDetection ? 5003 : 100003};

template <class T>
bool agrees(T a, T b) {
  return std::memcmp(&a, &b, sizeof a) == 0 ||
         (toFloat(a) != toFloat(a) && toFloat(b) != toFloat(b));
}

template <class T>
void requireAgreement(const std::vector<T>& cuda, const std::vector<T>& cpu) {
  REQUIRE(cuda.size() == cpu.size());
  requireEach(cuda.size(), [&](size_t i) { return agrees(cuda[i], cpu[i]); });
}

// Values of every kind, the hostile ones first.
template <class T>
std::vector<T> hostileValues(int64_t count, uint32_t seed, float scale) {
  std::vector<T> values;
  const std::vector<float> ordinary = someValues<float>(count, seed);
  for (size_t i = 0; i < ordinary.size(); ++i) {
    const float x = i < std::size(kHostile) ? kHostile[(i * 7 + seed) % std::size(kHostile)]
                                            : ordinary[i] * scale;
    if constexpr (std::is_same_v<T, int32_t>) {
      values.push_back(static_cast<int32_t>(bitsOf(x) * (i % 3 == 0 ? 1u : 0x9e3779b9u)) >>
                       (i % 29));
    } else if constexpr (std::is_same_v<T, uint8_t>) {
      values.push_back(static_cast<uint8_t>(i % 4 == 0 ? 0 : bitsOf(ordinary[i]) >> 9));
    } else if constexpr (std::is_same_v<T, Float16>) {
      values.push_back(toFloat16(x));
    } else {
      values.push_back(storeAs(T{}, x));
    }
  }
  return values;
}

// --- unary --------------------------------------------------------------------------------------

struct UnaryCase {
  Unary kind;
  double ulps;   // from float64, in units of the last place
  double floor;  // and absolutely, for what is small beside the argument's own rounding
  float scale;   // of the arguments
};
constexpr UnaryCase kUnary[] = {
    {Unary::kNeg, 0, 0, 10},        {Unary::kAbs, 0, 0, 10},      {Unary::kSquare, 0.5, 0, 10},
    {Unary::kSqrt, 0.5, 0, 10},     {Unary::kRsqrt, 1.5, 0, 10},  {Unary::kReciprocal, 0.5, 0, 10},
    {Unary::kExp, 1.1, 0, 45},      {Unary::kLog, 1, 0, 1000},    {Unary::kTanh, 2.5, 0, 3},
    {Unary::kSigmoid, 2.5, 0, 20},  {Unary::kSilu, 3, 1e-36, 20}, {Unary::kGelu, 6, 1e-36, 3},
    {Unary::kGeluTanh, 8, 1e-7, 3}, {Unary::kRelu, 0, 0, 10},     {Unary::kSign, 0, 0, 10},
    {Unary::kFloor, 0, 0, 1000},    {Unary::kSin, 2, 0, 100},     {Unary::kCos, 2, 0, 100},
    {Unary::kClip, 0, 0, 3},
};
constexpr double kLo = -1.25, kHi = 2.0;

template <class T, class Result>
std::vector<Result> checkUnary(Unary kind, const std::vector<T>& values, double lo, double hi) {
  CAPTURE(static_cast<int>(kind));
  CAPTURE(values.size());
  const auto count = static_cast<int64_t>(values.size());
  const Array<T> x(values);
  const Array<Result> y(count);
  runEverywhere(Op::unary, [&](Side side) {
    return UnaryArgs{x.at(side), y.at(side), count, kind, DTypeOf<T>::value, lo, hi};
  });
  requireAgreement(y.cuda(), y.cpu());
  if constexpr (std::is_same_v<T, Result>) {
    runEverywhere(Op::unary, [&](Side side) {
      return UnaryArgs{x.at(side), x.at(side), count, kind, DTypeOf<T>::value, lo, hi};
    });
    REQUIRE(sameBits(x.cuda(), y.cuda()));
  }
  return y.cuda();
}

TEST_CASE("unary: float32 has the CPU's bits and is near float64") {
  for (const UnaryCase& c : kUnary)
    for (const int64_t count : kCounts) {
      const std::vector<float> x = hostileValues<float>(count, 1, c.scale);
      const std::vector<float> y = checkUnary<float, float>(c.kind, x, kLo, kHi);
      CAPTURE(static_cast<int>(c.kind));
      requireEach(x.size(), [&](size_t i) {
        const double want = unaryOf(c.kind, x[i], kLo, kHi);
        return std::fabs(static_cast<double>(y[i]) - want) <= c.floor ||
               ulpsBetween(y[i], want) <= c.ulps;
      });
    }
}

TEST_CASE("unary: bfloat16 has the CPU's bits") {
  for (const UnaryCase& c : kUnary)
    for (const int64_t count : kCounts)
      checkUnary<BFloat16, BFloat16>(c.kind, hostileValues<BFloat16>(count, 2, c.scale), kLo, kHi);
}

TEST_CASE("unary: all exponents and signs") {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += kRaceDetection ? 6552101 : 65521)
    x.push_back(floatOf(static_cast<uint32_t>(bits)));
  for (const UnaryCase& c : kUnary) checkUnary<float, float>(c.kind, x, kLo, kHi);
}

TEST_CASE("unary: integers and answers") {
  for (const int64_t count : kCounts) {
    const std::vector<int32_t> ints = hostileValues<int32_t>(count, 3, 10);
    for (const Unary kind : {Unary::kNeg, Unary::kAbs, Unary::kSquare, Unary::kSign})
      checkUnary<int32_t, int32_t>(kind, ints, 0, 0);
    checkUnary<int32_t, int32_t>(Unary::kClip, ints, -7.9, 1e30);
    checkUnary<int32_t, int32_t>(Unary::kClip, ints, NAN, 7.9);
    checkUnary<int32_t, uint8_t>(Unary::kLogicalNot, ints, 0, 0);
    checkUnary<uint8_t, uint8_t>(Unary::kLogicalNot, hostileValues<uint8_t>(count, 4, 1), 0, 0);
    for (const Unary kind : {Unary::kIsFinite, Unary::kLogicalNot}) {
      checkUnary<float, uint8_t>(kind, hostileValues<float>(count, 5, 10), 0, 0);
      checkUnary<BFloat16, uint8_t>(kind, hostileValues<BFloat16>(count, 6, 10), 0, 0);
    }
  }
}

// --- cast ---------------------------------------------------------------------------------------

template <class From, class To>
void checkCast(int64_t count) {
  CAPTURE(nameOf(DTypeOf<From>::value));
  CAPTURE(nameOf(DTypeOf<To>::value));
  CAPTURE(count);
  const std::vector<From> values = hostileValues<From>(count, 7, 300);
  const Array<From> x(values);
  const Array<To> y(count);
  runEverywhere(Op::cast, [&](Side side) {
    return CastArgs{x.at(side), y.at(side), count, DTypeOf<From>::value, DTypeOf<To>::value};
  });
  if constexpr (std::is_same_v<From, To>)
    REQUIRE(sameBits(y.cuda(), values));  // NaN payloads too
  else
    requireAgreement(y.cuda(), y.cpu());
}

TEST_CASE_TEMPLATE("cast: the CPU's bits from and to every dtype", From, float, BFloat16, Float16,
                   int32_t, uint8_t) {
  for (const int64_t count : kCounts) {
    checkCast<From, float>(count);
    checkCast<From, BFloat16>(count);
    checkCast<From, Float16>(count);
    checkCast<From, int32_t>(count);
    checkCast<From, uint8_t>(count);
  }
}

// --- scaledAdd ----------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("scaledAdd: the CPU's bits, in place too", T, float, BFloat16) {
  for (const int64_t count : kCounts)
    for (const float scale : {0.0f, -1.0f, 0.1f, INFINITY}) {
      CAPTURE(count);
      CAPTURE(scale);
      const Array<T> a(hostileValues<T>(count, 8, 3)), b(hostileValues<T>(count, 9, 3)), y(count);
      const auto run = [&](const Array<T>& target) {
        runEverywhere(Op::scaledAdd, [&](Side side) {
          return ScaledAddArgs{a.at(side), b.at(side),        target.at(side),
                               count,      DTypeOf<T>::value, scale};
        });
        requireAgreement(target.cuda(), target.cpu());
      };
      run(y);
      const std::vector<T> apart = y.cuda();
      run(b);
      REQUIRE(sameBits(b.cuda(), apart));
    }
}

// --- binary and where, with broadcasting --------------------------------------------------------

struct Operands {
  Sizes shape;
  std::vector<Layout> layouts;
};

Layout laidOut(const Sizes& strides, int64_t elements) { return {strides, elements}; }

// Contiguous for `shape`, or with the axes that `broadcast` names left out.
Layout alongAxes(const Sizes& shape, const std::vector<size_t>& broadcast) {
  Layout layout{Sizes(shape.size(), 0), 1};
  for (size_t axis = shape.size(); axis-- > 0;) {
    if (std::find(broadcast.begin(), broadcast.end(), axis) != broadcast.end()) continue;
    layout.strides[axis] = layout.elements;
    layout.elements *= shape[axis];
  }
  layout.elements = std::max<int64_t>(layout.elements, 1);
  return layout;
}

// Shapes of `count` operands: those that models use, those at the edges, and random ones.
std::vector<Operands> someOperands(size_t count) {
  std::vector<Operands> all;
  const auto add = [&](const Sizes& shape, std::vector<Layout> layouts) {
    while (layouts.size() < count) layouts.push_back(alongAxes(shape, {}));
    layouts.resize(count);
    all.push_back({shape, layouts});
  };
  add({}, {});
  add({0}, {});
  for (const int64_t size : {1, 4, 7, 33, 1024, 4099}) add({size}, {});
  add({37}, {alongAxes({37}, {0})});
  add({64}, {alongAxes({64}, {}), alongAxes({64}, {0})});
  for (const int64_t columns : {3, 8, 48, 77}) {
    const Sizes shape = {21, columns};
    add(shape, {alongAxes(shape, {}), alongAxes(shape, {0})});
    add(shape, {alongAxes(shape, {}), alongAxes(shape, {1})});
    add(shape, {alongAxes(shape, {1}), alongAxes(shape, {0})});
    add(shape, {alongAxes(shape, {0, 1}), alongAxes(shape, {})});
  }
  for (const int64_t columns : {5, 16}) {
    const Sizes shape = {4, 9, columns};
    add(shape, {alongAxes(shape, {}), alongAxes(shape, {1})});
    add(shape, {alongAxes(shape, {0}), alongAxes(shape, {1, 2}), alongAxes(shape, {2})});
  }
  // The last axis is not the one that lies together; rows with a gap.
  add({16, 24}, {laidOut({1, 16}, 16 * 24), alongAxes({16, 24}, {})});
  add({16, 24}, {laidOut({28, 1}, 16 * 28), alongAxes({16, 24}, {})});
  add({16, 24}, {laidOut({27, 1}, 16 * 27), alongAxes({16, 24}, {})});
  Random random(5);
  for (int round = 0; round < (kRaceDetection ? 8 : 40); ++round) {
    const Sizes shape = someShape(random);
    std::vector<Layout> layouts;
    for (size_t k = 0; k < count; ++k) layouts.push_back(someLayout(shape, random));
    add(shape, layouts);
  }
  return all;
}

template <size_t kCount>
void copyStrides(const Operands& operands, int64_t* shape,
                 const std::array<int64_t*, kCount>& strides) {
  std::copy(operands.shape.begin(), operands.shape.end(), shape);
  for (size_t k = 0; k < kCount; ++k)
    std::copy(operands.layouts[k].strides.begin(), operands.layouts[k].strides.end(), strides[k]);
}

template <class T, class Result>
void checkBinary(Binary kind, const Operands& operands, float scale) {
  CAPTURE(static_cast<int>(kind));
  CAPTURE(operands.shape.size());
  CAPTURE((operands.shape.empty() ? -1 : operands.shape.back()));
  const int64_t count = countOf(operands.shape);
  const Array<T> a(hostileValues<T>(operands.layouts[0].elements, 10, scale));
  const Array<T> b(hostileValues<T>(operands.layouts[1].elements, 12, scale));
  const Array<Result> y(count);
  runEverywhere(Op::binary, [&](Side side) {
    BinaryArgs arguments{a.at(side),
                         b.at(side),
                         y.at(side),
                         kind,
                         DTypeOf<T>::value,
                         static_cast<int32_t>(operands.shape.size()),
                         {},
                         {},
                         {}};
    copyStrides<2>(operands, arguments.shape, {arguments.aStrides, arguments.bStrides});
    return arguments;
  });
  requireAgreement(y.cuda(), y.cpu());
}

template <class T>
void checkBinaries(const Operands& operands) {
  for (int k = 0; k <= static_cast<int>(kLastBinary); ++k) {
    const auto kind = static_cast<Binary>(k);
    if (!supports(kind, DTypeOf<T>::value)) continue;
    if (resultOf(kind, DTypeOf<T>::value) == DType::kUint8)
      checkBinary<T, uint8_t>(kind, operands, 3);
    else
      checkBinary<T, T>(kind, operands, 3);
  }
}

TEST_CASE_TEMPLATE("binary: the CPU's bits with every broadcast", T, float, BFloat16, int32_t,
                   uint8_t) {
  const Operands vectors = {{4099}, {alongAxes({4099}, {}), alongAxes({4099}, {})}};
  checkBinaries<T>(vectors);
  checkBinaries<T>({{51, 12}, {alongAxes({51, 12}, {}), alongAxes({51, 12}, {0})}});
  checkBinaries<T>({{51, 13}, {alongAxes({51, 13}, {1}), alongAxes({51, 13}, {0})}});
  constexpr bool kBytes = sizeof(T) == 1;
  for (const Operands& operands : someOperands(2)) {
    if (kBytes)
      checkBinary<T, uint8_t>(Binary::kLogicalOr, operands, 3);
    else
      checkBinary<T, T>(Binary::kSub, operands, 3);
    checkBinary<T, uint8_t>(Binary::kLessEqual, operands, 3);
  }
}

TEST_CASE("binary: arithmetic against float64, pow among it") {
  const std::vector<float> p = hostileValues<float>(20011, 13, 2),
                           q = hostileValues<float>(20011, 14, 2);
  const Array<float> a(p), b(q), y(20011);
  for (const auto& [kind, ulps] : {std::pair{Binary::kAdd, 0.5},
                                   {Binary::kSub, 0.5},
                                   {Binary::kMul, 0.5},
                                   {Binary::kDiv, 0.5},
                                   {Binary::kPow, 0.6}}) {
    CAPTURE(static_cast<int>(kind));
    runEverywhere(Op::binary, [&, kind = kind](Side side) {
      return BinaryArgs{a.at(side), b.at(side),       y.at(side), kind, DType::kFloat32,
                        1,          {int64_t{20011}}, {1},        {1}};
    });
    const std::vector<float> cuda = y.cuda();
    requireEach(p.size(), [&, kind = kind, ulps = ulps](size_t i) {
      const double u = p[i], v = q[i];
      const double want = kind == Binary::kAdd   ? u + v
                          : kind == Binary::kSub ? u - v
                          : kind == Binary::kMul ? u * v
                          : kind == Binary::kDiv ? u / v
                                                 : std::pow(u, v);
      return ulpsBetween(cuda[i], want) <= ulps;
    });
  }
}

TEST_CASE_TEMPLATE("binary: y may be an operand that it lies like", T, float, BFloat16, int32_t) {
  for (const Sizes& shape : {Sizes{33, 8}, Sizes{33, 7}}) {
    const int64_t count = countOf(shape);
    const Layout row = alongAxes(shape, {0});
    const Array<T> a(hostileValues<T>(count, 15, 3)), b(hostileValues<T>(shape[1], 16, 3)),
        y(count);
    const auto run = [&](const Array<T>& target) {
      runEverywhere(Op::binary, [&](Side side) {
        BinaryArgs arguments{
            a.at(side), b.at(side), target.at(side), Binary::kMul, DTypeOf<T>::value, 2, {},
            {},         {}};
        copyStrides<2>({shape, {alongAxes(shape, {}), row}}, arguments.shape,
                       {arguments.aStrides, arguments.bStrides});
        return arguments;
      });
    };
    run(y);
    run(a);
    REQUIRE(sameBits(a.cuda(), y.cuda()));
  }
}

template <class T>
void checkWhere(const Operands& operands) {
  CAPTURE(operands.shape.size());
  const int64_t count = countOf(operands.shape);
  const Array<uint8_t> condition(hostileValues<uint8_t>(operands.layouts[0].elements, 17, 1));
  const Array<T> a(hostileValues<T>(operands.layouts[1].elements, 18, 3));
  const Array<T> b(hostileValues<T>(operands.layouts[2].elements, 19, 3));
  const Array<T> y(count);
  runEverywhere(Op::where, [&](Side side) {
    WhereArgs arguments{condition.at(side),
                        a.at(side),
                        b.at(side),
                        y.at(side),
                        DTypeOf<T>::value,
                        static_cast<int32_t>(operands.shape.size()),
                        {},
                        {},
                        {},
                        {}};
    copyStrides<3>(operands, arguments.shape,
                   {arguments.cStrides, arguments.aStrides, arguments.bStrides});
    return arguments;
  });
  REQUIRE(sameBits(y.cuda(), y.cpu()));
}

TEST_CASE_TEMPLATE("where: the CPU's bits with every broadcast, NaN payloads too", T, float,
                   BFloat16, Float16, int32_t, uint8_t) {
  for (const Operands& operands : someOperands(3)) checkWhere<T>(operands);
}

}  // namespace
}  // namespace didr::test
