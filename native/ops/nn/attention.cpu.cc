// Attention on the CPU, see attention.h for the maths and shapes.
//
// Forward: parallel over (sample, head, kQueryChunk queries). A chunk walks over blocks of
// kKeyBlock keys with the online softmax (Milakov and Gimelshein, "Online normalizer calculation
// for softmax", arXiv 1805.02867): per row it keeps the largest score so far, the sum of
// exponentials and an unnormalised output, which are rescaled when the maximum grows. Sequences of
// up to kKeyBlock keys are one block and never rescale.
// Backward: parallel over (sample, head). Key blocks outside, query blocks inside: scores are
// recomputed per pair of blocks, dk and dv of the key block accumulate in the first cache, dq in
// scratch.
// Heads are gathered from [tokens, heads, size] into contiguous scratch as they are used (scale
// folded into q), k transposed where keys have to lie along vectors, so that all products are
// register tiles on contiguous rows. Scratch rows and columns past the real ones are zero.
// Work: 2 and 5 multiply-adds per query, key and head element, and one exponential per score each
// way. Bytes: every operand once, k and v again for every further kQueryChunk queries.
#include "native/ops/nn/attention.h"

#include "native/core/op.h"
#include "native/core/refuse.h"
#include "native/core/simd_math.h"
#include "native/ops/nn/scratch.cpu.h"
#include "native/ops/nn/tiles.cpu.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::broadcast;
using simd::F32;
using simd::kLanes;
using simd::LaneSum;

constexpr int64_t kQueryChunk = 256;
constexpr int64_t kQueryBlock = 64;
constexpr int64_t kKeyBlock = 96;  // whole tiles at every level
constexpr const char* kStarved = "no memory for scratch";

DIDR_SIMD float minusInfinity() { return -__builtin_inff(); }

// [begin, end) of block `index` when `count` items are cut into blocks of nearly equal size,
// multiples of kRowMultiple and at most `most`.
struct Span {
  int64_t begin, end;

  int64_t count() const { return end - begin; }
  static int64_t blocks(int64_t count, int64_t most) { return (count + most - 1) / most; }
  static Span of(int64_t index, int64_t count, int64_t most) {
    const int64_t number = blocks(count, most);
    const int64_t size = roundUp((count + number - 1) / number, kRowMultiple);
    const int64_t begin = index * size < count ? index * size : count;
    return {begin, begin + size < count ? begin + size : count};
  }
};

// One head of a [tokens, heads, size] tensor.
template <class T>
struct Head {
  T* data;
  int64_t stride;  // between tokens
  int64_t size;

  T* row(int64_t token) const { return data + token * stride; }
};
template <class T>
DIDR_SIMD Head<T> headOf(T* tensor, int64_t sample, int64_t head, int64_t tokens, int64_t heads,
                         int64_t size) {
  return {tensor + (sample * tokens * heads + head) * size, heads * size, size};
}

// Rows of a head times `factor` to rows of `width` floats, zeros in columns from `size` and in rows
// up to a multiple of kRowMultiple.
template <class T>
void gather(Head<const T> from, Span rows, float factor, float* to, int64_t width) {
  for (int64_t row = rows.begin; row < rows.end; ++row, to += width) {
    const T* x = from.row(row);
    forEachVector(0, from.size, [&](int64_t i, auto extent) {
      simd::store(to + i, load(x + i, extent) * factor);
    });
    for (int64_t i = roundUp(from.size, kLanes); i < width; i += kLanes)
      simd::store(to + i, simd::zero());
  }
  clear(to, (roundUp(rows.count(), kRowMultiple) - rows.count()) * width);
}

// The same rows as columns: to[i, row], rows of kKeyBlock floats, zeros past the last column up to
// a whole vector.
template <class T>
void gatherTransposed(Head<const T> from, Span rows, float* to) {
  const int64_t count = rows.count();
  const int64_t columns = roundUp(count, kLanes);
  for (int64_t column = 0; column < columns; column += 4) {
    const int64_t here = count - column < 4 ? count - column : 4;
    forEachVector(0, from.size, [&](int64_t i, auto extent) {
      F32 quad[4];
      for (int64_t r = 0; r < 4; ++r)
        quad[r] = r < here ? load(from.row(rows.begin + column + r) + i, extent) : simd::zero();
      simd::transposeQuads(quad[0], quad[1], quad[2], quad[3]);
      // Lanes 4g to 4g + 3 of quad[j] are now elements i + 4g + j of the four tokens.
      for (int64_t g = 0; g < kLanes / 4; ++g)
        for (int64_t j = 0; j < 4; ++j)
          if (__is_same(decltype(extent), Whole) || i + 4 * g + j < from.size)
            memcpy(to + (i + 4 * g + j) * kKeyBlock + column,
                   reinterpret_cast<const float*>(&quad[j]) + 4 * g, 4 * sizeof(float));
    });
  }
}

