// Reduction along the middle axis of [outer, axis, inner], in an order that the shape alone fixes.
//
// The axis is walked as rows of columns. Where inner is narrow, `fold` neighbouring indices of the
// axis are read as one row of fold * inner columns, so that a row fills vectors (for inner = 1 these
// are the logical lanes), and the columns of one inner index are merged by a tree at the end. Where
// inner is wide, it is cut into chunks of columns that accumulate in the first cache. The rows of a
// chunk form blocks that fit the second cache, and consecutive blocks form at most kSections
// sections. Columns never mix within a block; blocks merge in order into their section, sections in
// order into the result. Threads take whole (outer, chunk) slices, or sections where there are
// fewer slices than threads: the same merges happen either way.
//
// What is accumulated is a Columns type:
//   void addBlock(block)                reduces one block to one value per column of the chunk
//   void merge(later, columns)          appends what a later block gave
#pragma once

#include <cstdlib>

#include "native/core/op.h"
#include "native/core/simd.h"
#include "native/core/simd_double.h"
#include "native/core/simd_math.h"
#include "native/ops/elementwise/lanes.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

constexpr int64_t kFoldWidth = 64;
constexpr int64_t kChunk = 1024;
constexpr int64_t kBlockElements = 65536;
constexpr int64_t kSections = 256;
// Elements worth a thread.
constexpr int64_t kReduceGrain = 65536;

inline int64_t atLeastOne(int64_t x) { return x > 1 ? x : 1; }
inline int64_t atMost(int64_t x, int64_t limit) { return x < limit ? x : limit; }
inline int64_t ceilDivide(int64_t x, int64_t y) { return (x + y - 1) / y; }

inline void storeElement(float* p, float x) { *p = x; }
inline void storeElement(BFloat16* p, float x) { *p = toBFloat16(x); }

struct Slices {
  int64_t outer, axis, inner;
  int64_t fold;    // indices of the axis per row
  int64_t rows;    // whole rows
  int64_t chunks;  // per outer index
  int64_t rowsPerBlock;
  int64_t sections;  // per slice
  int64_t rowsPerSection;

  Slices(int64_t outerIn, int64_t axisIn, int64_t innerIn)
      : outer(outerIn), axis(axisIn), inner(innerIn), fold(1) {
    while (fold * inner < kFoldWidth && fold * 2 <= axis) fold *= 2;
    rows = axis / fold;
    chunks = ceilDivide(inner, kChunk);
    rowsPerBlock = atLeastOne(kBlockElements / (fold * atMost(inner, kChunk)));
    const int64_t blocks = atLeastOne(ceilDivide(rows, rowsPerBlock));
    rowsPerSection = ceilDivide(blocks, kSections) * rowsPerBlock;
    sections = atLeastOne(ceilDivide(rows, rowsPerSection));
  }

  int64_t slices() const { return outer * chunks; }
  int64_t rowStride() const { return fold * inner; }
};

// One chunk of columns of one outer index.
struct Slice {
  int64_t offset;  // of its first element in x
  int64_t result;  // of its first element in y
  int64_t columns;

  Slice(const Slices& s, int64_t number) {
    // Most often there is one chunk, and a division costs as much as a short slice.
    const int64_t o = s.chunks == 1 ? number : number / s.chunks;
    const int64_t first = (number - o * s.chunks) * kChunk;
    offset = o * s.axis * s.inner + first;
    result = o * s.inner + first;
    columns = atMost(s.inner - first, kChunk);
  }
};

// The rows of one section, and the incomplete row that ends the last one.
struct SectionRows {
  int64_t begin, end, tail;

  SectionRows(const Slices& s, int64_t section) {
    begin = section * s.rowsPerSection;
    end = atMost(begin + s.rowsPerSection, s.rows);
    tail = section == s.sections - 1 ? (s.axis - s.rows * s.fold) * s.inner : 0;
  }
};

// Rows of one chunk, and the elements of an incomplete row after them.
template <class T>
struct Block {
  const T* x;
  int64_t rowStride;
  int64_t rows;
  int64_t tail;
  int64_t fold;
  int64_t columns;
  int64_t firstRow;

  int64_t width() const { return fold * columns; }
};

template <class Columns, class T>
void addSection(Columns& total, const Slices& s, const T* x, const Slice& slice, int64_t section) {
  const SectionRows rows(s, section);
  const int64_t columns = slice.columns;
  const T* from = x + slice.offset;
  Columns part;
  int64_t begin = rows.begin;
  do {
    const int64_t end = atMost(begin + s.rowsPerBlock, rows.end);
    const Block<T> block{from + begin * s.rowStride(),
                         s.rowStride(),
                         end - begin,
                         end == rows.end ? rows.tail : 0,
                         s.fold,
                         columns,
                         begin};
    if (begin == rows.begin) {
      total.addBlock(block);
    } else {
      part.addBlock(block);
      total.merge(part, columns);
    }
    begin = end;
  } while (begin < rows.end);
}

