// reduce and softmax: the CPU's bits where every order gives the same ones, and float64.
#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

struct Axes {
  int64_t outer, axis, inner;
  int64_t count() const { return outer * axis * inner; }
  size_t at(int64_t o, int64_t a, int64_t i) const {
    return static_cast<size_t>((o * axis + a) * inner + i);
  }
};

// Around vectors, warps, blocks and sections; narrow and wide, aligned or not.
#if defined(__SANITIZE_THREAD__)
const Axes kAxes[] = {{0, 3, 2},  {3, 0, 2},   {1, 1, 1},   {2, 3, 1},     {3, 65, 1},  {2, 70, 3},
                      {2, 9, 16}, {3, 40, 33}, {1, 9, 300}, {1, 20001, 1}, {1, 6000, 3}};
#else
const Axes kAxes[] = {
    {0, 3, 2},     {3, 0, 2},     {3, 0, 1},      {2, 3, 0},     {1, 1, 1},     {2, 3, 1},
    {1, 7, 5},     {4, 17, 1},    {3, 63, 1},     {3, 64, 1},    {3, 65, 1},    {9, 128, 1},
    {2, 2048, 1},  {2, 2056, 1},  {2, 2049, 1},   {300, 5, 1},   {70, 2, 3},    {67, 3, 2},
    {5, 2, 64},    {2, 65, 3},    {2, 70, 4},     {2, 100, 17},  {5, 257, 63},  {3, 100, 64},
    {2, 77, 65},   {1, 9, 2500},  {2, 300, 1100}, {1, 4100, 33}, {1, 8195, 1},  {1, 20000, 1},
    {1, 20001, 1}, {2, 20001, 1}, {1, 300007, 1}, {1, 16390, 4}, {1, 30001, 3}, {2, 1500, 48},
};
#endif

constexpr Reduce kKinds[] = {Reduce::kSum,       Reduce::kMean,       Reduce::kMax,   Reduce::kMin,
                             Reduce::kLogSumExp, Reduce::kSumSquares, Reduce::kArgMax};

// A slice's reduction in float64, and the size of the terms of which it is made.
struct Expected {
  double value;
  double scale;
};
Expected expectedOf(Reduce kind, const std::vector<double>& slice) {
  double sum = 0, magnitudes = 0, squares = 0, exponentials = 0, largest = -INFINITY;
  for (const double x : slice) {
    sum += x;
    magnitudes += std::fabs(x);
    squares += x * x;
    largest = std::fmax(largest, x);
  }
  for (const double x : slice) exponentials += std::exp(x - (std::isinf(largest) ? 0.0 : largest));
  const auto count = static_cast<double>(slice.size());
  switch (kind) {
    case Reduce::kSum:
      return {sum, magnitudes};
    case Reduce::kMean:
      return {sum / count, magnitudes / count};
    case Reduce::kSumSquares:
      return {squares, squares};
    default: {
      const double logarithm = std::log(exponentials);
      return {(std::isinf(largest) ? 0.0 : largest) + logarithm,
              std::fabs(largest) + std::fabs(logarithm) + 1};
    }
  }
}

// NaN where any is; +0 above -0.
double extremeOf(Reduce kind, const std::vector<double>& slice) {
  double extreme = kind == Reduce::kMax ? -INFINITY : INFINITY;
  for (const double x : slice) {
    if (std::isnan(x)) return x;
    const bool zeros = x == 0 && extreme == 0;
    const bool above = zeros ? std::signbit(extreme) && !std::signbit(x) : x > extreme;
    const bool below = zeros ? std::signbit(x) && !std::signbit(extreme) : x < extreme;
    if (kind == Reduce::kMax ? above : below) extreme = x;
  }
  return extreme;
}

