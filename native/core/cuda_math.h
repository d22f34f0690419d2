// Elementary functions of one float32 on a CUDA thread: those of simd_math.h, step by step, hence
// the CPU's bits (but for the payload of NaNs). Accuracy and the origin of the constants are told
// there.
//
// Products and sums are fused where fma is written and nowhere else: the CUDA sources are compiled
// with -fmad=false, on the host with -ffp-contract=off.
#pragma once

#include <cstdint>

#include "native/core/cuda_launch.h"
#include "native/core/dtype.h"

namespace didr {
namespace scalar {

__device__ inline float infinity() { return floatOf(0x7f800000u); }
__device__ inline float nan() { return floatOf(0x7fc00000u); }
__device__ inline float abs(float x) { return floatOf(bitsOf(x) & 0x7fffffffu); }
__device__ inline bool isNan(float x) { return x != x; }
__device__ inline bool isNonFinite(float x) { return (bitsOf(x) & 0x7f800000u) == 0x7f800000u; }
// The second operand where either is NaN or both are zeros, as x86's instructions.
__device__ inline float min(float a, float b) { return a < b ? a : b; }
__device__ inline float max(float a, float b) { return a > b ? a : b; }
__device__ inline float copySign(float magnitude, float sign) {
  return floatOf((bitsOf(magnitude) & 0x7fffffffu) | (bitsOf(sign) & 0x80000000u));
}
__device__ inline float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ inline float sqrt(float x) { return __fsqrt_rn(x); }

// c[0] + c[1] x + ... by Horner's rule.
template <int kCount>
__device__ inline float polynomial(float x, const float (&c)[kCount]) {
  float y = c[kCount - 1];
#pragma unroll
  for (int i = kCount - 2; i >= 0; --i) y = fma(y, x, c[i]);
  return y;
}
template <int kCount>
__device__ inline double polynomial(double x, const double (&c)[kCount]) {
  double y = c[kCount - 1];
#pragma unroll
  for (int i = kCount - 2; i >= 0; --i) y = y * x + c[i];
  return y;
}

// Adding it leaves the nearest integer in the low bits of the sum, for |x| < 2^22.
inline constexpr float kRoundFloat = 0x1.8p23f;

// e^x = 2^exponent (1 + fraction), |x| <= 105; exponent is a whole number.
struct ExpParts {
  float exponent;
  float fraction;
};
__device__ inline ExpParts expParts(float x) {
  constexpr float kTail[] = {0x1p-1f, 0x1.55549p-3f, 0x1.5554bep-5f, 0x1.123b18p-7f,
                             0x1.6d7ca6p-10f};
  constexpr float kLog2E = 0x1.715476p0f;
  constexpr float kLn2High = 0x1.62e43p-1f;
  constexpr float kLn2Low = -0x1.05c61p-29f;
  const float k = (x * kLog2E + kRoundFloat) - kRoundFloat;
  const float r = fma(k, -kLn2Low, fma(k, -kLn2High, x));
  return {k, fma(r * r, polynomial(r, kTail), r)};
}

// 2^k for a whole k in [-126, 127].
__device__ inline float powerOfTwo(int32_t k) {
  return floatOf(static_cast<uint32_t>(k + 127) << 23);
}

// x 2^k for a whole k, |k| <= 252, x near 1: the first of the two steps is exact.
__device__ inline float scaleByPowerOfTwo(float x, float k) {
  const auto whole = static_cast<int32_t>(bitsOf(k + kRoundFloat) - bitsOf(kRoundFloat));
  const int32_t half = whole >> 1;
  return x * powerOfTwo(half) * powerOfTwo(whole - half);
}

__device__ inline float exp(float x) {
  const ExpParts parts = expParts(min(89.0f, max(-105.0f, x)));
  return scaleByPowerOfTwo(parts.fraction + 1.0f, parts.exponent);
}

__device__ inline float tanh(float x) {
  const ExpParts parts = expParts(min(20.0f, abs(x) * 2.0f));
  const float scale = scaleByPowerOfTwo(1.0f, parts.exponent);
  const float expm1 = fma(scale, parts.fraction, scale - 1.0f);
  return copySign(expm1 / (expm1 + 2.0f), x);
}

__device__ inline float sigmoid(float x) {
  const float e = exp(floatOf(bitsOf(x) | 0x80000000u));
  return (x < 0.0f ? e : 1.0f) / (e + 1.0f);
}

__device__ inline float log(float x) {
  constexpr float kTail[] = {0x1.555554p-2f, -0x1.000228p-2f, 0x1.99a028p-3f, -0x1.54720cp-3f,
                             0x1.22d79p-3f,  -0x1.0d8548p-3f, 0x1.056c48p-3f, -0x1.38dcf8p-4f};
  constexpr float kLn2High = 0x1.62e43p-1f;
  constexpr float kLn2Low = -0x1.05c61p-29f;
  constexpr uint32_t kSqrtHalf = 0x3f3504f3u;
  const bool subnormal = x < 0x1p-126f;
  const uint32_t bits = bitsOf(subnormal ? x * 0x1p23f : x);
  const int32_t k = static_cast<int32_t>(bits - kSqrtHalf) >> 23;
  const float f = floatOf(bits - (static_cast<uint32_t>(k) << 23)) - 1.0f;
  const float e = static_cast<float>(k) - (subnormal ? 23.0f : 0.0f);
  const float tail = f * f * fma(f, polynomial(f, kTail), -0.5f);
  const float y = fma(e, kLn2High, f + fma(e, kLn2Low, tail));
  const float finite = x == 0.0f ? -infinity() : x < 0.0f ? nan() : y;
  return x < infinity() ? finite : x;
}

// The standard normal distribution function.
__device__ inline float normalCdf(float x) {
  constexpr float kMills[] = {0x1.82b4bcp-1f,  -0x1.373e3cp-1f, 0x1.8c6d84p-2f,  -0x1.7dfedap-3f,
                              0x1.eedaacp-5f,  -0x1.eddb8ep-8f, -0x1.ce157cp-9f, 0x1.9ed03p-10f,
                              0x1.a1baf2p-13f, -0x1.090c28p-13f};
  const float t = min(15.0f, abs(x));
  const float scale = 1.0f / (t + 4.0f);
  const float h = polynomial((t - 4.0f) * scale, kMills) * scale;
  const float square = t * t;
  const float rest = fma(t, t, -square);
  const float e = exp(square * -0.5f);
  const float tail = fma(e, rest * -0.5f, e) * h;
  return x < 0.0f ? tail : 1.0f - tail;
}

// The most negative finite float in the place of -inf: -inf times a zero would be NaN.
__device__ inline float aboveMinusInfinity(float x) { return max(-0x1.fffffep127f, x); }

__device__ inline float relu(float x) { return max(0.0f, x); }
__device__ inline float silu(float x) { return aboveMinusInfinity(x) * sigmoid(x); }
__device__ inline float gelu(float x) { return aboveMinusInfinity(x) * normalCdf(x); }
__device__ inline float geluTanh(float x) {
  constexpr float kTwiceSqrt2OverPi = 0x1.988454p0f;
  const float cubic = x * fma(x * x, 0.044715f, 1.0f);
  return aboveMinusInfinity(x) * sigmoid(cubic * kTwiceSqrt2OverPi);
}

// x = quadrant pi/2 + remainder, |remainder| <= pi/4 up to rounding.
struct Angle {
  float remainder;
  int32_t quadrant;  // modulo 4
};

// For |x| >= 2^16.
__device__ inline Angle reduceLargeAngle(float x) {
  // Static: else every thread would build an array of its own.
  static constexpr uint32_t kTwoOverPi[] = {0,           0xa2f9836eu, 0x4e441529u, 0xfc2757d1u,
                                            0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu};
  const uint32_t bits = bitsOf(x);
  const int exponent = static_cast<int>((bits >> 23) & 0xffu);
  if (exponent == 0xff) return {x - x, 0};
  const uint64_t mantissa = (bits & 0x7fffffu) | 0x800000u;
  const int first = 32 + (exponent - 150) - 2;
  const int word = first / 32;
  const int shift = first % 32;
  uint64_t window[3];
#pragma unroll
  for (int i = 0; i < 3; ++i)
    window[i] = (((static_cast<uint64_t>(kTwoOverPi[word + i]) << 32 | kTwoOverPi[word + i + 1])
                  << shift) >>
                 32) &
                0xffffffffu;
  const uint64_t low = mantissa * window[2];
  const uint64_t middle = mantissa * window[1] + (low >> 32);
  const uint64_t high = mantissa * window[0] + (middle >> 32);
  const uint64_t fraction = high << 34 | (middle & 0xffffffffu) << 2 | (low & 0xffffffffu) >> 30;
  const auto centred = static_cast<int64_t>(fraction);
  const auto whole = static_cast<int32_t>((high >> 30) & 3u) + (centred < 0 ? 1 : 0);
  const double angle = static_cast<double>(centred) * (0x1.921fb54442d18p0 * 0x1p-64);
  const bool negative = (bits >> 31) != 0;
  return {static_cast<float>(negative ? -angle : angle), negative ? -whole : whole};
}

__device__ inline Angle reduceAngle(float x) {
  constexpr float kHalfPi0 = 0x1.921fb6p0f;
  constexpr float kHalfPi1 = -0x1.777a5cp-25f;
  constexpr float kHalfPi2 = -0x1.ee59dap-50f;
  if (!(abs(x) < 65536.0f)) return reduceLargeAngle(x);
  const float n = x * 0x1.45f306p-1f + kRoundFloat;
  const float k = n - kRoundFloat;
  float r = fma(k, -kHalfPi0, x);
  r = fma(k, -kHalfPi1, r);
  r = fma(k, -kHalfPi2, r);
  return {r, static_cast<int32_t>(bitsOf(n))};
}

// sin of the angle moved on by `quarters` quarter turns.
__device__ inline float sinOfAngle(const Angle& angle, int32_t quarters) {
  constexpr float kSin[] = {-0x1.555546p-3f, 0x1.110778p-7f, -0x1.995404p-13f};
  constexpr float kCos[] = {0x1.55554ap-5f, -0x1.6c0c2ap-10f, 0x1.99e912p-16f};
  const float r = angle.remainder;
  const float square = r * r;
  const float sine = fma(square * r, polynomial(square, kSin), r);
  const float cosine = fma(square * square, polynomial(square, kCos), fma(square, -0.5f, 1.0f));
  const auto quadrant = static_cast<uint32_t>(angle.quadrant) + static_cast<uint32_t>(quarters);
  const float y = (quadrant & 1u) != 0 ? cosine : sine;
  return floatOf(bitsOf(y) ^ ((quadrant & 2u) << 30));
}
__device__ inline float sin(float x) { return x == 0.0f ? x : sinOfAngle(reduceAngle(x), 0); }
__device__ inline float cos(float x) { return sinOfAngle(reduceAngle(x), 1); }

__device__ inline uint64_t bitsOfDouble(double x) {
  uint64_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}
__device__ inline double doubleOf(uint64_t u) {
  double x;
  memcpy(&x, &u, sizeof x);
  return x;
}

// 2^(y log2 x) for x >= 0, in float64.
__device__ inline double powOfPositive(double x, double y) {
  constexpr double kLog2[] = {2.8853900817778486,  0.9617966941159056, 0.5770779415802395,
                              0.41220933545281324, 0.3199021433516582, 0.28295289270923685};
  constexpr double kExp2[] = {0.999999999961682,      0.6931471807284487,    0.24022651198157302,
                              0.055504103534464264,   0.009618027253699079,  0.0013333922564946542,
                              0.00015469291131977713, 1.5201921199388586e-05};
  constexpr uint64_t kOne = 0x3ff0000000000000u;
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdu;
  constexpr uint64_t kTwo52 = 0x4330000000000000u;
  const double infinite = doubleOf(0x7ff0000000000000u);
  const uint64_t bits = bitsOfDouble(x);
  const uint64_t biased = (bits + (kOne - kSqrtHalf)) >> 52;
  const double m = doubleOf(bits - (biased << 52) + kOne);
  const double k = doubleOf(biased | kTwo52) - (0x1p52 + 1023.0);
  const double s = (m - 1.0) / (m + 1.0);
  double log2 = s * polynomial(s * s, kLog2) + k;
  log2 = x == 0.0 ? -infinite : x == infinite ? infinite : log2;
  double z = y * log2;
  z = z > 200.0 ? 200.0 : z;
  z = z < -200.0 ? -200.0 : z;
  const double n = z + 0x1.8p52;
  const double whole = n - 0x1.8p52;
  return polynomial(z - whole, kExp2) * doubleOf((bitsOfDouble(n) << 52) + kOne);
}

__device__ inline float pow(float x, float y) {
  const float size = abs(x);
  const auto positive = static_cast<float>(powOfPositive(size, y));
  const bool small = abs(y) < 0x1p24f;
  const int32_t truncated = static_cast<int32_t>(small ? y : 0.0f);
  const bool whole = !small || static_cast<float>(truncated) == y;
  const bool odd = small && whole && (truncated & 1) != 0;
  const float signedPower = odd ? floatOf(bitsOf(positive) ^ (bitsOf(x) & 0x80000000u)) : positive;
  if (x == 1.0f || y == 0.0f || (x == -1.0f && abs(y) == infinity())) return 1.0f;
  const bool noRoot = x < 0.0f && x > -infinity() && !whole;
  return noRoot || isNan(x) || isNan(y) ? nan() : signedPower;
}

}  // namespace scalar
}  // namespace didr