// Calls finish(slice, total) with the complete accumulator of every slice.
template <class Columns, class T, class Finish>
void forEachSlice(const Slices& s, const T* x, CpuContext& context, const Finish& finish) {
  const int64_t slices = s.slices();
  const bool splits =
      context.pool.threads() > 1 && s.sections > 1 && slices < 2 * context.pool.threads();
  auto* partials = splits ? static_cast<Columns*>(std::malloc(
                                static_cast<size_t>(slices * s.sections) * sizeof(Columns)))
                          : nullptr;
  if (partials == nullptr) {
    const int64_t sliceElements = s.axis * atMost(s.inner, kChunk);
    const int64_t grain = atLeastOne(kReduceGrain / atLeastOne(sliceElements));
    context.pool.parallelFor(slices, grain, [&](int64_t begin, int64_t end) {
      Columns total, part;
      for (int64_t number = begin; number < end; ++number) {
        const Slice slice(s, number);
        addSection(total, s, x, slice, 0);
        for (int64_t section = 1; section < s.sections; ++section) {
          addSection(part, s, x, slice, section);
          total.merge(part, slice.columns);
        }
        finish(slice, total);
      }
    });
    return;
  }
  context.pool.parallelFor(slices * s.sections, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      addSection(partials[i], s, x, Slice(s, i / s.sections), i % s.sections);
  });
  for (int64_t number = 0; number < slices; ++number) {
    const Slice slice(s, number);
    Columns* of = partials + number * s.sections;
    for (int64_t section = 1; section < s.sections; ++section)
      of[0].merge(of[section], slice.columns);
    finish(slice, of[0]);
  }
  std::free(partials);
}

// Accumulator arrays have room for a whole vector past the last column.
constexpr int64_t kColumnRoom = kChunk + simd::kLanes;

// Stores the first `lanes` lanes of an accumulator: the others stand for columns that had no
// element, and keep what they had.
template <class Value, class V>
DIDR_SIMD void storeColumns(Value* at, const V& v, int lanes) {
  constexpr int kWhole = static_cast<int>(sizeof(V) / sizeof(Value));
  if (lanes >= kWhole)
    simd::storeBits(at, v);
  else if (lanes > 0)
    memcpy(at, &v, static_cast<size_t>(lanes) * sizeof(Value));
}

// Calls strip.add<vectors>(x, rowStride, rows, column, lanes) so that every column of every row is
// visited once, the rows of a column in order. The rows are taken in tiles that stay in the first
// cache while strip after strip goes down them with its accumulators in registers.
template <class T, class Strip>
void forEachStrip(const Block<T>& block, const Strip& strip) {
  using simd::kLanes;
  constexpr int64_t kWide = 4 * kLanes;
  const auto tile = [&](const T* x, int64_t rows, int64_t width) {
    int64_t column = 0;
    for (; column + kWide <= width; column += kWide)
      strip.template add<4>(x, block.rowStride, rows, column, kLanes);
    for (; column + kLanes <= width; column += kLanes)
      strip.template add<1>(x, block.rowStride, rows, column, kLanes);
    if (column < width)
      strip.template add<1>(x, block.rowStride, rows, column, static_cast<int>(width - column));
  };
  const int64_t width = block.width();
  const int64_t tileRows = 4096 / width > 8 ? 4096 / width : 8;
  for (int64_t row = 0; row < block.rows; row += tileRows)
    tile(block.x + row * block.rowStride, atMost(tileRows, block.rows - row), width);
  if (block.tail > 0) tile(block.x + block.rows * block.rowStride, 1, block.tail);
}

// Lane i + count in lane i.
DIDR_SIMD simd::F32 moveDown(simd::F32 x, int count) {
  return __builtin_shuffle(x, simd::laneIndex() + count);
}
DIDR_SIMD simd::I32 moveDown(simd::I32 x, int count) {
  return __builtin_shuffle(x, simd::laneIndex() + count);
}
DIDR_SIMD simd::F64 moveDown(simd::F64 x, int count) {
  typedef int64_t I64 __attribute__((vector_size(simd::kVectorBytes)));
  I64 lanes;
  for (int i = 0; i < simd::kLanes / 2; ++i) lanes[i] = i + count;
  return __builtin_shuffle(x, lanes);
}

