// Vectors as pairs of neighbouring lanes.
#pragma once

#include "native/core/simd.h"

namespace didr {
namespace DIDR_LEVEL {
namespace simd {

typedef uint32_t U32Half __attribute__((vector_size(kVectorBytes / 2)));

// Lanes 2i and 2i + 1 exchanged.
DIDR_SIMD F32 swapPairs(F32 x) {
  const U64 pairs = asWide(asBits(x));
  return asFloat(asBits((pairs << 32) | (pairs >> 32)));
}
// Every lane of the half twice.
DIDR_SIMD F32 repeatEach(U32Half half) {
  const U64 wide = __builtin_convertvector(half, U64);
  return asFloat(asBits(wide | (wide << 32)));
}
DIDR_SIMD U32Half lowHalf(F32 x) { return loadBits<U32Half>(&x); }
DIDR_SIMD U32Half highHalf(F32 x) {
  return loadBits<U32Half>(reinterpret_cast<const float*>(&x) + kLanes / 2);
}
DIDR_SIMD U32Half evenLanes(F32 x) { return __builtin_convertvector(asWide(asBits(x)), U32Half); }
DIDR_SIMD F32 join(U32Half low, U32Half high) {
  const U32Half halves[2] = {low, high};
  return loadBits<F32>(halves);
}

}  // namespace simd
}  // namespace DIDR_LEVEL
}  // namespace didr