// 0 where a key of the block takes part, -inf where it is masked or past the end; up to whole
// vectors.
void biasOf(const uint8_t* mask, Span keys, float* bias) {
  for (int64_t i = 0; i < roundUp(keys.count(), kLanes); ++i)
    bias[i] =
        i < keys.count() && (mask == nullptr || mask[keys.begin + i] != 0) ? 0.0f : minusInfinity();
}

DIDR_SIMD float largestLane(F32 x) {
  float lanes[kLanes];
  simd::store(lanes, x);
  for (int half = kLanes / 2; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i)
      lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}

// A row's softmax so far.
struct RowState {
  float largest, sum;
};

// Scores to exponentials relative to the new maximum, the sum updated and the row's output
// rescaled.
DIDR_SIMD RowState absorbRow(float* scores, const float* bias, int64_t columns, RowState state,
                             float* output, int64_t width) {
  F32 lanes = broadcast(state.largest);
  for (int64_t i = 0; i < columns; i += kLanes) {
    const F32 s = simd::load(scores + i) + simd::load(bias + i);
    simd::store(scores + i, s);
    lanes = simd::max(lanes, s);
  }
  const float largest = largestLane(lanes);
  // While all keys are masked the shift is 0: exp(-inf - 0) is the zero that exp(-inf + inf) is
  // not.
  const F32 shift = broadcast(largest == minusInfinity() ? 0.0f : largest);
  LaneSum sum;
  for (int64_t i = 0; i < columns; i += kLanes) {
    const F32 p = simd::exp(simd::load(scores + i) - shift);
    simd::store(scores + i, p);
    sum.parts[i / kLanes % simd::kLaneVectors] += p;
  }
  if (state.sum != 0.0f && largest != state.largest) {
    const F32 factor = simd::exp(broadcast(state.largest) - shift);
    for (int64_t i = 0; i < width; i += kLanes)
      simd::store(output + i, simd::load(output + i) * factor);
    state.sum *= factor[0];
  }
  return {largest, state.sum + sum.total()};
}

template <class T>
bool forwardChunk(const AttentionArgs& arguments, int64_t sample, int64_t headIndex, Span chunk) {
  const int64_t size = arguments.size;
  const int64_t width = roundUp(size, kLanes);
  const int64_t rows = roundUp(chunk.count(), kRowMultiple);
  float* q = threadScratch.floats(2 * rows * width + 2 * kKeyBlock * width +
                                  (kQueryBlock + 1) * kKeyBlock + 2 * kQueryChunk);
  if (q == nullptr) return false;
  float* output = q + rows * width;
  float* keysAcross = output + rows * width;
  float* values = keysAcross + kKeyBlock * width;
  float* scores = values + kKeyBlock * width;
  float* bias = scores + kQueryBlock * kKeyBlock;
  float* largest = bias + kKeyBlock;
  float* sums = largest + kQueryChunk;

  const auto head = [&](const void* tensor, int64_t tokens) {
    return headOf(static_cast<const T*>(tensor), sample, headIndex, tokens, arguments.heads, size);
  };
  const auto headK = head(arguments.k, arguments.keys);
  const auto headV = head(arguments.v, arguments.keys);
  const uint8_t* mask =
      arguments.mask == nullptr ? nullptr : arguments.mask + sample * arguments.keys;
  gather(head(arguments.q, arguments.queries), chunk, arguments.scale, q, width);
  clear(output, rows * width);
  for (int64_t i = 0; i < rows; ++i) {
    largest[i] = minusInfinity();
    sums[i] = 0;
  }
  const int64_t queryBlocks = Span::blocks(chunk.count(), kQueryBlock);
  for (int64_t keyBlock = 0; keyBlock < Span::blocks(arguments.keys, kKeyBlock); ++keyBlock) {
    const int64_t firstKey = keyBlock * kKeyBlock;
    const int64_t left = arguments.keys - firstKey;
    const Span keys{firstKey, firstKey + (left < kKeyBlock ? left : kKeyBlock)};
    const int64_t columns = roundUp(keys.count(), kLanes);
    gatherTransposed(headK, keys, keysAcross);
    gather(headV, keys, 1.0f, values, width);
    biasOf(mask, keys, bias);
    for (int64_t queryBlock = 0; queryBlock < queryBlocks; ++queryBlock) {
      const Span queries = Span::of(queryBlock, chunk.count(), kQueryBlock);
      const int64_t here = roundUp(queries.count(), kRowMultiple);
      float* outputs = output + queries.begin * width;
      product<Left::kRows>(q + queries.begin * width, width, keysAcross, kKeyBlock, scores,
                           kKeyBlock, here, columns, Depth{size}, false);
      for (int64_t i = 0; i < queries.count(); ++i) {
        const int64_t row = queries.begin + i;
        const RowState state = absorbRow(scores + i * kKeyBlock, bias, columns,
                                         {largest[row], sums[row]}, outputs + i * width, width);
        largest[row] = state.largest;
        sums[row] = state.sum;
      }
      product<Left::kRows>(scores, kKeyBlock, values, width, outputs, width, here, width,
                           Depth{keys.count()}, true);
    }
  }
  const Head<T> headY = headOf(static_cast<T*>(arguments.y), sample, headIndex, arguments.queries,
                               arguments.heads, size);
  for (int64_t i = 0; i < chunk.count(); ++i) {
    // A sum of zero is that of a row whose keys are all absent; a NaN stays.
    const F32 factor = broadcast(sums[i] == 0.0f ? 0.0f : 1.0f / sums[i]);
    T* y = headY.row(chunk.begin + i);
    forEachVector(0, size, [&](int64_t c, auto extent) {
      store(y + c, load(output + i * width + c, extent) * factor, extent);
    });
  }
  float* logSumExp = arguments.logSumExp +
                     (sample * arguments.heads + headIndex) * arguments.queries + chunk.begin;
  forEachVector(0, chunk.count(), [&](int64_t i, auto extent) {
    store(logSumExp + i, load(largest + i, extent) + simd::log(load(sums + i, extent)), extent);
  });
  return true;
}