// Merges columns [half, 2 half) into [0, half) until one group of `inner` columns is left.
// mergeColumns(to, from) does so for a vector of columns; mergeLanes(half) merges the lanes
// [half, 2 half) of the first vector into its first ones, and so on down to one lane: the last
// steps of a single column would wait for each other's stores.
template <class MergeColumns, class MergeLanes>
void foldGroups(int64_t fold, int64_t inner, const MergeColumns& mergeColumns,
                const MergeLanes& mergeLanes) {
  for (int64_t half = fold / 2 * inner; half >= inner; half /= 2) {
    if (inner == 1 && half < simd::kLanes) return mergeLanes(static_cast<int>(half));
    for (int64_t c = 0; c < half; c += simd::kLanes) mergeColumns(c, c + half);
  }
}

// Copies the first group of columns over all of a row, and fills the room past it.
inline void repeatColumns(float* values, int64_t columns, int64_t width) {
  for (int64_t done = columns; done < width; done *= 2)
    memcpy(values + done, values, static_cast<size_t>(done) * sizeof(float));
  for (int64_t c = width; c < width + simd::kLanes; ++c) values[c] = 0;
}

// Sums of terms in float64, of which term(x, column, low, high) adds those of one vector: 53 bits
// leave nothing of a sum's order in its float32 result.
template <class Term>
struct SumStrip {
  double* sums;
  Term term;

  template <int kVectors, class T>
  void add(const T* x, int64_t rowStride, int64_t rows, int64_t column, int lanes) const {
    using simd::F64;
    using simd::kLanes;
    F64 low[kVectors], high[kVectors];
    double* at = sums + column;
    for (int v = 0; v < kVectors; ++v) {
      low[v] = simd::loadBits<F64>(at + v * kLanes);
      high[v] = simd::loadBits<F64>(at + v * kLanes + kLanes / 2);
    }
    x += column;
    for (int64_t row = 0; row < rows; ++row, x += rowStride)
      for (int v = 0; v < kVectors; ++v) {
        const simd::F32 elements =
            lanes == kLanes ? simd::load(x + v * kLanes) : simd::loadPartial(x, lanes);
        term(elements, column + v * kLanes, low[v], high[v]);
      }
    for (int v = 0; v < kVectors; ++v) {
      storeColumns(at + v * kLanes, low[v], lanes);
      storeColumns(at + v * kLanes + kLanes / 2, high[v], lanes - kLanes / 2);
    }
  }
};

struct DoubleSums {
  double values[kColumnRoom];

  template <class T, class Term>
  void addBlock(const Block<T>& block, const Term& term) {
    for (int64_t c = 0; c < block.width() + simd::kLanes; ++c) values[c] = 0;
    forEachStrip(block, SumStrip<Term>{values, term});
    foldGroups(
        block.fold, block.columns,
        [this](int64_t to, int64_t from) {
          for (int part = 0; part < simd::kLanes; part += simd::kLanes / 2)
            simd::storeBits(values + to + part, load(to + part) + load(from + part));
        },
        [this](int half) {
          simd::F64 sums = load(0);
          if (half == simd::kLanes / 2) {
            sums += load(half);
            half /= 2;
          }
          for (; half >= 1; half /= 2) sums += moveDown(sums, half);
          simd::storeBits(values, sums);
        });
  }
  void merge(const DoubleSums& later, int64_t columns) {
    for (int64_t c = 0; c < columns; ++c) values[c] += later.values[c];
  }

  // Sums over `divisor`, rounded once.
  simd::F32 quotients(int64_t column, double divisor) const {
    simd::F64 low = load(column);
    simd::F64 high = load(column + simd::kLanes / 2);
    if (divisor != 1) {
      low /= divisor;
      high /= divisor;
    }
    return simd::narrow(low, high);
  }

  simd::F64 load(int64_t column) const { return simd::loadBits<simd::F64>(values + column); }
};

struct PlainTerm {
  void operator()(simd::F32 x, int64_t, simd::F64& low, simd::F64& high) const {
    low += simd::widenLow(x);
    high += simd::widenHigh(x);
  }
};
// The square of a float is exact in float64.
struct SquareTerm {
  void operator()(simd::F32 x, int64_t, simd::F64& low, simd::F64& high) const {
    const simd::F64 a = simd::widenLow(x);
    const simd::F64 b = simd::widenHigh(x);
    low += a * a;
    high += b * b;
  }
};

template <class Term>
struct SumColumns : DoubleSums {
  template <class T>
  void addBlock(const Block<T>& block) {
    DoubleSums::addBlock(block, Term());
  }
};

// Columns of one value per lane, merged by Merge::merge(earlier, later) from Merge::identity().
template <class Merge>
struct MergedColumns {
  using Value = typename Merge::Value;  // float or int32_t
  Value values[kColumnRoom];

