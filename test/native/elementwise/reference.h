// Float64 twins of the elementwise functions, and how far a float is from one.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "native/ops/elementwise/unary.h"
#include "native/ops/matmul/matmul.h"

namespace didr::test {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Values that formulas trip over.
inline const float kHostile[] = {
    0.0f,           -0.0f,         1.0f,           -1.0f,         kInfinity,      -kInfinity,
    kNan,           -kNan,         1e-45f,         -1e-45f,       1.1754942e-38f, -1e-39f,
    1.1754944e-38f, 3.4028235e38f, -3.4028235e38f, 0.5f,          -0.5f,          1.5f,
    -1.5f,          2.0f,          -2.0f,          8388607.5f,    -8388607.5f,    8388608.0f,
    16777217.0f,    2147483648.0f, -2147483648.0f, 2147483520.0f, 88.72283f,      88.72284f,
    -87.33655f,     -103.97208f,   -103.97209f,    -104.5f,       1e10f,          -1e10f,
    65535.0f,       65536.0f,      100000.0f,      1e-20f,        9.0f,           -9.0f,
    255.0f,         255.5f,        256.0f,         -0.99f,        0.99f,          65504.0f,
    65520.0f,       6e-8f};

inline double sigmoidOf(double x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}
// x times a factor that vanishes faster than x grows to minus infinity.
inline double gated(double x, double gate) {
  return x == -std::numeric_limits<double>::infinity() ? -0.0 : x * gate;
}

inline double unaryOf(Unary kind, double x, double lo = 0, double hi = 0) {
  switch (kind) {
    case Unary::kNeg:
      return -x;
    case Unary::kAbs:
      return std::fabs(x);
    case Unary::kSquare:
      return x * x;
    case Unary::kSqrt:
      return std::sqrt(x);
    case Unary::kRsqrt:
      return 1 / std::sqrt(x);
    case Unary::kReciprocal:
      return 1 / x;
    case Unary::kExp:
      return std::exp(x);
    case Unary::kLog:
      return std::log(x);
    case Unary::kTanh:
      return std::tanh(x);
    case Unary::kSigmoid:
      return sigmoidOf(x);
    case Unary::kSilu:
      return gated(x, sigmoidOf(x));
    case Unary::kGelu:
      return gated(x, 0.5 * std::erfc(-x * std::sqrt(0.5)));
    case Unary::kGeluTanh:
      return gated(x, sigmoidOf(2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Unary::kRelu:
      return x < 0 ? 0 : x;
    case Unary::kSign:
      return x > 0 ? 1 : x < 0 ? -1 : x;
    case Unary::kFloor:
      return std::floor(x);
    case Unary::kSin:
      return std::sin(x);
    case Unary::kCos:
      return std::cos(x);
    case Unary::kIsFinite:
      return std::isfinite(x) ? 1 : 0;
    case Unary::kLogicalNot:
      return x == 0 ? 1 : 0;
    case Unary::kClip:
      return std::isnan(x) ? x : std::min(std::max(x, lo), hi);
  }
  return 0;
}

inline double activationOf(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return unaryOf(Unary::kRelu, x);
    case Activation::kGelu:
      return unaryOf(Unary::kGelu, x);
    case Activation::kGeluTanh:
      return unaryOf(Unary::kGeluTanh, x);
    case Activation::kSilu:
      return unaryOf(Unary::kSilu, x);
    case Activation::kTanh:
      return unaryOf(Unary::kTanh, x);
    case Activation::kSigmoid:
      return unaryOf(Unary::kSigmoid, x);
  }
  return 0;
}

// |got - want| in units of float32's last place at `want` (of the smallest normal below it). NaN
// agrees with NaN, infinity with what rounds to it, and zeros must have the same sign.
inline double ulpsBetween(float got, double want) {
  constexpr double kFar = 1e30;
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) == std::isnan(got) ? 0 : kFar;
  if (std::fabs(want) >= 0x1p128)
    return std::isinf(got) && std::signbit(got) == std::signbit(want) ? 0 : kFar;
  if (want == 0) return got == 0 && std::signbit(got) == std::signbit(want) ? 0 : kFar;
  const int exponent = std::max(std::ilogb(want), -126);
  // An infinite result stands for the first number past the largest finite one.
  const double finite = std::isinf(got) ? std::copysign(0x1p128, got) : static_cast<double>(got);
  return std::fabs(finite - want) / std::ldexp(1.0, exponent - 23);
}

}  // namespace didr::test
