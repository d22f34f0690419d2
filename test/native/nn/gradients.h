// Float64 second implementations of the network ops' tests: comparison, and gradients by central
// differences.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "test/native/every_level.h"

namespace didr::test {

using Values = std::vector<double>;

template <class T>
Values widen(const std::vector<T>& values) {
  Values wide;
  for (const T x : values) wide.push_back(static_cast<double>(toFloat(x)));
  return wide;
}
inline Values widen(const Values& values) { return values; }

// One rounding of the dtype, with room for the float32 arithmetic before it.
template <class T>
double toleranceOf(double float32Tolerance) {
  return sizeof(T) == 2 ? 0x1p-8 + float32Tolerance : float32Tolerance;
}

inline double largest(const Values& values) {
  double most = 0;
  for (const double x : values) most = std::max(most, std::fabs(x));
  return most;
}

// Every element within tolerance * the largest expected magnitude, or `floor` where that is more:
// the size of the terms that an expectation near zero is the difference of.
template <class T>
void checkClose(const std::vector<T>& actual, const Values& expected, double tolerance,
                double floor = 1e-3) {
  REQUIRE(actual.size() == expected.size());
  const double scale = std::max(largest(expected), floor);
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(static_cast<double>(toFloat(actual[i])) - expected[i]);
    if (!(error <= worst)) worst = error;
  }
  CHECK(worst <= tolerance * scale);
}

// sum_i a_i b_i
inline double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Compares `gradient` with central differences of loss(x) at up to 48 elements or so of x, spread
// evenly.
template <class T, class Loss>
void checkGradient(const std::vector<T>& gradient, Values x, const Loss& loss, double tolerance,
                   double floor = 1e-3) {
  REQUIRE(gradient.size() == x.size());
  constexpr size_t kMost = 48;
  const size_t stride = std::max<size_t>(1, x.size() / kMost);
  std::vector<T> some;
  Values expected;
  for (size_t i = 0; i < x.size(); i += stride) {
    constexpr double kStep = 1e-4;
    const double at = x[i];
    x[i] = at + kStep;
    const double above = loss(x);
    x[i] = at - kStep;
    const double below = loss(x);
    x[i] = at;
    some.push_back(gradient[i]);
    expected.push_back((above - below) / (2 * kStep));
  }
  checkClose(some, expected, tolerance, floor);
}

// As atEveryLevel, for kernels whose inner products have no fused multiply-add at v2: its bits may
// differ there, but not between thread counts.
template <class Run>
void atEveryFusedLevel(const Run& run) {
  int levels = 0;
  const OpTable* const* tables = cpuOpLevels(levels);
  REQUIRE(levels > 0);
  for (const bool fused : {false, true}) {
    Bytes expected;
    bool first = true;
    for (const int threads : {1, 2, 7}) {
      ThreadPool pool(threads);
      for (int level = 0; level < levels; ++level) {
        const std::string name = tables[level]->level;
        if ((name != "v2") != fused) continue;
        CAPTURE(threads);
        CAPTURE(name);
        const auto launch = [&](Op op, const auto& arguments) {
          CpuContext context{pool, nameOf(op), {}};
          tables[level]->kernels[static_cast<int>(op)](&arguments, context);
          CHECK(context.failure.ok());
        };
        const Bytes bytes = run(launch);
        if (first) expected = bytes;
        CHECK(bytes == expected);
        first = false;
      }
    }
  }
}

// Whether the kernel refuses the arguments, at every level.
template <class Arguments>
void checkRefused(Op op, const Arguments& arguments, Code code) {
  int levels = 0;
  const OpTable* const* tables = cpuOpLevels(levels);
  REQUIRE(levels > 0);
  ThreadPool pool(2);
  for (int level = 0; level < levels; ++level) {
    CpuContext context{pool, nameOf(op), {}};
    tables[level]->kernels[static_cast<int>(op)](&arguments, context);
    CHECK(context.failure.code() == code);
  }
}

}  // namespace didr::test
