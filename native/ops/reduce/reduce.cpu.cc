// `reduce` on the CPU. Contract: reduce.h; the order and the parallel plan: columns.cpu.h.
//
// Reads x once (4 bytes per float32 element), with one widening, one addition or one comparison per
// element: bound by memory except for logSumExp.
#include "native/ops/reduce/reduce.h"

#include "native/core/op.h"
#include "native/core/simd.h"
#include "native/core/simd_math.h"
#include "native/ops/elementwise/lanes.h"
#include "native/ops/reduce/columns.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::I32;

struct FloatMin {
  using Value = float;
  static float identity() { return __builtin_inff(); }
  static F32 merge(F32 a, F32 b) { return simd::select(simd::isNan(a), a, simd::min(a, b)); }
};
struct IntMax {
  using Value = int32_t;
  static int32_t identity() { return INT32_MIN; }
  static I32 merge(I32 a, I32 b) { return simd::max(a, b); }
};
struct IntMin {
  using Value = int32_t;
  static int32_t identity() { return INT32_MAX; }
  static I32 merge(I32 a, I32 b) { return simd::min(a, b); }
};
struct IntSum {
  using Value = int32_t;
  static int32_t identity() { return 0; }
  static I32 merge(I32 a, I32 b) { return simd::asInt(simd::asBits(a) + simd::asBits(b)); }
};

DIDR_SIMD float leastOf(float) { return -__builtin_inff(); }
DIDR_SIMD int32_t leastOf(int32_t) { return INT32_MIN; }
DIDR_SIMD I32 isNan(F32 x) { return simd::isNan(x); }
DIDR_SIMD I32 isNan(I32) { return I32{}; }

// The largest value of each column and the first row that has it; a NaN is above everything.
template <class Value>
struct ArgMaxColumns {
  Value values[kColumnRoom];
  int32_t indices[kColumnRoom];

  template <class V>
  static I32 isAbove(V b, V a) {
    return (b > a) | (isNan(b) & ~isNan(a));
  }

  struct Strip {
    Value* values;
    int32_t* indices;
    const void* x;
    int64_t firstRow;

    template <int kVectors, class T>
    void add(const T* from, int64_t rowStride, int64_t rows, int64_t column, int lanes) const {
      using V = decltype(loadLanes(values));
      using simd::kLanes;
      const int64_t first = firstRow + (from - static_cast<const T*>(x)) / rowStride;
      V best[kVectors];
      I32 index[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        best[v] = loadLanes(values + column + v * kLanes);
        index[v] = simd::loadInts(indices + column + v * kLanes);
      }
      from += column;
      for (int64_t row = 0; row < rows; ++row, from += rowStride)
        for (int v = 0; v < kVectors; ++v) {
          const V next =
              lanes == kLanes ? loadLanes(from + v * kLanes) : loadLanesPartial(from, lanes);
          const I32 above = isAbove(next, best[v]);
          best[v] = simd::select(above, next, best[v]);
          index[v] =
              simd::select(above, simd::broadcast(static_cast<int32_t>(first + row)), index[v]);
        }
      for (int v = 0; v < kVectors; ++v) {
        storeColumns(values + column + v * kLanes, best[v], lanes);
        storeColumns(indices + column + v * kLanes, index[v], lanes);
      }
    }
  };

  template <class T>
  void addBlock(const Block<T>& block) {
    for (int64_t c = 0; c < block.width() + simd::kLanes; ++c) {
      values[c] = leastOf(Value{});
      indices[c] = static_cast<int32_t>(block.firstRow);
    }
    forEachStrip(block, Strip{values, indices, block.x, block.firstRow});
    // From rows to indices of the axis.
    for (int64_t group = 0; group < block.fold; ++group)
      for (int64_t c = group * block.columns; c < (group + 1) * block.columns; ++c)
        indices[c] = static_cast<int32_t>(indices[c] * block.fold + group);
    foldGroups(
        block.fold, block.columns,
        [this](int64_t to, int64_t from) { mergeVector(to, values + from, indices + from); },
        [this](int half) {
          auto best = loadLanes(values);
          I32 index = simd::loadInts(indices);
          for (; half >= 1; half /= 2)
            takeBetter(best, index, moveDown(best, half), moveDown(index, half));
          simd::storeBits(values, best);
          simd::storeInts(indices, index);
        });
  }
  void merge(const ArgMaxColumns& later, int64_t columns) {
    for (int64_t c = 0; c < columns; c += simd::kLanes)
      mergeVector(c, later.values + c, later.indices + c);
  }
  void mergeVector(int64_t to, const Value* otherValues, const int32_t* otherIndices) {
    auto best = loadLanes(values + to);
    I32 index = simd::loadInts(indices + to);
    takeBetter(best, index, loadLanes(otherValues), simd::loadInts(otherIndices));
    simd::storeBits(values + to, best);
    simd::storeInts(indices + to, index);
  }

  // Of equal values the one with the lower index.
  template <class V>
  static void takeBetter(V& best, I32& index, V other, I32 otherIndex) {
    const I32 same = (best == other) | (isNan(best) & isNan(other));
    const I32 takes = isAbove(other, best) | (same & (otherIndex < index));
    best = simd::select(takes, other, best);
    index = simd::select(takes, otherIndex, index);
  }
};

