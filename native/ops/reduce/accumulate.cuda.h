// What CUDA threads accumulate in a reduction, and how a row or a block of them merges it.
//
// An accumulator is plain data: identity(), add() of one element, merge() of two accumulators,
// which gives the same bits whichever of the two comes first. So a butterfly over lanes and a tree
// over rows have one result, fixed by the shape of the block.
#pragma once

#include <cstdint>

#include "native/core/cuda_block.h"
#include "native/core/cuda_math.h"
#include "native/core/cuda_packed.h"
#include "native/core/cuda_vector.h"

namespace didr {

// What elements are reduced as.
__device__ inline float valueOf(float x) { return x; }
__device__ inline float valueOf(BFloat16 x) { return toFloat(x); }
__device__ inline int32_t valueOf(int32_t x) { return x; }

template <class T>
using ValueOf = decltype(valueOf(T{}));

// The part of a reduction's kind that costs too little for a kernel of its own.
struct ReduceMode {
  bool squares;   // sum x^2
  uint32_t flip;  // bits to turn around on the way in and out: the minimum as a maximum
  double divisor;
};

__device__ inline float flipped(float x, uint32_t bits) { return floatOf(bitsOf(x) ^ bits); }
__device__ inline int32_t flipped(int32_t x, uint32_t bits) {
  return static_cast<int32_t>(static_cast<uint32_t>(x) ^ bits);
}

template <class Value>
struct Sum;

// In float64: 53 bits leave nothing of a sum's order in its float32 result. A float's square is
// exact.
template <>
struct Sum<float> {
  double sum;

  static __device__ Sum identity() { return {0.0}; }
  __device__ void add(float x, int64_t, const ReduceMode& mode) {
    const double wide = x;
    sum = __fma_rn(wide, mode.squares ? wide : 1.0, sum);
  }
  static __device__ Sum merge(const Sum& a, const Sum& b) { return {a.sum + b.sum}; }
  __device__ Sum fromLane(int lanes) const { return {__shfl_xor_sync(~0u, sum, lanes)}; }
  __device__ float result(const ReduceMode& mode) const {
    return static_cast<float>(sum / mode.divisor);
  }
};

template <>
struct Sum<int32_t> {
  uint32_t sum;  // wraps

  static __device__ Sum identity() { return {0}; }
  __device__ void add(int32_t x, int64_t, const ReduceMode&) { sum += static_cast<uint32_t>(x); }
  static __device__ Sum merge(const Sum& a, const Sum& b) { return {a.sum + b.sum}; }
  __device__ Sum fromLane(int lanes) const { return {__shfl_xor_sync(~0u, sum, lanes)}; }
  __device__ int32_t result(const ReduceMode&) const { return static_cast<int32_t>(sum); }
};

__device__ inline float leastOf(float) { return -scalar::infinity(); }
__device__ inline int32_t leastOf(int32_t) { return INT32_MIN; }
__device__ inline bool isNan(float x) { return x != x; }
__device__ inline bool isNan(int32_t) { return false; }

// NaN where either is; +0 above -0.
__device__ inline float larger(float a, float b) {
  if (isNan(a) || isNan(b)) return a + b;
  return a == b ? floatOf(bitsOf(a) & bitsOf(b)) : scalar::max(a, b);
}
__device__ inline int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }

template <class Value>
struct Largest {
  Value value;

  static __device__ Largest identity() { return {leastOf(Value{})}; }
  __device__ void add(Value x, int64_t, const ReduceMode& mode) {
    value = larger(value, flipped(x, mode.flip));
  }
  static __device__ Largest merge(const Largest& a, const Largest& b) {
    return {larger(a.value, b.value)};
  }
  __device__ Largest fromLane(int lanes) const { return {__shfl_xor_sync(~0u, value, lanes)}; }
  __device__ Value result(const ReduceMode& mode) const { return flipped(value, mode.flip); }
};

// The largest element and the first index that has it; a NaN is above everything.
template <class Value>
struct IndexOfLargest {
  Value value;
  int32_t index;