template <class T, class Result>
void checkReduce(const Axes& axes, Reduce kind, const std::vector<T>& values) {
  CAPTURE(axes.outer);
  CAPTURE(axes.axis);
  CAPTURE(axes.inner);
  CAPTURE(static_cast<int>(kind));
  const Array<T> x(values);
  const Array<Result> y(axes.outer * axes.inner);
  const Array<uint8_t> workspace(reduceWorkspace(axes.outer, axes.axis, axes.inner));
  runEverywhere(Op::reduce, [&](Side side) {
    return ReduceArgs{x.at(side), y.at(side), kind,       DTypeOf<T>::value,
                      axes.outer, axes.axis,  axes.inner, workspace.at(side)};
  });
  const std::vector<Result> cuda = y.cuda(), cpu = y.cpu();
  const auto sliceOf = [&](size_t i) {
    const auto result = static_cast<int64_t>(i);
    std::vector<double> slice;
    for (int64_t a = 0; a < axes.axis; ++a)
      slice.push_back(toFloat(values[axes.at(result / axes.inner, a, result % axes.inner)]));
    return slice;
  };
  if (DTypeOf<T>::value == DType::kInt32 || kind == Reduce::kArgMax) {
    REQUIRE(sameBits(cuda, cpu));
    return;
  }
  if (kind == Reduce::kMax || kind == Reduce::kMin) {
    requireEach(cuda.size(), [&](size_t i) {
      const double expected = extremeOf(kind, sliceOf(i));
      const double got = toFloat(cuda[i]), cpuGot = toFloat(cpu[i]);
      if (std::isnan(expected)) return std::isnan(got) && std::isnan(cpuGot);
      return got == expected && cpuGot == expected && std::signbit(got) == std::signbit(expected);
    });
    return;
  }
  requireEach(cuda.size(), [&](size_t i) {
    const Expected expected = expectedOf(kind, sliceOf(i));
    const double got = toFloat(cuda[i]), cpuGot = toFloat(cpu[i]);
    if (!std::isfinite(expected.value))
      return std::isnan(expected.value) ? std::isnan(got) && std::isnan(cpuGot)
                                        : got == expected.value && cpuGot == expected.value;
    // One rounding of sums of doubles; float32 exponentials and logarithms of one or two ulp.
    const double terms = kind == Reduce::kLogSumExp ? 4 * 0x1p-24 : 1e-14;
    const double allowed = kRounding<T> * 1.01 * std::fabs(expected.value) + terms * expected.scale;
    return std::fabs(got - expected.value) <= allowed &&
           std::fabs(cpuGot - expected.value) <= allowed;
  });
}

template <class T>
void checkKinds(const Axes& axes, const std::vector<T>& values) {
  for (const Reduce kind : kKinds) {
    if (!supports(kind, DTypeOf<T>::value)) continue;
    if (kind == Reduce::kArgMax)
      checkReduce<T, int32_t>(axes, kind, values);
    else
      checkReduce<T, T>(axes, kind, values);
  }
}

template <class T>
std::vector<T> scaledValues(int64_t count, uint32_t seed, float scale) {
  std::vector<T> values;
  for (const float x : someValues<float>(count, seed)) values.push_back(storeAs(T{}, x * scale));
  return values;
}

TEST_CASE_TEMPLATE("reduce: every kind, every shape", T, float, BFloat16) {
  for (const Axes& axes : kAxes) checkKinds(axes, scaledValues<T>(axes.count(), 1, 3));
}

TEST_CASE("reduce: int32 wraps") {
  for (const Axes& axes : kAxes) {
    if (axes.count() > (kRaceDetection ? 5000 : 25000)) continue;
    std::vector<int32_t> values;
    for (const float x : someValues<float>(axes.count(), 2))
      values.push_back(static_cast<int32_t>(bitsOf(x)));
    checkKinds(axes, values);
    for (int32_t& value : values) value = value % 3;  // equal ones: the first index is wanted
    checkKinds(axes, values);
  }
}

TEST_CASE_TEMPLATE("reduce: infinities, NaN, zeros of both signs and ties", T, float, BFloat16) {
  const float kSpecials[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1.0f, -200.0f, 1e18f};
  for (const Axes& axes : {Axes{40, 3, 1}, Axes{20, 70, 1}, Axes{6, 5, 33}, Axes{4, 300, 8}}) {
    if (kRaceDetection && axes.axis != 5) continue;
    std::vector<T> values = scaledValues<T>(axes.count(), 3, 2);
    for (size_t i = 0; i < values.size(); ++i) {
      if (i / 7 % 5 == 0) continue;
      values[i] = storeAs(T{}, kSpecials[(i * 2654435761u >> 7) % (i % 11 == 0 ? 8 : 4)]);
    }
    checkKinds(axes, values);
  }
  // All of one kind.
  if (kRaceDetection) return;
  for (const float special : kSpecials)
    for (const Axes& axes : {Axes{2, 70, 1}, Axes{2, 9, 5}})
      checkKinds(axes, std::vector<T>(static_cast<size_t>(axes.count()), storeAs(T{}, special)));
}

