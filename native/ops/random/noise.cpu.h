// The random draws in vectors, a tile at a time.
//
// A Philox block's four words sit in four vectors of 64-bit lanes, so that the 32x32 -> 64 bit
// multiply works in place: a product's high half is one shift away, and what garbage is left in the
// upper halves never reaches a result. The first three rounds multiply words that are the same in
// all lanes; those products are formed once per run.
// Two sets of kLanes/2 blocks, A and B, fill the even and odd 32-bit lanes of each word's vector.
// Which counter goes to which lane is chosen so that a 4x4 transpose inside 128-bit quarters leaves
// consecutive elements: with Q quarters, lanes 2q and 2q+1 of A hold blocks q and 2Q + q, of B
// blocks Q + q and 3Q + q.
//
// A tile's words go to the first-level cache before they become normals. One loop over both would
// be a chain of some 170 dependent cycles per group, far longer than what a core sees ahead; apart,
// each loop has independent work next to each other and runs at the speed of its instructions.
// Consumers apply what they do to a group as soon as they have its normals, so that their memory
// traffic runs beside the arithmetic.
#pragma once

#include "native/core/simd.h"
#include "native/ops/random/normal.h"
#include "native/ops/random/philox.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

// Consecutive elements that become normals together: one Philox block per lane.
constexpr int kNoiseGroup = 4 * simd::kLanes;
// Groups whose Philox rounds run side by side; what the registers hold.
constexpr int kNoiseBatch = simd::kLanes == 16 ? 3 : 1;
// Elements drawn at a time; a whole number of batches at every level.
constexpr int kNoiseTile = 768;
// Work is cut at multiples of this many elements: whole groups, and a power of two, so that the
// counter's high word is constant inside.
constexpr int64_t kNoiseRun = 8192;

struct VectorArithmetic {
  using Float = simd::F32;
  using Word = simd::U32;