  static __device__ IndexOfLargest identity() { return {leastOf(Value{}), INT32_MAX}; }
  __device__ void add(Value x, int64_t at, const ReduceMode&) {
    *this = merge(*this, {x, static_cast<int32_t>(at)});
  }
  static __device__ IndexOfLargest merge(const IndexOfLargest& a, const IndexOfLargest& b) {
    const bool same = a.value == b.value || (isNan(a.value) && isNan(b.value));
    const bool above = b.value > a.value || (isNan(b.value) && !isNan(a.value));
    return above || (same && b.index < a.index) ? b : a;
  }
  __device__ IndexOfLargest fromLane(int lanes) const {
    return {__shfl_xor_sync(~0u, value, lanes), __shfl_xor_sync(~0u, index, lanes)};
  }
  __device__ int32_t result(const ReduceMode&) const { return index == INT32_MAX ? 0 : index; }
};

// The largest element and sum exp(x - largest), the exponentials in float32, their sum in float64.
struct LogSumExp {
  double sum;
  float largest;

  static __device__ LogSumExp identity() { return {0.0, -scalar::infinity()}; }

  // What is subtracted: the largest where it is finite. Infinite sums come out right with 0.
  static __device__ float shiftOf(float largest) {
    return scalar::abs(largest) == scalar::infinity() ? 0.0f : largest;
  }
  __device__ float shift() const { return shiftOf(largest); }

  // Takes `next` as the largest so far, which it must be.
  __device__ void raise(float next) {
    if (next == largest) return;
    // Nothing was summed below -inf, and 0 times an infinite factor would be NaN.
    sum = largest == -scalar::infinity()
              ? 0.0
              : sum * static_cast<double>(scalar::exp(shift() - shiftOf(next)));
    largest = next;
  }
  static __device__ float larger(float a, float b) {
    return isNan(a) ? a : isNan(b) ? b : scalar::max(a, b);
  }
  __device__ void add(float x, int64_t, const ReduceMode&) {
    raise(larger(largest, x));
    sum += static_cast<double>(scalar::exp(x - shift()));
  }
  static __device__ LogSumExp merge(LogSumExp a, LogSumExp b) {
    const float both = larger(a.largest, b.largest);
    a.raise(both);
    b.raise(both);
    return {a.sum + b.sum, both};
  }
  __device__ LogSumExp fromLane(int lanes) const {
    return {__shfl_xor_sync(~0u, sum, lanes), __shfl_xor_sync(~0u, largest, lanes)};
  }
  __device__ float result(const ReduceMode&) const {
    return shift() + scalar::log(static_cast<float>(sum));
  }
};

// Adds a vector whose elements are `stride` apart in the reduced axis.
template <class Accumulator, class Value, int kCount>
__device__ void addVector(Accumulator& total, const Value (&x)[kCount], int64_t index,
                          const ReduceMode& mode) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) total.add(x[i], index + i, mode);
}
// One rescaling for the whole vector.
template <int kCount>
__device__ void addVector(LogSumExp& total, const float (&x)[kCount], int64_t, const ReduceMode&) {
  float largest = total.largest;
#pragma unroll
  for (int i = 0; i < kCount; ++i) largest = LogSumExp::larger(largest, x[i]);
  total.raise(largest);
  const float shift = total.shift();
#pragma unroll
  for (int i = 0; i < kCount; ++i) total.sum += static_cast<double>(scalar::exp(x[i] - shift));
}

// The merged accumulators of a row of threads (cuda_block.h), in all of them.
template <class Accumulator>
__device__ Accumulator mergeRow(Accumulator total) {
#pragma unroll
  for (int lanes = kWarpThreads / 2; lanes > 0; lanes /= 2)
    total = Accumulator::merge(total, total.fromLane(lanes));
  return combineWarps(
      total, [](const Accumulator& a, const Accumulator& b) { return Accumulator::merge(a, b); });
}