template <class T>
void forwardAs(const AttentionArgs& arguments, CpuContext& context) {
  const int64_t chunks = Span::blocks(arguments.queries, kQueryChunk);
  bool starved = false;
  context.pool.parallelFor(
      arguments.batch * arguments.heads * chunks,
      rowGrain(kQueryBlock +
               arguments.queries * arguments.keys * arguments.size / (16 * (chunks + 1))),
      [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          const int64_t pair = item / chunks;
          if (!forwardChunk<T>(arguments, pair / arguments.heads, pair % arguments.heads,
                               Span::of(item % chunks, arguments.queries, kQueryChunk)))
            __atomic_store_n(&starved, true, __ATOMIC_RELAXED);
        }
      });
  if (starved) refuse(context, Code::kOutOfMemory, kStarved);
}

// scores -> P = exp(scores - logSumExp), dP -> dS = P (dP - delta), one row.
DIDR_SIMD void differentiateRow(float* scores, float* dScores, const float* bias, int64_t columns,
                                float logSumExp, float delta) {
  // A row without keys has -inf: all its scores are -inf, and any finite shift makes them zeros.
  const F32 shift = broadcast(logSumExp == minusInfinity() ? 0.0f : logSumExp);
  for (int64_t i = 0; i < columns; i += kLanes) {
    const F32 p = simd::exp(simd::load(scores + i) + simd::load(bias + i) - shift);
    simd::store(scores + i, p);
    simd::store(dScores + i, p * (simd::load(dScores + i) - delta));
  }
}

// rowsum(dy y)
template <class T>
DIDR_SIMD float dotOf(const T* y, const T* dy, int64_t size) {
  LaneSum sum;
  forEachLaneVector(size, [&](int64_t i, int part, auto extent) {
    sum.parts[part] = simd::fma(load(y + i, extent), load(dy + i, extent), sum.parts[part]);
  });
  return sum.total();
}

// Rows of scratch times `factor` to a head.
template <class T>
void scatter(const float* from, int64_t width, Span rows, float factor, Head<T> to) {
  for (int64_t row = rows.begin; row < rows.end; ++row, from += width) {
    T* y = to.row(row);
    forEachVector(0, to.size, [&](int64_t i, auto extent) {
      store(y + i, load(from + i, extent) * factor, extent);
    });
  }
}