TEST_CASE("reduce: sums of large numbers, and exponentials after those of nothing") {
  // Float32 sums would be off by thousands.
  std::vector<float> values(20001, 16777216.0f);
  values[7] = 1.0f;
  checkReduce<float, float>({1, 20001, 1}, Reduce::kSum, values);
  checkReduce<float, float>({1, 20001, 1}, Reduce::kSumSquares, std::vector<float>(20001, 1e16f));
  // The first sections, and the CPU's first block, have no mass, the last one hardly any.
  constexpr int64_t kCount = 70001;
  std::vector<float> logarithms(kCount, -INFINITY);
  logarithms[kCount - 1] = -200.0f;
  checkReduce<float, float>({1, kCount, 1}, Reduce::kLogSumExp, logarithms);
  logarithms[3] = 90.0f;
  checkReduce<float, float>({1, kCount, 1}, Reduce::kLogSumExp, logarithms);
}

// --- softmax ------------------------------------------------------------------------------------

template <class T>
void checkSoftmax(const Axes& axes, const std::vector<T>& values) {
  CAPTURE(axes.outer);
  CAPTURE(axes.axis);
  CAPTURE(axes.inner);
  const Array<T> x(values), y(axes.count());
  const auto run = [&](const Array<T>& target) {
    runEverywhere(Op::softmax, [&](Side side) {
      return SoftmaxArgs{x.at(side), target.at(side), DTypeOf<T>::value,
                         axes.outer, axes.axis,       axes.inner};
    });
  };
  run(y);
  const std::vector<T> cuda = y.cuda(), cpu = y.cpu();
  run(x);
  REQUIRE(sameBits(x.cuda(), cuda));
  for (int64_t o = 0; o < axes.outer; ++o)
    for (int64_t i = 0; i < axes.inner; ++i) {
      double largest = -INFINITY, sum = 0;
      bool undefined = false;
      for (int64_t a = 0; a < axes.axis; ++a) {
        const double value = toFloat(values[axes.at(o, a, i)]);
        undefined = undefined || std::isnan(value) || value == INFINITY;
        largest = std::fmax(largest, value);
      }
      undefined = undefined || largest == -INFINITY;
      for (int64_t a = 0; a < axes.axis; ++a)
        sum += std::exp(toFloat(values[axes.at(o, a, i)]) - largest);
      requireEach(static_cast<size_t>(axes.axis), [&](size_t a) {
        const size_t at = axes.at(o, static_cast<int64_t>(a), i);
        const double got = toFloat(cuda[at]);
        if (undefined) return std::isnan(got) && std::isnan(toFloat(cpu[at]));
        const double distance = largest - toFloat(values[at]);
        const double expected = std::exp(-distance) / sum;
        if (expected == 0) return got == 0;
        // The argument's rounding, an exponential, a reciprocal and a product.
        const double relative = (6 + distance) * 0x1p-24 + kRounding<T> * 1.01;
        return std::fabs(got - expected) <= relative * expected + 1e-37;
      });
    }
}

TEST_CASE_TEMPLATE("softmax: float64, and in place", T, float, BFloat16) {
  for (const Axes& axes : kAxes) checkSoftmax(axes, scaledValues<T>(axes.count(), 4, 6));
  // Around what a row of threads keeps in registers.
  for (const int64_t axis : {511, 512, 513, 520, 8184, 8192, 8200})
    if (!kRaceDetection || axis < 600) checkSoftmax({2, axis, 1}, scaledValues<T>(2 * axis, 5, 6));
}

TEST_CASE_TEMPLATE("softmax: what has no quotient is NaN", T, float, BFloat16) {
  for (const Axes& axes : {Axes{6, 40, 1}, Axes{6, 41, 1}, Axes{2, 9, 3}, Axes{2, 9, 8}}) {
    std::vector<T> values = scaledValues<T>(axes.count(), 6, 6);
    for (int64_t a = 0; a < axes.axis; ++a) {
      values[axes.at(0, a, 0)] = storeAs(T{}, -INFINITY);
      if (a != 1) values[axes.at(1, a, 0)] = storeAs(T{}, -INFINITY);
    }
    checkSoftmax(axes, values);
    values[axes.at(0, 2, 0)] = storeAs(T{}, INFINITY);
    values[axes.at(1, 3, 0)] = storeAs(T{}, NAN);
    checkSoftmax(axes, values);
  }
}

}  // namespace
}  // namespace didr::test
