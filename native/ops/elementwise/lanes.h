// Typed lanes of elementwise kernels: floats of every width as F32, integers as I32, answers as
// masks that are stored as bytes 0 and 1.
#pragma once

#include "native/core/simd.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

// A yes or no in memory; results of this type are given as masks.
struct Truth {
  uint8_t value;
};

template <class T>
DIDR_SIMD simd::F32 loadLanes(const T* p) {
  return simd::load(p);
}
DIDR_SIMD simd::I32 loadLanes(const int32_t* p) { return simd::loadInts(p); }
DIDR_SIMD simd::I32 loadLanes(const uint8_t* p) {
  return __builtin_convertvector(simd::loadBits<simd::U8>(p), simd::I32);
}

template <class T>
DIDR_SIMD simd::F32 loadLanesPartial(const T* p, int n) {
  return simd::loadPartial(p, n);
}
DIDR_SIMD simd::I32 loadLanesPartial(const int32_t* p, int n) {
  return simd::loadIntsPartial(p, n);
}
DIDR_SIMD simd::I32 loadLanesPartial(const uint8_t* p, int n) {
  return __builtin_convertvector(simd::loadBitsPartial<simd::U8>(p, n), simd::I32);
}

// The element at p in every lane where `repeats`, else lanes nobody reads.
template <class T>
DIDR_SIMD auto repeat(const T* p, bool repeats) {
  using V = decltype(loadLanes(p));
  if (!repeats) return V{};
  return loadLanesPartial(p, 1)[0] - V{};
}

template <bool kStreaming, class T>
DIDR_SIMD void storeLanes(T* p, simd::F32 v) {
  simd::storeOutput<kStreaming>(p, v);
}
template <bool kStreaming>
DIDR_SIMD void storeLanes(int32_t* p, simd::I32 v) {
  simd::storeOutput<kStreaming>(reinterpret_cast<float*>(p), simd::asFloat(v));
}
template <bool>
DIDR_SIMD void storeLanes(Truth* p, simd::I32 mask) {
  simd::storeBits(p, __builtin_convertvector(simd::asBits(mask) & 1u, simd::U8));
}

template <class T>
DIDR_SIMD void storeLanesPartial(T* p, simd::F32 v, int n) {
  simd::storePartial(p, v, n);
}
DIDR_SIMD void storeLanesPartial(int32_t* p, simd::I32 v, int n) {
  simd::storeIntsPartial(p, v, n);
}
DIDR_SIMD void storeLanesPartial(Truth* p, simd::I32 mask, int n) {
  simd::storeBitsPartial(p, __builtin_convertvector(simd::asBits(mask) & 1u, simd::U8), n);
}

// Whether `bytes` of output at `p` are better stored past the caches.
template <class T>
DIDR_SIMD bool streams(const T* p, int64_t bytes) {
  return simd::streamingPays(p, bytes);
}
DIDR_SIMD bool streams(const Truth*, int64_t) { return false; }

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
