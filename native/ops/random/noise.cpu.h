// The random draws in vectors: groups of kNoiseGroup consecutive elements, in registers.
//
// A Philox block's four words sit in four vectors of 64-bit lanes, so that the 32x32 -> 64 bit multiply works in place:
// a product's high half is one shift away and what garbage is left in the upper halves never reaches a result. The
// first three rounds multiply words that are the same in all lanes; those products are formed once per run.
// Two sets of kLanes/2 blocks, A and B, fill the even and odd 32-bit lanes of each word's vector. Which counter goes to
// which lane is chosen so that a 4x4 transpose inside 128-bit quarters leaves consecutive elements: with Q quarters,
// lanes 2q and 2q+1 of A hold blocks q and 2Q + q, of B blocks Q + q and 3Q + q.
#pragma once

#include "native/core/simd.h"
#include "native/ops/random/normal.h"
#include "native/ops/random/philox.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

// One Philox block per lane.
constexpr int kNoiseGroup = 4 * simd::kLanes;
// Work is cut at multiples of this many elements, whatever the level; a whole number of groups, and small enough a
// power of two that the counter's high word is constant inside.
constexpr int64_t kNoiseRun = 8192;

struct VectorArithmetic {
  using Float = simd::F32;
  using Word = simd::U32;

  static DIDR_MEMBER_HOST_DEVICE Float constant(float x) { return simd::broadcast(x); }
  static DIDR_MEMBER_HOST_DEVICE Word word(uint32_t x) { return simd::broadcast(x); }
  static DIDR_MEMBER_HOST_DEVICE Float asFloat(Word x) { return simd::asFloat(x); }
  static DIDR_MEMBER_HOST_DEVICE Word asWord(Float x) { return simd::asBits(x); }
  static DIDR_MEMBER_HOST_DEVICE Float fromSigned(Word x) { return simd::toFloat(simd::asInt(x)); }
  static DIDR_MEMBER_HOST_DEVICE Float selectIfSign(Word x, Float a, Float b) {
    return simd::select(simd::asInt(x) < 0, a, b);
  }
  static DIDR_MEMBER_HOST_DEVICE Word selectBits(Word mask, Word a, Word b) {
    return simd::selectBits(mask, a, b);
  }
  static DIDR_MEMBER_HOST_DEVICE Float add(Float a, Float b) { return a + b; }
  static DIDR_MEMBER_HOST_DEVICE Float sub(Float a, Float b) { return a - b; }
  static DIDR_MEMBER_HOST_DEVICE Float mul(Float a, Float b) { return a * b; }
  static DIDR_MEMBER_HOST_DEVICE Float fma(Float a, Float b, Float c) { return simd::fma(a, b, c); }
  static DIDR_MEMBER_HOST_DEVICE Float sqrt(Float x) { return simd::sqrt(x); }
};

// What the groups of one run share. `firstElement` is any element of the run.
struct NoiseRun {
  uint32_t key0[kPhiloxRounds];
  uint32_t key1[kPhiloxRounds];
  uint32_t product0;    // round 1: what is xored into words 1 and 2
  uint32_t word2Round0;
  uint32_t word0Round1;
  uint32_t word2Round1;
  uint32_t word2Round2;
  uint64_t lanesA[simd::kLanes / 2];
  uint64_t lanesB[simd::kLanes / 2];
};

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