  struct Strip {
    Value* values;

    template <int kVectors, class T>
    void add(const T* x, int64_t rowStride, int64_t rows, int64_t column, int lanes) const {
      using V = decltype(loadLanes(values));
      using simd::kLanes;
      V merged[kVectors];
      Value* at = values + column;
      for (int v = 0; v < kVectors; ++v) merged[v] = loadLanes(at + v * kLanes);
      x += column;
      for (int64_t row = 0; row < rows; ++row, x += rowStride)
        for (int v = 0; v < kVectors; ++v)
          merged[v] = Merge::merge(
              merged[v], lanes == kLanes ? loadLanes(x + v * kLanes) : loadLanesPartial(x, lanes));
      for (int v = 0; v < kVectors; ++v) storeColumns(at + v * kLanes, merged[v], lanes);
    }
  };

  template <class T>
  void addBlock(const Block<T>& block) {
    for (int64_t c = 0; c < block.width() + simd::kLanes; ++c) values[c] = Merge::identity();
    forEachStrip(block, Strip{values});
    foldGroups(
        block.fold, block.columns,
        [this](int64_t to, int64_t from) { mergeVector(to, values + from); },
        [this](int half) {
          auto merged = loadLanes(values);
          for (; half >= 1; half /= 2) merged = Merge::merge(merged, moveDown(merged, half));
          simd::storeBits(values, merged);
        });
  }
  void merge(const MergedColumns& later, int64_t columns) {
    for (int64_t c = 0; c < columns; c += simd::kLanes) mergeVector(c, later.values + c);
  }
  void mergeVector(int64_t to, const Value* later) {
    simd::storeBits(values + to, Merge::merge(loadLanes(values + to), loadLanes(later)));
  }
};

struct FloatMax {
  using Value = float;
  static float identity() { return -__builtin_inff(); }
  static simd::F32 merge(simd::F32 a, simd::F32 b) {
    return simd::select(simd::isNan(a), a, simd::max(a, b));
  }
};

// max and sum exp(x - max) of each column. The maximum of a block is found first, the block is
// still in the cache when its exponentials are summed.
struct LogSumExpColumns {
  MergedColumns<FloatMax> largest;
  DoubleSums sums;

  // What is subtracted: the maximum where it is finite. Infinite sums come out right with 0.
  static simd::F32 shiftOf(simd::F32 largest) {
    return simd::select(simd::abs(largest) == simd::broadcast(__builtin_inff()), simd::zero(),
                        largest);
  }

  struct ExpTerm {
    const float* shifts;
    void operator()(simd::F32 x, int64_t column, simd::F64& low, simd::F64& high) const {
      const simd::F32 e = simd::exp(x - simd::load(shifts + column));
      low += simd::widenLow(e);
      high += simd::widenHigh(e);
    }
  };

  template <class T>
  void addBlock(const Block<T>& block) {
    largest.addBlock(block);
    float shifts[kColumnRoom];
    for (int64_t c = 0; c < block.columns; c += simd::kLanes)
      simd::store(shifts + c, shiftOf(simd::load(largest.values + c)));
    repeatColumns(shifts, block.columns, block.width());
    sums.addBlock(block, ExpTerm{shifts});
  }

  void merge(const LogSumExpColumns& later, int64_t columns) {
    using namespace simd;
    for (int64_t c = 0; c < columns; c += kLanes) {
      const F32 a = load(largest.values + c);
      const F32 b = load(later.largest.values + c);
      const F32 both = FloatMax::merge(a, b);
      const F32 shift = shiftOf(both);
      // Nothing was summed below -inf, and 0 times an infinite factor would be NaN.
      const F32 nothing = broadcast(-__builtin_inff());
      const F32 scaleA = select(a == nothing, zero(), exp(shiftOf(a) - shift));
      const F32 scaleB = select(b == nothing, zero(), exp(shiftOf(b) - shift));
      for (int half = 0; half < kLanes; half += kLanes / 2) {
        const F64 sumA = loadBits<F64>(sums.values + c + half);
        const F64 sumB = loadBits<F64>(later.sums.values + c + half);
        storeBits(sums.values + c + half,
                  sumA * (half == 0 ? widenLow(scaleA) : widenHigh(scaleA)) +
                      sumB * (half == 0 ? widenLow(scaleB) : widenHigh(scaleB)));
      }
      store(largest.values + c, both);
    }
  }

  simd::F32 shift(int64_t column) const { return shiftOf(simd::load(largest.values + column)); }
  simd::F32 sum(int64_t column) const { return sums.quotients(column, 1); }
};

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
