// What the kernels over [batch, sampleSize] share: the samples of a flat range, and the count of
// bad inputs.
#pragma once

#include "native/core/simd.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

// Calls body(sample, begin, end) for the part of each sample inside the flat range [first, last).
template <class Body>
DIDR_SIMD void forEachSample(int64_t first, int64_t last, int64_t sampleSize, const Body& body) {
  int64_t begin = first;
  for (int64_t sample = first / sampleSize; begin < last; ++sample) {
    const int64_t sampleEnd = (sample + 1) * sampleSize;
    const int64_t end = sampleEnd < last ? sampleEnd : last;
    body(sample, begin, end);
    begin = end;
  }
}

// Infinities and NaNs among `count` elements. Kernels call this only where a cheap sign of one has
// shown up (a sum or a difference that is not finite), so it is not made to be quick.
template <class T>
__attribute__((noinline)) int32_t countNonFinite(const T* x, int64_t count) {
  int32_t found = 0;
  for (int64_t i = 0; i < count; ++i) found += (bitsOf(toFloat(x[i])) & 0x7f800000u) == 0x7f800000u;
  return found;
}

// Other threads may hold other parts of the same sample. Integers add up to the same in any order.
DIDR_SIMD void addCount(int32_t* counter, int32_t found) {
  if (found != 0) __atomic_fetch_add(counter, found, __ATOMIC_RELAXED);
}

// Adds those of the flat range [first, last) to their samples.
template <class T>
DIDR_SIMD void countNonFiniteBySample(const T* x, int64_t first, int64_t last, int64_t sampleSize,
                                      int32_t* nonFinite) {
  forEachSample(first, last, sampleSize, [&](int64_t sample, int64_t begin, int64_t end) {
    addCount(nonFinite + sample, countNonFinite(x + begin, end - begin));
  });
}

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
