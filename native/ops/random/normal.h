// Two independent standard normals from two random words, by Box and Muller (1958), with the same
// bits everywhere: only operations that IEEE 754 rounds in one way are used (+, -, *, fma, sqrt,
// integers), in one order, by one template. The CPU's vectors, its scalars and a CUDA thread differ
// in the `Arithmetic` they put in.
//
//   u         float(x0 >> 1) 2^-31 + 2^-32, a float in (0, 1]. The radius sqrt(-2 ln u) reaches
//             sqrt(64 ln 2) = 6.66. Rounding u to a float costs nothing in the tail, where u is
//             small, and makes radii below 0.001 (one in two million) coarse.
//   angle     (q + t) pi/2, t in [-1/2, 1/2) the low 23 bits of x1, q in {0, 1, 2, 3} its top two
//   (n0, n1)  radius * (a, b), where (a, b) is +-(cos, sin)(t pi/2), or swapped, by q: each q maps
//             onto its own quarter of the circle, so the angle is uniform (a swap reflects the
//             quarter, which needs no sign of its own).
//
// The logarithm: u = 2^e m with m in [1/sqrt 2, sqrt 2), z = m - 1, -2 ln u = -2 ln 2 e + z P(z),
// where P approximates -2 ln(1+z)/z.
// Polynomials are minimax fits of our own (Lawson iteration, coefficients rounded in turn); largest
// errors: radius 3.0e-7 from P, sine 5.3e-9, cosine 3.3e-8. Against Box-Muller in float64 on the
// same u and t the normals' largest error is below 1e-6.
#pragma once

#include <cmath>
#include <cstdint>

#include "native/core/dtype.h"
#include "native/core/host_device.h"
#include "native/ops/random/philox.h"

namespace didr {

// One lane. On the device every product and sum is spelled out, so that the compiler cannot fuse
// them.
struct ScalarArithmetic {
  using Float = float;
  using Word = uint32_t;

  static DIDR_MEMBER_HOST_DEVICE float constant(float x) { return x; }
  static DIDR_MEMBER_HOST_DEVICE uint32_t word(uint32_t x) { return x; }
  static DIDR_MEMBER_HOST_DEVICE float asFloat(uint32_t x) { return floatOf(x); }
  static DIDR_MEMBER_HOST_DEVICE uint32_t asWord(float x) { return bitsOf(x); }
  static DIDR_MEMBER_HOST_DEVICE float fromSigned(uint32_t x) {
    return static_cast<float>(static_cast<int32_t>(x));
  }
  static DIDR_MEMBER_HOST_DEVICE float selectIfBit30(uint32_t x, float a, float b) {
    return (x & 0x40000000u) != 0 ? a : b;
  }
  // Bit by bit: a where the mask is 1, else b.
  static DIDR_MEMBER_HOST_DEVICE uint32_t selectBits(uint32_t mask, uint32_t a, uint32_t b) {
    return (a & mask) | (b & ~mask);
  }
#if defined(__CUDA_ARCH__)
  static __device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
  static __device__ __forceinline__ float sub(float a, float b) { return __fsub_rn(a, b); }
  static __device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
  static __device__ __forceinline__ float fma(float a, float b, float c) {
    return __fmaf_rn(a, b, c);
  }
  static __device__ __forceinline__ float sqrt(float x) { return __fsqrt_rn(x); }
#else
  static DIDR_MEMBER_HOST_DEVICE float add(float a, float b) { return a + b; }
  static DIDR_MEMBER_HOST_DEVICE float sub(float a, float b) { return a - b; }
  static DIDR_MEMBER_HOST_DEVICE float mul(float a, float b) { return a * b; }
  static DIDR_MEMBER_HOST_DEVICE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
  static DIDR_MEMBER_HOST_DEVICE float sqrt(float x) { return ::sqrtf(x); }
#endif
};

template <class A>
struct NormalPair {
  typename A::Float first;
  typename A::Float second;
};

template <class A>
DIDR_HOST_DEVICE typename A::Float minusTwoLog(typename A::Float u) {
  using Float = typename A::Float;
  using Word = typename A::Word;
  const Word bits = A::asWord(u);
  // The exponent counted from 1/sqrt(2), times 2^23: a signed number, e * 2^23.
  const Word exponent = (bits - 0x3f3504f3u) & 0xff800000u;
  const Float z = A::sub(A::asFloat(bits - exponent), A::constant(1.0f));

  Float p = A::constant(-0x1.f09014p-3f);
  p = A::fma(p, z, A::constant(0x1.83acd6p-2f));
  p = A::fma(p, z, A::constant(-0x1.a420bcp-2f));
  p = A::fma(p, z, A::constant(0x1.fd6e0cp-2f));
  p = A::fma(p, z, A::constant(-0x1.551b5cp-1f));
  p = A::fma(p, z, A::constant(0x1.0002fep+0f));
  p = A::fma(p, z, A::constant(-0x1.000016p+1f));
  return A::fma(A::fromSigned(exponent), A::constant(-0x1.62e430p-23f), A::mul(z, p));
}

template <class A>
DIDR_HOST_DEVICE NormalPair<A> normalPairOf(typename A::Word x0, typename A::Word x1) {
  using Float = typename A::Float;
  const Float u = A::fma(A::fromSigned(x0 >> 1), A::constant(0x1p-31f), A::constant(0x1p-32f));
  const Float radius = A::sqrt(minusTwoLog<A>(u));
  const Float signedRadius = A::asFloat(A::selectBits(A::word(0x80000000u), x1, A::asWord(radius)));

  // The bits become the mantissa of a float in [1, 2).
  const Float t = A::sub(A::asFloat(A::selectBits(A::word(0x007fffffu), x1, A::word(0x3f800000u))),
                         A::constant(1.5f));
  const Float tt = A::mul(t, t);
  Float sine = A::constant(-0x1.2a8022p-8f);
  sine = A::fma(sine, tt, A::constant(0x1.464988p-4f));
  sine = A::fma(sine, tt, A::constant(-0x1.4abb68p-1f));
  sine = A::fma(sine, tt, A::constant(0x1.921fb4p+0f));
  sine = A::mul(sine, t);
  Float cosine = A::constant(-0x1.4eb112p-6f);
  cosine = A::fma(cosine, tt, A::constant(0x1.03b18ep-2f));
  cosine = A::fma(cosine, tt, A::constant(-0x1.3bd3a2p+0f));
  cosine = A::fma(cosine, tt, A::constant(1.0f));

  return {A::mul(signedRadius, A::selectIfBit30(x1, sine, cosine)),
          A::mul(signedRadius, A::selectIfBit30(x1, cosine, sine))};
}

// Elements 4*block .. 4*block + 3 of the standard normal draw.
struct NormalBlock {
  float value[4];
};
DIDR_HOST_DEVICE NormalBlock normalDraw(uint64_t seed, uint64_t offset, uint64_t block) {
  const PhiloxBlock words = philoxDraw(seed, offset, block);
  const NormalPair<ScalarArithmetic> a =
      normalPairOf<ScalarArithmetic>(words.word[0], words.word[1]);
  const NormalPair<ScalarArithmetic> b =
      normalPairOf<ScalarArithmetic>(words.word[2], words.word[3]);
  return {{a.first, a.second, b.first, b.second}};
}

}  // namespace didr
