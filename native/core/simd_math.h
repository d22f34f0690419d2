// Elementary functions on float32 vectors, with the same bits at every instruction level.
//
// Only exact or correctly rounded operations are used (fma, + - * /, integer arithmetic), so a
// result depends on the argument alone. Polynomials are minimax fits made for this file, the
// coefficients rounded to float32 one by one with the rest fitted again. Errors below were measured
// over all floats (unary) or dense samples (pow) against float64, in units of the last place:
//
//   exp 1.0   log 0.9   sin, cos 0.8 (all finite arguments)   pow 0.51
//   tanh 2.1   sigmoid 2.2   erf 1.5   normalCdf 4.5 while it is normal
//
// Infinities, NaN, zeros of both signs, overflow and gradual underflow follow C's functions.
#pragma once

#include "native/core/simd.h"
#include "native/core/simd_double.h"

namespace didr {
namespace DIDR_LEVEL {
namespace simd {

// c[0] + c[1] x + ... by Horner's rule.
template <int kCount>
DIDR_SIMD F32 polynomial(F32 x, const float (&c)[kCount]) {
  F32 y = broadcast(c[kCount - 1]);
  for (int i = kCount - 2; i >= 0; --i) y = fma(y, x, broadcast(c[i]));
  return y;
}
template <int kCount>
DIDR_SIMD F64 polynomial(F64 x, const double (&c)[kCount]) {
  F64 y = broadcast(c[kCount - 1]);
  for (int i = kCount - 2; i >= 0; --i) y = y * x + c[i];
  return y;
}

// Adding it leaves the nearest integer in the low bits of the sum, for |x| < 2^22.
constexpr float kRoundFloat = 0x1.8p23f;

// e^x = 2^exponent (1 + fraction), |x| <= 105; exponent is a whole number.
struct ExpParts {
  F32 exponent;
  F32 fraction;
};
DIDR_SIMD ExpParts expParts(F32 x) {
  // (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2, error 3.3e-9 of e^r.
  constexpr float kTail[] = {0x1p-1f, 0x1.55549p-3f, 0x1.5554bep-5f, 0x1.123b18p-7f,
                             0x1.6d7ca6p-10f};
  constexpr float kLog2E = 0x1.715476p0f;
  constexpr float kLn2High = 0x1.62e43p-1f;
  constexpr float kLn2Low = -0x1.05c61p-29f;
  const F32 k = (x * kLog2E + kRoundFloat) - kRoundFloat;
  const F32 r = fma(k, broadcast(-kLn2Low), fma(k, broadcast(-kLn2High), x));
  return {k, fma(r * r, polynomial(r, kTail), r)};
}

// 2^k for a whole k in [-126, 127].
DIDR_SIMD F32 powerOfTwo(I32 k) { return asFloat((k + 127) << 23); }

// x 2^k for a whole k, |k| <= 252, rounded once.
DIDR_SIMD F32 scaleByPowerOfTwo(F32 x, F32 k) {
#if defined(DIDR_SIMD_AVX512)
  return _mm512_maskz_scalef_ps(kAllLanes, x, k);
#else
  // In two steps, of which the first is exact for x near 1: 2^k itself may be subnormal.
  const I32 whole = asInt(k + kRoundFloat) - asInt(broadcast(kRoundFloat));
  const I32 half = whole >> 1;
  return x * powerOfTwo(half) * powerOfTwo(whole - half);
#endif
}

DIDR_SIMD F32 exp(F32 x) {
  // Beyond these it overflows or rounds to zero. min and max pass a NaN in their second operand.
  const F32 bounded = min(broadcast(89.0f), max(broadcast(-105.0f), x));
  const ExpParts parts = expParts(bounded);
  return scaleByPowerOfTwo(parts.fraction + 1.0f, parts.exponent);
}

// tanh x = (e^2x - 1) / (e^2x + 1), by way of e^2x - 1, which keeps its relative accuracy near 0.
DIDR_SIMD F32 tanh(F32 x) {
  const F32 bounded = min(broadcast(20.0f), abs(x) * 2.0f);  // tanh(10) rounds to 1
  const ExpParts parts = expParts(bounded);
  const F32 scale = scaleByPowerOfTwo(broadcast(1.0f), parts.exponent);
  const F32 expm1 = fma(scale, parts.fraction, scale - 1.0f);
  return copySign(expm1 / (expm1 + 2.0f), x);
}

// From e^-|x|, so that neither side overflows and small results keep their relative accuracy.
DIDR_SIMD F32 sigmoid(F32 x) {
  const F32 e = exp(asFloat(asBits(x) | 0x80000000u));
  return select(x < zero(), e, broadcast(1.0f)) / (e + 1.0f);
}

DIDR_SIMD F32 log(F32 x) {
  // (log(1 + f) - f + f^2/2) / f^3 on 1 + f in [sqrt(1/2), sqrt(2)], error 5.9e-9 of log(1 + f).
  constexpr float kTail[] = {0x1.555554p-2f, -0x1.000228p-2f, 0x1.99a028p-3f, -0x1.54720cp-3f,
                             0x1.22d79p-3f,  -0x1.0d8548p-3f, 0x1.056c48p-3f, -0x1.38dcf8p-4f};
  constexpr float kLn2High = 0x1.62e43p-1f;
  constexpr float kLn2Low = -0x1.05c61p-29f;
  constexpr uint32_t kSqrtHalf = 0x3f3504f3;
  const I32 subnormal = x < 0x1p-126f;
  // Unsigned: the bits of a negative x, whose result is replaced below, would overflow.
  const U32 bits = asBits(select(subnormal, x * 0x1p23f, x));
  const I32 k = asInt(bits - kSqrtHalf) >> 23;
  const F32 f = asFloat(bits - (asBits(k) << 23)) - 1.0f;
  const F32 e = toFloat(k) - select(subnormal, broadcast(23.0f), zero());
  const F32 tail = f * f * fma(f, polynomial(f, kTail), broadcast(-0.5f));
  const F32 y = fma(e, broadcast(kLn2High), f + fma(e, broadcast(kLn2Low), tail));
  const F32 infinity = broadcast(__builtin_inff());
  const F32 finite =
      select(x == zero(), -infinity, select(x < zero(), broadcast(__builtin_nanf("")), y));
  return select(x < infinity, finite, x);
}

// Φ(x), the standard normal distribution function.
//
// For t = |x|, Φ(-t) = e^(-t^2/2) h(t), where h falls like 1/t: h(t) (t + 4) is smooth in
// z = (t - 4) / (t + 4), which maps [0, inf) to [-1, 1). Relative accuracy holds in the left tail,
// where 1 + erf would cancel.
DIDR_SIMD F32 normalCdf(F32 x) {
  // h(t) (t + 4) on t <= 14.6, relative error 1.8e-8.
  constexpr float kMills[] = {0x1.82b4bcp-1f,  -0x1.373e3cp-1f, 0x1.8c6d84p-2f,  -0x1.7dfedap-3f,
                              0x1.eedaacp-5f,  -0x1.eddb8ep-8f, -0x1.ce157cp-9f, 0x1.9ed03p-10f,
                              0x1.a1baf2p-13f, -0x1.090c28p-13f};
  const F32 t = min(broadcast(15.0f), abs(x));  // Φ(-15) rounds to zero
  const F32 scale = 1.0f / (t + 4.0f);
  const F32 h = polynomial((t - 4.0f) * scale, kMills) * scale;
  const F32 square = t * t;
  const F32 rest = fma(t, t, -square);  // what rounding took: e^-x amplifies it by t^2
  const F32 e = exp(square * -0.5f);
  const F32 tail = fma(e, rest * -0.5f, e) * h;
  return select(x < zero(), tail, 1.0f - tail);
}

DIDR_SIMD F32 erf(F32 x) {
  // erf(x) / x in x^2 <= 1/2, error 5.2e-8 relative (the rounding of its leading coefficient).
  constexpr float kNear[] = {0x1.20dd76p0f,   -0x1.8128bcp-2f, 0x1.ce88bp-4f,
                             -0x1.bfb3d2p-6f, 0x1.978494p-8f,  -0x1.9566eep-10f};
  const F32 square = x * x;
  const F32 near = x * polynomial(square, kNear);
  const F32 tail = normalCdf(abs(x) * -0x1.6a09e6p0f);
  return select(square < 0.5f, near, copySign(fma(tail, broadcast(-2.0f), broadcast(1.0f)), x));
}

// x = quadrant pi/2 + remainder, |remainder| <= pi/4 up to rounding.
struct Angle {
  F32 remainder;
  I32 quadrant;  // modulo 4
};

// For |x| >= 2^16: exact multiplication by the bits of 2/pi that matter (Payne and Hanek, "Radian
// reduction for trigonometric functions", SIGNUM Newsletter 1983). x = M 2^e with a whole M, so bits
// of 2/pi above 2^(2-e) give whole turns; 96 bits from there leave an error below 2^-69 quadrants.
static inline __attribute__((noinline)) float reduceLargeAngle(float x, int32_t& quadrant) {
  // A word of zeros, then 2/pi from its first fractional bit.
  constexpr uint32_t kTwoOverPi[] = {0,           0xa2f9836eu, 0x4e441529u, 0xfc2757d1u,
                                     0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu};
  const uint32_t bits = bitsOf(x);
  const int exponent = static_cast<int>((bits >> 23) & 0xffu);
  quadrant = 0;
  if (exponent == 0xff) return x - x;
  const uint64_t mantissa = (bits & 0x7fffffu) | 0x800000u;
  const int first = 32 + (exponent - 150) - 2;  // of the bit worth 2 quadrants
  const int word = first / 32;
  const int shift = first % 32;
  uint64_t window[3];
  for (int i = 0; i < 3; ++i)
    window[i] = (((static_cast<uint64_t>(kTwoOverPi[word + i]) << 32 | kTwoOverPi[word + i + 1])
                  << shift) >>
                 32) &
                0xffffffffu;
  const uint64_t low = mantissa * window[2];
  const uint64_t middle = mantissa * window[1] + (low >> 32);
  const uint64_t high = mantissa * window[0] + (middle >> 32);
  const uint64_t fraction = high << 34 | (middle & 0xffffffffu) << 2 | (low & 0xffffffffu) >> 30;
  // The fraction as a signed number rounds the quadrant to the nearest.
  const auto centred = static_cast<int64_t>(fraction);
  const auto whole = static_cast<int32_t>((high >> 30) & 3u) + (centred < 0 ? 1 : 0);
  const double angle = static_cast<double>(centred) * (0x1.921fb54442d18p0 * 0x1p-64);
  const bool negative = (bits >> 31) != 0;
  quadrant = negative ? -whole : whole;
  return static_cast<float>(negative ? -angle : angle);
}

DIDR_SIMD Angle reduceAngle(F32 x) {
  // pi/2 in three parts. Products with fewer than 2^17 quadrants leave an error below 2^-60.
  constexpr float kHalfPi0 = 0x1.921fb6p0f;
  constexpr float kHalfPi1 = -0x1.777a5cp-25f;
  constexpr float kHalfPi2 = -0x1.ee59dap-50f;
  const F32 n = (x * 0x1.45f306p-1f + kRoundFloat);
  const F32 k = n - kRoundFloat;
  F32 r = fma(k, broadcast(-kHalfPi0), x);
  r = fma(k, broadcast(-kHalfPi1), r);
  r = fma(k, broadcast(-kHalfPi2), r);
  I32 quadrant = asInt(n);
  const I32 large = ~(abs(x) < 65536.0f);
  if (any(large)) {
    for (int i = 0; i < kLanes; ++i) {
      if (large[i] == 0) continue;
      int32_t whole;
      r[i] = reduceLargeAngle(x[i], whole);
      quadrant[i] = whole;
    }
  }
  return {r, quadrant};
}

// sin of the angle moved on by `quarters` quarter turns.
DIDR_SIMD F32 sinOfAngle(const Angle& angle, int32_t quarters) {
  // (sin r - r) / r^3 and (cos r - 1 + r^2/2) / r^4 in r^2, |r| <= pi/4, errors 4e-9 and 1.2e-10.
  constexpr float kSin[] = {-0x1.555546p-3f, 0x1.110778p-7f, -0x1.995404p-13f};
  constexpr float kCos[] = {0x1.55554ap-5f, -0x1.6c0c2ap-10f, 0x1.99e912p-16f};
  const F32 r = angle.remainder;
  const F32 square = r * r;
  const F32 sine = fma(square * r, polynomial(square, kSin), r);
  const F32 cosine = fma(square * square, polynomial(square, kCos),
                         fma(square, broadcast(-0.5f), broadcast(1.0f)));
  const I32 quadrant = angle.quadrant + quarters;
  const F32 y = select((quadrant & 1) != 0, cosine, sine);
  return asFloat(asBits(y) ^ ((asBits(quadrant) & 2u) << 30));
}
DIDR_SIMD F32 sin(F32 x) { return select(x == zero(), x, sinOfAngle(reduceAngle(x), 0)); }
DIDR_SIMD F32 cos(F32 x) { return sinOfAngle(reduceAngle(x), 1); }

// 2^(y log2 x) for x >= 0, in float64: y log2 x needs 8 bits more than a float holds.
DIDR_SIMD F64 powOfPositive(F64 x, F64 y) {
  // log2 m = s p(s^2), s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt(2)], error 8e-14.
  constexpr double kLog2[] = {2.8853900817778486,  0.9617966941159056, 0.5770779415802395,
                              0.41220933545281324, 0.3199021433516582, 0.28295289270923685};
  // 2^r, |r| <= 1/2, error 4e-11.
  constexpr double kExp2[] = {0.999999999961682,      0.6931471807284487,    0.24022651198157302,
                              0.055504103534464264,   0.009618027253699079,  0.0013333922564946542,
                              0.00015469291131977713, 1.5201921199388586e-05};
  constexpr uint64_t kOne = 0x3ff0000000000000u;
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdu;
  constexpr uint64_t kTwo52 = 0x4330000000000000u;  // 2^52: adding a small integer sets low bits
  const U64 bits = asBits(x);
  const U64 biased = (bits + (kOne - kSqrtHalf)) >> 52;
  const F64 m = asDouble(bits - (biased << 52) + kOne);
  const F64 k = asDouble(biased | kTwo52) - (0x1p52 + 1023.0);
  const F64 s = (m - 1.0) / (m + 1.0);
  F64 log2 = s * polynomial(s * s, kLog2) + k;
  log2 = x == 0.0 ? broadcast(-__builtin_inf()) : log2;
  log2 = x == __builtin_inf() ? broadcast(__builtin_inf()) : log2;
  F64 z = y * log2;
  z = z > 200.0 ? broadcast(200.0) : z;  // far past overflow and underflow of the result
  z = z < -200.0 ? broadcast(-200.0) : z;
  const F64 n = z + 0x1.8p52;
  const F64 whole = n - 0x1.8p52;
  const F64 power = asDouble((asBits(n) << 52) + kOne);
  return polynomial(z - whole, kExp2) * power;
}

DIDR_SIMD F32 pow(F32 x, F32 y) {
  const F32 size = abs(x);
  const F32 positive = narrow(powOfPositive(widenLow(size), widenLow(y)),
                              powOfPositive(widenHigh(size), widenHigh(y)));
  // Every float from 2^24 on is an even integer.
  const I32 small = abs(y) < 0x1p24f;
  const I32 truncated = truncateToInt(select(small, y, zero()));
  const I32 whole = ~small | (toFloat(truncated) == y);
  const I32 odd = small & whole & ((truncated & 1) != 0);
  const F32 signedPower = asFloat(asBits(positive) ^ (asBits(odd) & asBits(x) & 0x80000000u));
  const F32 infinity = broadcast(__builtin_inff());
  const I32 noRoot = (x < zero()) & (x > -infinity) & ~whole;
  F32 z = select(noRoot | isNan(x) | isNan(y), broadcast(__builtin_nanf("")), signedPower);
  const I32 one = (x == 1.0f) | (y == zero()) | ((x == -1.0f) & (abs(y) == infinity));
  return select(one, broadcast(1.0f), z);
}

}  // namespace simd
}  // namespace DIDR_LEVEL
}  // namespace didr
