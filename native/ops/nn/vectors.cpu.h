// Loops of the network ops: over vectors, over runs of logical lanes, over blocks of rows.
#pragma once

#include "native/core/simd.h"
#include "native/ops/nn/rows.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

// Elements worth a thread when each costs a few cycles.
constexpr int64_t kElementGrain = 32768;
// Rows of `size` elements worth a thread.
DIDR_SIMD int64_t rowGrain(int64_t size) {
  const int64_t rows = kElementGrain / (size > 0 ? size : 1);
  return rows > 1 ? rows : 1;
}

// How much of a vector is there: all of it, known to the compiler, or its first lanes.
struct Whole {};
struct Part {
  int lanes;
};
template <class T>
DIDR_SIMD simd::F32 load(const T* p, Whole) {
  return simd::load(p);
}
template <class T>
DIDR_SIMD simd::F32 load(const T* p, Part part) {
  return simd::loadPartial(p, part.lanes);
}
template <class T>
DIDR_SIMD void store(T* p, simd::F32 x, Whole) {
  simd::store(p, x);
}
template <class T>
DIDR_SIMD void store(T* p, simd::F32 x, Part part) {
  simd::storePartial(p, x, part.lanes);
}

// Calls body(index, Whole or Part) for the vectors of [begin, end).
template <class Body>
DIDR_SIMD void forEachVector(int64_t begin, int64_t end, const Body& body) {
  int64_t i = begin;
  for (; i + simd::kLanes <= end; i += simd::kLanes) body(i, Whole{});
  if (i < end) body(i, Part{static_cast<int>(end - i)});
}

DIDR_SIMD void clear(float* p, int64_t count) {
  forEachVector(0, count, [&](int64_t i, auto extent) { store(p + i, simd::zero(), extent); });
}

// As forEachVector over [0, count), with the part of a LaneSum that the vector belongs to:
// body(index, part, extent).
template <class Body>
DIDR_SIMD void forEachLaneVector(int64_t count, const Body& body) {
  using namespace simd;
  int64_t i = 0;
  for (; i + kLogicalLanes <= count; i += kLogicalLanes)
    for (int part = 0; part < kLaneVectors; ++part) body(i + part * kLanes, part, Whole{});
  for (int part = 0; part < kLaneVectors && i < count; ++part, i += kLanes)
    body(i, part, Part{lanesLeft(count - i)});
}

// Rows [begin, end) of one sample.
struct RowBlock {
  int64_t sample, begin, end;

  RowBlock(int64_t block, int64_t rowsPerSample) {
    const int64_t perSample = (rowsPerSample + kRowBlock - 1) / kRowBlock;
    const int64_t first = block % perSample * kRowBlock;
    const int64_t left = rowsPerSample - first;
    sample = block / perSample;
    begin = sample * rowsPerSample + first;
    end = begin + (left < kRowBlock ? left : kRowBlock);
  }
};

DIDR_SIMD int64_t rowBlockGrain(int64_t size) {
  const int64_t blocks = rowGrain(size) / kRowBlock;
  return blocks > 1 ? blocks : 1;
}

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