  static DIDR_MEMBER_HOST_DEVICE Float constant(float x) { return simd::broadcast(x); }
  static DIDR_MEMBER_HOST_DEVICE Word word(uint32_t x) { return simd::broadcast(x); }
  static DIDR_MEMBER_HOST_DEVICE Float asFloat(Word x) { return simd::asFloat(x); }
  static DIDR_MEMBER_HOST_DEVICE Word asWord(Float x) { return simd::asBits(x); }
  static DIDR_MEMBER_HOST_DEVICE Float fromSigned(Word x) { return simd::toFloat(simd::asInt(x)); }
  static DIDR_MEMBER_HOST_DEVICE Float selectIfBit30(Word x, Float a, Float b) {
    return simd::selectIfBits(x, 0x40000000u, a, b);
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

// What the groups of one run share.
struct NoiseRun {
  uint32_t key0[kPhiloxRounds];
  uint32_t key1[kPhiloxRounds];
  // Products and sums of the words that do not depend on the counter's low half, by the round that
  // uses them.
  uint32_t round0Word2;
  uint32_t round1Word0;
  uint32_t round1Word2;
  uint32_t round2Word2;
};

DIDR_SIMD NoiseRun noiseRunAt(uint64_t seed, uint64_t offset, int64_t firstElement) {
  NoiseRun run;
  for (int round = 0; round < kPhiloxRounds; ++round) {
    run.key0[round] = static_cast<uint32_t>(seed) + static_cast<uint32_t>(round) * kPhiloxKeyStep0;
    run.key1[round] =
        static_cast<uint32_t>(seed >> 32) + static_cast<uint32_t>(round) * kPhiloxKeyStep1;
  }
  const uint32_t counterHigh = static_cast<uint32_t>(static_cast<uint64_t>(firstElement) >> 34);
  // Round 0: word 2 is the same for all blocks, so words 0 and 1 after it are too.
  const uint64_t product1 =
      static_cast<uint64_t>(kPhiloxMultiplier1) * static_cast<uint32_t>(offset);
  const uint32_t word0 = static_cast<uint32_t>(product1 >> 32) ^ counterHigh ^ run.key0[0];
  const uint32_t word1 = static_cast<uint32_t>(product1);
  run.round0Word2 = static_cast<uint32_t>(offset >> 32) ^ run.key1[0];
  // Round 1: word 0 is the same for all blocks, so words 2 and 3 after it are partly known.
  const uint64_t product0 = static_cast<uint64_t>(kPhiloxMultiplier0) * word0;
  run.round1Word0 = word1 ^ run.key0[1];
  run.round1Word2 = static_cast<uint32_t>(product0 >> 32) ^ run.key1[1];
  run.round2Word2 = static_cast<uint32_t>(product0) ^ run.key1[2];
  return run;
}

DIDR_SIMD simd::U64 wide(uint32_t x) { return simd::broadcast(static_cast<uint64_t>(x)); }

// The words of kGroups * kLanes blocks from `firstBlock` on, a multiple of kLanes; words[g][w] has
// word w of group g's blocks in the order that the transpose wants.
// The chains of dependent steps advance side by side, in source order: a chain alone leaves the
// multipliers idle, and what an out-of-order core sees ahead is shorter than one chain.
template <int kGroups>
DIDR_SIMD void noiseWords(const NoiseRun& run, int64_t firstBlock, simd::U32 (&words)[kGroups][4]) {
  using namespace simd;
  constexpr int kQuarters = kLanes / 4;
  constexpr int kChains = 2 * kGroups;
  const U64 multiplier0 = wide(kPhiloxMultiplier0);
  const U64 multiplier1 = wide(kPhiloxMultiplier1);
  U64 lanes;
  for (int q = 0; q < kQuarters; ++q) {
    lanes[2 * q] = static_cast<uint64_t>(q);
    lanes[2 * q + 1] = static_cast<uint64_t>(2 * kQuarters + q);
  }
  const U64 counter = wide(static_cast<uint32_t>(firstBlock)) + lanes;
  U64 x0[kChains], x1[kChains], x2[kChains], x3[kChains], product0[kChains], product1[kChains];
  // Round 0.
  for (int c = 0; c < kChains; ++c) {
    x3[c] =
        mulLow(counter + static_cast<uint64_t>(c / 2 * kLanes + c % 2 * kQuarters), multiplier0);
    x2[c] = (x3[c] >> 32) ^ wide(run.round0Word2);
  }
  // Round 1.
  for (int c = 0; c < kChains; ++c) {
    x1[c] = mulLow(x2[c], multiplier1);
    x0[c] = (x1[c] >> 32) ^ wide(run.round1Word0);
    x2[c] = x3[c] ^ wide(run.round1Word2);
  }
  // Round 2; word 3 is known, and is in round2Word2.
  for (int c = 0; c < kChains; ++c) {
    product0[c] = mulLow(x0[c], multiplier0);
    product1[c] = mulLow(x2[c], multiplier1);
  }
  for (int c = 0; c < kChains; ++c) {
    x0[c] = xor3(product1[c] >> 32, x1[c], wide(run.key0[2]));
    x1[c] = product1[c];
    x2[c] = (product0[c] >> 32) ^ wide(run.round2Word2);
    x3[c] = product0[c];
  }
  for (int round = 3; round < kPhiloxRounds - 1; ++round) {
    for (int c = 0; c < kChains; ++c) {
      product0[c] = mulLow(x0[c], multiplier0);
      product1[c] = mulLow(x2[c], multiplier1);
    }
    for (int c = 0; c < kChains; ++c) {
      x0[c] = xor3(product1[c] >> 32, x1[c], wide(run.key0[round]));
      x1[c] = product1[c];
      x2[c] = xor3(product0[c] >> 32, x3[c], wide(run.key1[round]));
      x3[c] = product0[c];
    }
  }
  // The last round, whose halves go straight to their lanes: 2g is A, 2g + 1 is B.
  for (int c = 0; c < kChains; ++c) {
    product0[c] = mulLow(x0[c], multiplier0);
    product1[c] = mulLow(x2[c], multiplier1);
  }
  const U32 key0 = broadcast(run.key0[kPhiloxRounds - 1]);
  const U32 key1 = broadcast(run.key1[kPhiloxRounds - 1]);
  for (int g = 0; g < kGroups; ++g) {
    const int a = 2 * g;
    const int b = a + 1;
    words[g][0] = xor3(interleaveHigh(product1[a], product1[b]), interleaveLow(x1[a], x1[b]), key0);
    words[g][1] = interleaveLow(product1[a], product1[b]);
    words[g][2] = xor3(interleaveHigh(product0[a], product0[b]), interleaveLow(x3[a], x3[b]), key1);
    words[g][3] = interleaveLow(product0[a], product0[b]);
  }
}

// The words of up to kNoiseTile consecutive elements of one run.
class NoiseTile {
 public:
  // `first` is a multiple of kNoiseGroup. Draws whole groups, up to the one with element first +
  // count - 1.
  DIDR_MEMBER_HOST_DEVICE void draw(const NoiseRun& run, int64_t first, int64_t count) {
    const int groups = static_cast<int>((count + kNoiseGroup - 1) / kNoiseGroup);
    int g = 0;
    for (; g + kNoiseBatch <= groups; g += kNoiseBatch) drawGroups<kNoiseBatch>(run, first, g);
    for (; g < groups; ++g) drawGroups<1>(run, first, g);
  }

  // The group's kNoiseGroup elements of the standard normal draw, in order.
  DIDR_MEMBER_HOST_DEVICE void normals(int64_t group, simd::F32 (&values)[4]) const {
    simd::U32 words[4];
    load(group, words);
    const NormalPair<VectorArithmetic> a = normalPairOf<VectorArithmetic>(words[0], words[1]);
    const NormalPair<VectorArithmetic> b = normalPairOf<VectorArithmetic>(words[2], words[3]);
    values[0] = a.first;
    values[1] = a.second;
    values[2] = b.first;
    values[3] = b.second;
    simd::transposeQuads(values[0], values[1], values[2], values[3]);
  }

  // The same elements of the uniform draw on [0, 1).
  DIDR_MEMBER_HOST_DEVICE void uniforms(int64_t group, simd::F32 (&values)[4]) const {
    simd::U32 words[4];
    load(group, words);
    for (int w = 0; w < 4; ++w) values[w] = simd::toFloat(simd::asInt(words[w] >> 8)) * 0x1p-24f;
    simd::transposeQuads(values[0], values[1], values[2], values[3]);
  }

 private:
  template <int kGroups>
  DIDR_MEMBER_HOST_DEVICE void drawGroups(const NoiseRun& run, int64_t first, int group) {
    simd::U32 words[kGroups][4];
    noiseWords<kGroups>(run, first / 4 + group * simd::kLanes, words);
    for (int g = 0; g < kGroups; ++g)
      for (int w = 0; w < 4; ++w)
        simd::storeInts(words_ + (group + g) * kNoiseGroup + w * simd::kLanes, words[g][w]);
  }

  DIDR_MEMBER_HOST_DEVICE void load(int64_t group, simd::U32 (&words)[4]) const {
    for (int w = 0; w < 4; ++w)
      words[w] = simd::loadInts(words_ + group * kNoiseGroup + w * simd::kLanes);
  }

  alignas(64) uint32_t words_[kNoiseTile];
};

// Calls body(tile, first, last) for tiles that cover [begin, end); `begin` is a multiple of
// kNoiseRun.
template <class Body>
DIDR_SIMD void forEachNoiseTile(uint64_t seed, uint64_t offset, int64_t begin, int64_t end,
                                const Body& body) {
  NoiseTile tile;
  for (int64_t runBegin = begin; runBegin < end; runBegin += kNoiseRun) {
    const int64_t runEnd = runBegin + kNoiseRun < end ? runBegin + kNoiseRun : end;
    const NoiseRun run = noiseRunAt(seed, offset, runBegin);
    for (int64_t first = runBegin; first < runEnd; first += kNoiseTile) {
      const int64_t last = first + kNoiseTile < runEnd ? first + kNoiseTile : runEnd;
      tile.draw(run, first, last - first);
      body(tile, first, last);
    }
  }
}

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
