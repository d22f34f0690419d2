// Float64 vectors: kLanes / 2 lanes, so a float32 vector widens to two of them. For what must not
// round at every step: long sums, and the logarithm inside a power.
#pragma once

#include "native/core/simd.h"

namespace didr {
namespace DIDR_LEVEL {
namespace simd {

typedef double F64 __attribute__((vector_size(kVectorBytes)));
typedef float F32Half __attribute__((vector_size(kVectorBytes / 2)));

DIDR_SIMD F64 asDouble(U64 x) { return reinterpret_cast<F64>(x); }
DIDR_SIMD U64 asBits(F64 x) { return reinterpret_cast<U64>(x); }
DIDR_SIMD F64 broadcast(double x) { return x - F64{}; }

// Lanes [0, kLanes/2) and [kLanes/2, kLanes) of x, exactly.
DIDR_SIMD F64 widenLow(F32 x) {
#if defined(DIDR_SIMD_AVX512)
  return _mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, x, 0));
#elif defined(DIDR_SIMD_AVX2)
  return _mm256_cvtps_pd(_mm256_castps256_ps128(x));
#elif defined(__SSE2__)
  return _mm_cvtps_pd(x);
#else
  F32Half half;
  memcpy(&half, &x, sizeof half);
  return __builtin_convertvector(half, F64);
#endif
}
DIDR_SIMD F64 widenHigh(F32 x) {
#if defined(DIDR_SIMD_AVX512)
  return _mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, x, 1));
#elif defined(DIDR_SIMD_AVX2)
  return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
#elif defined(__SSE2__)
  return _mm_cvtps_pd(_mm_movehl_ps(x, x));
#else
  F32Half half;
  memcpy(&half, reinterpret_cast<const char*>(&x) + sizeof half, sizeof half);
  return __builtin_convertvector(half, F64);
#endif
}
// The inverse, rounded to nearest even.
DIDR_SIMD F32 narrow(F64 low, F64 high) {
  const F32Half halves[2] = {__builtin_convertvector(low, F32Half),
                             __builtin_convertvector(high, F32Half)};
  F32 x;
  memcpy(&x, halves, sizeof x);
  return x;
}

}  // namespace simd
}  // namespace DIDR_LEVEL
}  // namespace didr