// Runs the reduction; resultOf(total, column) is the results of a vector of columns.
template <class Columns, class T, class Result, class ResultOf>
void reduceWith(const ReduceArgs& arguments, CpuContext& context, Result* y,
                const ResultOf& resultOf) {
  const Slices s(arguments.outer, arguments.axis, arguments.inner);
  forEachSlice<Columns>(s, static_cast<const T*>(arguments.x), context,
                        [&](const Slice& slice, const Columns& total) {
                          Result* to = y + slice.result;
                          const int64_t columns = slice.columns;
                          int64_t c = 0;
                          for (; c + simd::kLanes <= columns; c += simd::kLanes)
                            storeLanes<false>(to + c, resultOf(total, c));
                          if (c < columns)
                            storeLanesPartial(to + c, resultOf(total, c),
                                              static_cast<int>(columns - c));
                        });
}

template <class Columns, class T>
void reduceValues(const ReduceArgs& arguments, CpuContext& context) {
  reduceWith<Columns, T>(
      arguments, context, static_cast<T*>(arguments.y),
      [](const Columns& total, int64_t c) { return loadLanes(total.values + c); });
}

template <class Columns, class T>
void reduceSums(const ReduceArgs& arguments, CpuContext& context, double divisor) {
  reduceWith<Columns, T>(
      arguments, context, static_cast<T*>(arguments.y),
      [divisor](const Columns& total, int64_t c) { return total.quotients(c, divisor); });
}

template <class Value, class T>
void reduceArgMax(const ReduceArgs& arguments, CpuContext& context) {
  using Columns = ArgMaxColumns<Value>;
  reduceWith<Columns, T>(
      arguments, context, static_cast<int32_t*>(arguments.y),
      [](const Columns& total, int64_t c) { return simd::loadInts(total.indices + c); });
}

// Sums of slices so short that walking them as columns would cost several times the additions. As
// everywhere, float64 leaves nothing of the order in the float32 result.
constexpr int64_t kShortSlice = 16;

template <class T>
void sumShortSlices(const ReduceArgs& arguments, CpuContext& context) {
  const auto* x = static_cast<const T*>(arguments.x);
  T* y = static_cast<T*>(arguments.y);
  const int64_t axis = arguments.axis;
  const int64_t inner = arguments.inner;
  const bool squares = arguments.kind == Reduce::kSumSquares;
  const double divisor = arguments.kind == Reduce::kMean ? static_cast<double>(axis) : 1.0;
  context.pool.parallelFor(arguments.outer, kReduceGrain / kShortSlice,
                           [&](int64_t begin, int64_t end) {
                             for (int64_t o = begin; o < end; ++o)
                               for (int64_t i = 0; i < inner; ++i) {
                                 const T* from = x + o * axis * inner + i;
                                 double sum = 0;
                                 for (int64_t a = 0; a < axis; ++a) {
                                   const double value = toFloat(from[a * inner]);
                                   sum += squares ? value * value : value;
                                 }
                                 storeElement(y + o * inner + i, static_cast<float>(sum / divisor));
                               }
                           });
}

template <class T>
void reduceFloat(const ReduceArgs& arguments, CpuContext& context) {
  const bool sums = arguments.kind == Reduce::kSum || arguments.kind == Reduce::kMean ||
                    arguments.kind == Reduce::kSumSquares;
  if (sums && arguments.axis * arguments.inner <= kShortSlice)
    return sumShortSlices<T>(arguments, context);
  switch (arguments.kind) {
    case Reduce::kSum:
      return reduceSums<SumColumns<PlainTerm>, T>(arguments, context, 1);
    case Reduce::kMean:
      return reduceSums<SumColumns<PlainTerm>, T>(arguments, context,
                                                  static_cast<double>(arguments.axis));
    case Reduce::kSumSquares:
      return reduceSums<SumColumns<SquareTerm>, T>(arguments, context, 1);
    case Reduce::kMax:
      return reduceValues<MergedColumns<FloatMax>, T>(arguments, context);
    case Reduce::kMin:
      return reduceValues<MergedColumns<FloatMin>, T>(arguments, context);
    case Reduce::kArgMax:
      return reduceArgMax<float, T>(arguments, context);
    case Reduce::kLogSumExp:
      return reduceWith<LogSumExpColumns, T>(arguments, context, static_cast<T*>(arguments.y),
                                             [](const LogSumExpColumns& total, int64_t c) {
                                               return total.shift(c) + simd::log(total.sum(c));
                                             });
  }
}

void reduceInt(const ReduceArgs& arguments, CpuContext& context) {
  switch (arguments.kind) {
    case Reduce::kSum:
      return reduceValues<MergedColumns<IntSum>, int32_t>(arguments, context);
    case Reduce::kMax:
      return reduceValues<MergedColumns<IntMax>, int32_t>(arguments, context);
    case Reduce::kMin:
      return reduceValues<MergedColumns<IntMin>, int32_t>(arguments, context);
    case Reduce::kArgMax:
      return reduceArgMax<int32_t, int32_t>(arguments, context);
    default:
      return;
  }
}

}  // namespace

void reduceCpu(const ReduceArgs& arguments, CpuContext& context) {
  if (arguments.outer * arguments.inner == 0) return;
  switch (arguments.dtype) {
    case DType::kFloat32:
      return reduceFloat<float>(arguments, context);
    case DType::kBFloat16:
      return reduceFloat<BFloat16>(arguments, context);
    case DType::kInt32:
      return reduceInt(arguments, context);
    case DType::kFloat16:
    case DType::kUint8:
      return;
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