// Adds the elements [0, count) of a row that starts at `x`, index `first` of the axis: those of
// this thread. Vectors where x is aligned.
template <class Accumulator, class T>
__device__ void addRow(Accumulator& total, const T* x, int64_t first, int64_t count,
                       const ReduceMode& mode) {
  constexpr int V = kVector<T>;
  const int64_t whole = isAligned<T, V>(x) ? count / V * V : 0;
  const int64_t step = int64_t{blockDim.x} * V;
#pragma unroll 2
  for (int64_t i = int64_t{threadIdx.x} * V; i < whole; i += step) {
    Packed<T, V> packed;
    packed.load(x + i);
    ValueOf<T> values[V];
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = valueOf(packed.get(v));
    addVector(total, values, first + i, mode);
  }
#pragma unroll 2
  for (int64_t i = whole + threadIdx.x; i < count; i += blockDim.x)
    total.add(valueOf(x[i]), first + i, mode);
}

// --- Columns ------------------------------------------------------------------------------------
// A block of x by y by z threads: x lanes side by side, each with V columns, y rows of the axis at
// a time, z slices. A lane's columns are a vector where rows start at vectors, else blockDim.x
// apart.

inline constexpr int kColumnThreads = 256;

struct ColumnBlock {
  dim3 threads;
  int64_t chunks;  // of columns, in a slice
  int64_t blocks;
};

template <class T>
ColumnBlock columnBlock(int64_t slices, int64_t axis, int64_t inner) {
  constexpr int64_t kMaxZ = 64;
  const auto powerFor = [](int64_t size, int64_t most) {
    int64_t power = 1;
    while (power < size && power < most) power *= 2;
    return power;
  };
  const int64_t x = powerFor((inner + kVector<T> - 1) / kVector<T>, kWarpThreads);
  const int64_t y = powerFor(axis, kColumnThreads / x);
  const int64_t room = kColumnThreads / (x * y);
  const int64_t z = room < kMaxZ ? room : kMaxZ;
  const int64_t width = x * kVector<T>;
  const int64_t chunks = (inner + width - 1) / width;
  return {dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)),
          chunks, (slices * chunks + z - 1) / z};
}

// This thread's columns of a chunk.
template <int V>
struct ColumnSet {
  int64_t first;
  int step;
  int count;    // of columns that there are
  bool vector;  // they are a whole, aligned vector

  __device__ ColumnSet(int64_t chunk, int64_t inner) {
    vector = inner % V == 0;
    const int64_t start = chunk * blockDim.x * V;
    first = start + static_cast<int64_t>(threadIdx.x) * (vector ? V : 1);
    step = vector ? 1 : static_cast<int>(blockDim.x);
    const int64_t left = first < inner ? (inner - first + step - 1) / step : 0;
    count = left < V ? static_cast<int>(left) : V;
    vector = vector && count == V;
  }
  __device__ int64_t column(int v) const { return first + int64_t{v} * step; }
};

// The columns' elements of one row; missing ones are zeros.
template <class T, int V>
__device__ void loadColumns(const T* row, const ColumnSet<V>& columns, ValueOf<T> (&x)[V]) {
  if (columns.vector) {
    Packed<T, V> packed;
    packed.load(row + columns.first);
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = valueOf(packed.get(v));
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v)
      x[v] = v < columns.count ? valueOf(row[columns.column(v)]) : ValueOf<T>{};
  }
}

// Merges over the block's y, by a tree; all of y get the result. Every thread of the block calls
// it.
template <class Accumulator>
__device__ Accumulator mergeColumn(const Accumulator& own) {
  if (blockDim.y == 1) return own;
  DIDR_SHARED(Accumulator, partials, kColumnThreads);
  const unsigned line = threadIdx.z * blockDim.y;
  Accumulator* const at = &partials[0] + (line + threadIdx.y) * blockDim.x + threadIdx.x;
  *at = own;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) *at = Accumulator::merge(*at, *(at + half * blockDim.x));
  }
  __syncthreads();
  const Accumulator total = partials[line * blockDim.x + threadIdx.x];
  __syncthreads();  // the next call writes `partials` again
  return total;
}

}  // namespace didr