template <class T>
bool backwardHead(const AttentionBackwardArgs& arguments, int64_t sample, int64_t headIndex) {
  const int64_t size = arguments.size;
  const int64_t width = roundUp(size, kLanes);
  const int64_t queries = arguments.queries;
  const int64_t rows = roundUp(queries, kRowMultiple);
  float* q = threadScratch.floats(3 * rows * width + 6 * kKeyBlock * width +
                                  (2 * kQueryBlock + 1) * kKeyBlock + rows);
  if (q == nullptr) return false;
  float* dy = q + rows * width;
  float* dq = dy + rows * width;
  float* keysAcross = dq + rows * width;
  float* valuesAcross = keysAcross + kKeyBlock * width;
  float* keysDown = valuesAcross + kKeyBlock * width;
  float* dk = keysDown + kKeyBlock * width;
  float* dv = dk + kKeyBlock * width;
  float* scores = dv + kKeyBlock * width;
  float* dScores = scores + kQueryBlock * kKeyBlock;
  float* bias = dScores + kQueryBlock * kKeyBlock;
  float* delta = bias + kKeyBlock;

  const auto head = [&](const void* tensor, int64_t tokens) {
    return headOf(static_cast<const T*>(tensor), sample, headIndex, tokens, arguments.heads, size);
  };
  const auto headOut = [&](void* tensor, int64_t tokens) {
    return headOf(static_cast<T*>(tensor), sample, headIndex, tokens, arguments.heads, size);
  };
  const auto headK = head(arguments.k, arguments.keys);
  const auto headV = head(arguments.v, arguments.keys);
  const auto headY = head(arguments.y, queries);
  const auto headDy = head(arguments.dy, queries);
  const uint8_t* mask =
      arguments.mask == nullptr ? nullptr : arguments.mask + sample * arguments.keys;
  const float* logSumExp = arguments.logSumExp + (sample * arguments.heads + headIndex) * queries;
  const Span all{0, queries};
  gather(head(arguments.q, queries), all, arguments.scale, q, width);
  gather(headDy, all, 1.0f, dy, width);
  clear(dq, rows * width);
  for (int64_t i = 0; i < queries; ++i) delta[i] = dotOf(headY.row(i), headDy.row(i), size);

  const int64_t queryBlocks = Span::blocks(queries, kQueryBlock);
  for (int64_t keyBlock = 0; keyBlock < Span::blocks(arguments.keys, kKeyBlock); ++keyBlock) {
    const int64_t firstKey = keyBlock * kKeyBlock;
    const int64_t left = arguments.keys - firstKey;
    const Span keys{firstKey, firstKey + (left < kKeyBlock ? left : kKeyBlock)};
    const int64_t columns = roundUp(keys.count(), kLanes);
    const int64_t keyRows = roundUp(keys.count(), kRowMultiple);
    gatherTransposed(headK, keys, keysAcross);
    gatherTransposed(headV, keys, valuesAcross);
    gather(headK, keys, 1.0f, keysDown, width);
    biasOf(mask, keys, bias);
    clear(dk, keyRows * width);
    clear(dv, keyRows * width);
    for (int64_t queryBlock = 0; queryBlock < queryBlocks; ++queryBlock) {
      const Span span = Span::of(queryBlock, queries, kQueryBlock);
      const int64_t count = span.count();
      const int64_t here = roundUp(count, kRowMultiple);
      const float* qRows = q + span.begin * width;
      const float* dyRows = dy + span.begin * width;
      product<Left::kRows>(qRows, width, keysAcross, kKeyBlock, scores, kKeyBlock, here, columns,
                           Depth{size}, false);
      product<Left::kRows>(dyRows, width, valuesAcross, kKeyBlock, dScores, kKeyBlock, here,
                           columns, Depth{size}, false);
      for (int64_t i = 0; i < count; ++i)
        differentiateRow(scores + i * kKeyBlock, dScores + i * kKeyBlock, bias, columns,
                         logSumExp[span.begin + i], delta[span.begin + i]);
      // Rows up to a multiple of kRowMultiple keys: those past the last key are never scattered.
      product<Left::kTransposed>(scores, kKeyBlock, dyRows, width, dv, width, keyRows, width,
                                 Depth{count}, true);
      product<Left::kTransposed>(dScores, kKeyBlock, qRows, width, dk, width, keyRows, width,
                                 Depth{count}, true);
      product<Left::kRows>(dScores, kKeyBlock, keysDown, width, dq + span.begin * width, width,
                           here, width, Depth{keys.count()}, true);
    }
    scatter(dk, width, keys, 1.0f, headOut(arguments.dk, arguments.keys));
    scatter(dv, width, keys, 1.0f, headOut(arguments.dv, arguments.keys));
  }
  scatter(dq, width, all, arguments.scale, headOut(arguments.dq, queries));
  return true;
}

template <class T>
void backwardAs(const AttentionBackwardArgs& arguments, CpuContext& context) {
  bool starved = false;
  context.pool.parallelFor(
      arguments.batch * arguments.heads,
      rowGrain(kQueryBlock + arguments.queries * arguments.keys * arguments.size / 8),
      [&](int64_t begin, int64_t end) {
        for (int64_t pair = begin; pair < end; ++pair)
          if (!backwardHead<T>(arguments, pair / arguments.heads, pair % arguments.heads))
            __atomic_store_n(&starved, true, __ATOMIC_RELAXED);
      });
  if (starved) refuse(context, Code::kOutOfMemory, kStarved);
}

}  // namespace

void attentionCpu(const AttentionArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    forwardAs<BFloat16>(arguments, context);
  else
    forwardAs<float>(arguments, context);
}

void attentionBackwardCpu(const AttentionBackwardArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    backwardAs<BFloat16>(arguments, context);
  else
    backwardAs<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
