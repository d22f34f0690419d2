// Convolution and its backward passes on the CPU, see conv2d.h for the maths and shapes.
//
// Forward and backward with respect to x are direct convolutions, parallel over (image, band of
// rows). A band of the source is copied to scratch with its padding (for stride 2 with even and odd
// columns apart), so that every tap is a contiguous vector at a fixed offset; a register tile of
// outputs x pixels then runs over (channel, tap) with no further bounds. The backward pass of
// stride 2 is four such convolutions, one for each parity of rows and columns.
//
// Backward with respect to the weight is a sum over pixels of outer products, parallel over (group
// of images, block of outputs). Bands of x and dy are transposed to channels last, where the
// channels of kernelWidth neighbouring pixels are one contiguous row: per kernel row the product is
// [outputs, pixels] [pixels, kernelWidth * inputs]. Bands add up into their group's partial sums,
// groups in order into the result.
//
// Bytes: each operand once, x and dy again for every kOutputBlock outputs in the weight's pass; with
// 16 channels or more the multiply-adds take far longer than those.
#include "native/ops/nn/conv2d.h"

#include "native/core/op.h"
#include "native/core/refuse.h"
#include "native/ops/nn/scratch.cpu.h"
#include "native/ops/nn/tiles.cpu.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

constexpr int64_t kMostTaps = kMostKernel * kMostKernel;
// Of the second cache, for one band.
constexpr int64_t kBandFloats = 65536;
// Outputs of one item of the weight's backward pass.
constexpr int64_t kOutputBlock = 64;
constexpr int64_t kMostGroups = 8;
constexpr int64_t kMostPartialFloats = int64_t{1} << 22;
constexpr const char* kStarved = "no memory for scratch";

// A 1x1 kernel sees no rows: wide vectors fit better on one long row.
Conv2dShape flattened(Conv2dShape s) {
  if (s.kernelHeight == 1 && s.kernelWidth == 1 && s.stride == 1 &&
      s.width % simd::kLogicalLanes != 0) {
    s.width *= s.height;
    s.outWidth *= s.outHeight;
    s.height = s.outHeight = s.width == 0 ? 0 : 1;
  }
  return s;
}

// One direct convolution: target(row, column) = bias + sum over channel, u, w of weight(output,
// channel, u, w) source(stride row + u - top, stride column + w - left), zero outside the source.
// Targets lie on a grid of every rowStep-th row and columnStep-th column.
struct Correlation {
  const float* source;
  int64_t batch, channels, height, width;  // of the source
  int64_t stride, top, left;
  int64_t kernelHeight, kernelWidth;
  const float* weight;  // packed
  const float* bias;    // or null
  float* target;
  int64_t outputs, rows, columns;
  int64_t targetHeight, targetWidth;
  int64_t firstRow, firstColumn, step;

  int64_t taps() const { return kernelHeight * kernelWidth; }
  int64_t depth() const { return channels * taps(); }
};

// Outputs are packed in blocks of kTileRows, the last one of half as many where that is enough.
DIDR_SIMD int blockRows(int64_t outputsLeft) {
  return outputsLeft <= kTileRows / 2 ? kTileRows / 2 : kTileRows;
}
DIDR_SIMD int64_t packedFloats(int64_t outputs, int64_t depth) {
  return roundUp(outputs, kTileRows) * depth;
}
// Block by block, [depth][rows of the block]; weightAt(output, channel, u, w).
template <class WeightAt>
void packWeights(const Correlation& c, float* to, const WeightAt& weightAt) {
  for (int64_t first = 0; first < c.outputs; first += kTileRows) {
    const int rows = blockRows(c.outputs - first);
    for (int64_t channel = 0; channel < c.channels; ++channel)
      for (int64_t u = 0; u < c.kernelHeight; ++u)
        for (int64_t w = 0; w < c.kernelWidth; ++w)
          for (int r = 0; r < rows; ++r)
            *to++ = first + r < c.outputs ? weightAt(first + r, channel, u, w) : 0.0f;
  }
}

// A band of the source in scratch: per channel `stride` planes of columns c with c % stride equal,
// rows x pitch each.
struct Band {
  int64_t rows, pitch, plane, channel;

  Band(const Correlation& c, int64_t targetRows) {
    rows = (targetRows - 1) * c.stride + c.kernelHeight;
    pitch = ((c.columns - 1) * c.stride + c.kernelWidth + c.stride - 1) / c.stride;
    plane = rows * pitch;
    channel = c.stride * plane;
  }
};

// Columns [0, count) of `to` from every stride-th column of a source row, starting at `first`
// (which may lie outside).
DIDR_SIMD void copyColumns(const float* row, int64_t width, int64_t first, int64_t stride,
                           int64_t count, float* to) {
  const int64_t begin = first >= 0 ? 0 : (-first + stride - 1) / stride;
  const int64_t inside = first < width ? (width - first + stride - 1) / stride : 0;
  const int64_t from = begin < count ? begin : count;
  const int64_t end = inside < from ? from : inside < count ? inside : count;
  clear(to, from);
  if (stride == 1) {
    if (end > from)
      memcpy(to + from, row + first + from, static_cast<size_t>(end - from) * sizeof(float));
  } else {
    for (int64_t i = from; i < end; ++i) to[i] = row[first + 2 * i];
  }
  clear(to + end, count - end);
}

void copyBand(const Correlation& c, const Band& band, int64_t image, int64_t firstTargetRow,
              float* to) {
  for (int64_t channel = 0; channel < c.channels; ++channel) {
    const float* source = c.source + (image * c.channels + channel) * c.height * c.width;
    for (int64_t parity = 0; parity < c.stride; ++parity) {
      for (int64_t r = 0; r < band.rows; ++r, to += band.pitch) {
        const int64_t row = firstTargetRow * c.stride + r - c.top;
        if (row < 0 || row >= c.height)
          clear(to, band.pitch);
        else
          copyColumns(source + row * c.width, c.width, parity - c.left, c.stride, band.pitch, to);
      }
    }
  }
  // Vectors that start inside may end past it.
  clear(to, kLanes);
}

// What a tile needs to know of its band.
struct BandTaps {
  const float* source;
  int64_t channels, channelStride, taps;
  int64_t offsets[kMostTaps];
};

template <int kRows, int kVectors>
DIDR_SIMD void correlateTile(const BandTaps& band, const int64_t* starts, const float* weight,
                             const float* bias, float* (&targets)[kVectors],
                             const int (&lanes)[kVectors], int64_t rows, int64_t plane,
                             int64_t step) {
  Tile<kRows, kVectors> tile;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const F32 start = simd::broadcast(bias != nullptr && r < rows ? bias[r] : 0.0f);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) tile.sums[r][v] = start;
  }
  for (int64_t channel = 0; channel < band.channels; ++channel) {
    const float* source = band.source + channel * band.channelStride;
    for (int64_t tap = 0; tap < band.taps; ++tap, weight += kRows) {
      const float* at = source + band.offsets[tap];
      F32 vectors[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) vectors[v] = simd::load(at + starts[v]);
      tile.addOuter(weight, 1, vectors);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    if (r >= rows) break;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* target = targets[v] + r * plane;
      if (step != 1) {
        float values[kLanes];
        simd::store(values, tile.sums[r][v]);
        for (int i = 0; i < lanes[v]; ++i) target[i * step] = values[i];
      } else if (lanes[v] == kLanes) {
        simd::store(target, tile.sums[r][v]);
      } else {
        simd::storePartial(target, tile.sums[r][v], lanes[v]);
      }
    }
  }
}

// The vectors of a band's targets, numbered row by row.
struct Slots {
  const Correlation& c;
  int64_t pitch;
  float* target;  // of the band's first row, first output

  int64_t perRow() const { return (c.columns + kLanes - 1) / kLanes; }

  template <int kRows, int kVectors>
  __attribute__((always_inline)) void correlate(const BandTaps& band, int64_t slot,
                                                const float* weight, const float* bias,
                                                int64_t output, int64_t rows) const {
    int64_t starts[kVectors];
    float* targets[kVectors];
    int lanes[kVectors];
    const int64_t plane = c.targetHeight * c.targetWidth;
    for (int v = 0; v < kVectors; ++v) {
      const int64_t row = (slot + v) / perRow();
      const int64_t column = (slot + v) % perRow() * kLanes;
      starts[v] = row * c.stride * pitch + column;
      targets[v] = target + output * plane + row * c.step * c.targetWidth + column * c.step;
      lanes[v] = simd::lanesLeft(c.columns - column);
    }
    correlateTile<kRows, kVectors>(band, starts, weight, bias, targets, lanes, rows, plane, c.step);
  }

  template <int kRows>
  void correlateAll(const BandTaps& band, int64_t count, const float* weight, const float* bias,
                    int64_t output, int64_t rows) const {
    int64_t slot = 0;
    for (; slot + kTileVectors <= count; slot += kTileVectors)
      correlate<kRows, kTileVectors>(band, slot, weight, bias, output, rows);
    for (; slot < count; ++slot) correlate<kRows, 1>(band, slot, weight, bias, output, rows);
  }
};

void correlateBand(const Correlation& c, int64_t image, int64_t firstRow, int64_t rows,
                   float* scratch) {
  BandTaps taps;
  const Band band(c, rows);
  taps.source = scratch;
  taps.channels = c.channels;
  taps.channelStride = band.channel;
  taps.taps = c.taps();
  for (int64_t u = 0, tap = 0; u < c.kernelHeight; ++u)
    for (int64_t w = 0; w < c.kernelWidth; ++w, ++tap)
      taps.offsets[tap] = w % c.stride * band.plane + u * band.pitch + w / c.stride;
  if (taps.taps > 0) copyBand(c, band, image, firstRow, scratch);
  const Slots slots{c, band.pitch,
                    c.target + image * c.outputs * c.targetHeight * c.targetWidth +
                        (c.firstRow + firstRow * c.step) * c.targetWidth + c.firstColumn};
  const float* weight = c.weight;
  for (int64_t output = 0; output < c.outputs; output += kTileRows) {
    const int64_t left = c.outputs - output;
    const float* bias = c.bias == nullptr ? nullptr : c.bias + output;
    const int64_t real = left < kTileRows ? left : kTileRows;
    const int packed = blockRows(left);
    if (packed == kTileRows)
      slots.correlateAll<kTileRows>(taps, rows * slots.perRow(), weight, bias, output, real);
    else
      slots.correlateAll<kTileRows / 2>(taps, rows * slots.perRow(), weight, bias, output, real);
    weight += packed * c.depth();
  }
}

// The whole batch. Bands fit the cache, and are many enough to occupy threads when images are few.
bool correlate(const Correlation& c, CpuContext& context) {
  if (c.rows <= 0 || c.columns <= 0 || c.batch == 0 || c.outputs == 0) return true;
  const Band one(c, 1);
  const int64_t rowFloats = c.channels * c.stride * one.pitch * c.stride;
  const int64_t byCache = rowFloats == 0 ? c.rows : kBandFloats / rowFloats;
  const int64_t byImages = (c.rows * c.batch + 15) / 16;
  int64_t bandRows = byCache < byImages ? byCache : byImages;
  if (bandRows < 4) bandRows = 4;
  if (bandRows > c.rows) bandRows = c.rows;
  const int64_t bands = (c.rows + bandRows - 1) / bandRows;
  const int64_t floats = Band(c, bandRows).channel * c.channels + kLanes;
  bool starved = false;
  context.pool.parallelFor(
      c.batch * bands, rowGrain(bandRows * c.columns * c.outputs * (c.depth() + 1) / 16),
      [&](int64_t begin, int64_t end) {
        float* scratch = threadScratch.floats(floats);
        if (scratch == nullptr) return __atomic_store_n(&starved, true, __ATOMIC_RELAXED);
        for (int64_t item = begin; item < end; ++item) {
          const int64_t firstRow = item % bands * bandRows;
          const int64_t left = c.rows - firstRow;
          correlateBand(c, item / bands, firstRow, left < bandRows ? left : bandRows, scratch);
        }
      });
  return !starved;
}

bool forward(const Conv2dArgs& arguments, CpuContext& context) {
  const Conv2dShape s = flattened(arguments.shape);
  Correlation c{};
  c.source = arguments.x;
  c.batch = s.batch;
  c.channels = s.inputs;
  c.height = s.height;
  c.width = s.width;
  c.stride = s.stride;
  c.top = s.top;
  c.left = s.left;
  c.kernelHeight = s.kernelHeight;
  c.kernelWidth = s.kernelWidth;
  c.bias = arguments.bias;
  c.target = arguments.y;
  c.outputs = s.outputs;
  c.rows = c.targetHeight = s.outHeight;
  c.columns = c.targetWidth = s.outWidth;
  c.step = 1;
  float* packed = sharedScratch.floats(packedFloats(c.outputs, c.depth()));
  if (packed == nullptr) return false;
  packWeights(c, packed, [&](int64_t output, int64_t channel, int64_t u, int64_t w) {
    return arguments
        .weight[((output * s.inputs + channel) * s.kernelHeight + u) * s.kernelWidth + w];
  });
  c.weight = packed;
  return correlate(c, context);
}

// One axis of the targets of one parity: those at padded positions p = stride q + parity, which see
// the kernel's positions parity, parity + stride, ... at dy positions q, q - 1, ...
struct ParityAxis {
  int64_t taps, first, count;
  int64_t q;

  ParityAxis(int64_t parity, int64_t stride, int64_t kernel, int64_t padding, int64_t size) {
    taps = kernel > parity ? (kernel - parity + stride - 1) / stride : 0;
    q = padding > parity ? (padding - parity + stride - 1) / stride : 0;
    first = q * stride + parity - padding;
    count = first < size ? (size - first + stride - 1) / stride : 0;
  }
};

bool backwardData(const Conv2dBackwardDataArgs& arguments, CpuContext& context) {
  const Conv2dShape s = flattened(arguments.shape);
  for (int64_t rowParity = 0; rowParity < s.stride; ++rowParity) {
    for (int64_t columnParity = 0; columnParity < s.stride; ++columnParity) {
      const ParityAxis row(rowParity, s.stride, s.kernelHeight, s.top, s.height);
      const ParityAxis column(columnParity, s.stride, s.kernelWidth, s.left, s.width);
      Correlation c{};
      c.source = arguments.dy;
      c.batch = s.batch;
      c.channels = s.outputs;
      c.height = s.outHeight;
      c.width = s.outWidth;
      c.stride = 1;
      c.kernelHeight = row.taps;
      c.kernelWidth = column.taps;
      c.top = row.taps - 1 - row.q;
      c.left = column.taps - 1 - column.q;
      c.target = arguments.dx;
      c.outputs = s.inputs;
      c.rows = row.count;
      c.columns = column.count;
      c.targetHeight = s.height;
      c.targetWidth = s.width;
      c.firstRow = row.first;
      c.firstColumn = column.first;
      c.step = s.stride;
      float* packed = sharedScratch.floats(packedFloats(c.outputs, c.depth()) + 1);
      if (packed == nullptr) return false;
      packWeights(c, packed, [&](int64_t input, int64_t output, int64_t u, int64_t w) {
        const int64_t kernelRow = rowParity + (row.taps - 1 - u) * s.stride;
        const int64_t kernelColumn = columnParity + (column.taps - 1 - w) * s.stride;
        return arguments
            .weight[((output * s.inputs + input) * s.kernelHeight + kernelRow) * s.kernelWidth +
                    kernelColumn];
      });
      c.weight = packed;
      if (!correlate(c, context)) return false;
    }
  }
  return true;
}

// to[i, channel] = from[channel, i] for i < count; rows of `pitch` floats.
void transposeToChannelsLast(const float* from, int64_t channelStride, int64_t channels,
                             int64_t count, float* to, int64_t pitch) {
  int64_t channel = 0;
  for (; channel + 4 <= channels; channel += 4) {
    const float* x = from + channel * channelStride;
    forEachVector(0, count, [&](int64_t i, auto extent) {
      F32 quad[4];
      for (int64_t j = 0; j < 4; ++j) quad[j] = load(x + j * channelStride + i, extent);
      simd::transposeQuads(quad[0], quad[1], quad[2], quad[3]);
      // Lanes 4g to 4g + 3 of quad[j] are now the four channels of element i + 4g + j.
      for (int64_t g = 0; g < kLanes / 4; ++g)
        for (int64_t j = 0; j < 4; ++j)
          if (i + 4 * g + j < count)
            memcpy(to + (i + 4 * g + j) * pitch + channel,
                   reinterpret_cast<const float*>(&quad[j]) + 4 * g, 4 * sizeof(float));
    });
  }
  for (; channel < channels; ++channel)
    for (int64_t i = 0; i < count; ++i) to[i * pitch + channel] = from[channel * channelStride + i];
}

// How the weight's backward pass is cut; by the shape alone, since it decides the order of sums.
struct WeightPlan {
  int64_t outputBlocks, blockOutputs;  // outputs of a block, padded to kRowMultiple
  int64_t columns;                     // kernelWidth * inputs, padded to whole vectors
  int64_t sums;  // floats of one block's partial sums: [kernelHeight, outputs, columns] and a bias
  int64_t groups, imagesPerGroup;
  int64_t bandRows, paddedWidth;

  explicit WeightPlan(const Conv2dShape& s) {
    outputBlocks = (s.outputs + kOutputBlock - 1) / kOutputBlock;
    blockOutputs = roundUp(s.outputs < kOutputBlock ? s.outputs : kOutputBlock, kRowMultiple);
    columns = roundUp(s.kernelWidth * s.inputs, simd::kLogicalLanes);
    sums = s.kernelHeight * blockOutputs * columns + blockOutputs;
    int64_t most = kMostPartialFloats / (sums * outputBlocks);
    if (most > kMostGroups) most = kMostGroups;
    if (most > s.batch) most = s.batch;
    if (most < 1) most = 1;
    imagesPerGroup = (s.batch + most - 1) / most;
    groups = imagesPerGroup == 0 ? 0 : (s.batch + imagesPerGroup - 1) / imagesPerGroup;
    paddedWidth = (s.outWidth - 1) * s.stride + s.kernelWidth;
    const int64_t rowFloats = s.stride * paddedWidth * s.inputs + s.outWidth * blockOutputs;
    bandRows = kBandFloats / (rowFloats < 1 ? 1 : rowFloats);
    if (bandRows < 4) bandRows = 4;
    if (bandRows > s.outHeight) bandRows = s.outHeight;
  }
  int64_t bandInputRows(const Conv2dShape& s) const {
    return (bandRows - 1) * s.stride + s.kernelHeight;
  }
};

// Adds one band of rows of one image to the partial sums of one block of outputs.
void addWeightBand(const Conv2dBackwardWeightArgs& arguments, const Conv2dShape& s,
                   const WeightPlan& plan, int64_t image, int64_t firstRow, int64_t rows,
                   int64_t firstOutput, float* scratch, float* sums) {
  const int64_t inputRow = plan.paddedWidth * s.inputs;
  float* x = scratch;
  float* dy = x + plan.bandInputRows(s) * inputRow + simd::kLogicalLanes;
  float* bandSums = dy + plan.bandRows * s.outWidth * plan.blockOutputs;

  const float* source = arguments.x + image * s.inputs * s.height * s.width;
  for (int64_t r = 0; r < (rows - 1) * s.stride + s.kernelHeight; ++r) {
    const int64_t row = firstRow * s.stride + r - s.top;
    float* to = x + r * inputRow;
    if (row < 0 || row >= s.height) {
      clear(to, inputRow);
      continue;
    }
    // With stride 2 the last columns may be seen by no output.
    const int64_t seen = plan.paddedWidth - s.left;
    const int64_t width = seen < s.width ? seen : s.width;
    clear(to, s.left * s.inputs);
    transposeToChannelsLast(source + row * s.width, s.height * s.width, s.inputs, width,
                            to + s.left * s.inputs, s.inputs);
    clear(to + (s.left + width) * s.inputs, (plan.paddedWidth - s.left - width) * s.inputs);
  }
  clear(dy - simd::kLogicalLanes, simd::kLogicalLanes);
  const int64_t left = s.outputs - firstOutput;
  const int64_t outputs = left < kOutputBlock ? left : kOutputBlock;
  const int64_t pixels = s.outHeight * s.outWidth;
  const int64_t bandPixels = rows * s.outWidth;
  if (outputs < plan.blockOutputs) clear(dy, bandPixels * plan.blockOutputs);
  transposeToChannelsLast(
      arguments.dy + (image * s.outputs + firstOutput) * pixels + firstRow * s.outWidth, pixels,
      outputs, bandPixels, dy, plan.blockOutputs);

  for (int64_t u = 0; u < s.kernelHeight; ++u)
    product<Left::kTransposed>(
        dy, plan.blockOutputs, x + u * inputRow, s.stride * s.inputs,
        bandSums + u * plan.blockOutputs * plan.columns, plan.columns, plan.blockOutputs,
        plan.columns, Depth{s.outWidth, rows, s.outWidth * plan.blockOutputs, s.stride * inputRow},
        false);
  float* biasSums = bandSums + s.kernelHeight * plan.blockOutputs * plan.columns;
  forEachVector(0, plan.blockOutputs, [&](int64_t i, auto extent) {
    F32 sum = simd::zero();
    for (int64_t pixel = 0; pixel < bandPixels; ++pixel)
      sum += load(dy + pixel * plan.blockOutputs + i, extent);
    store(biasSums + i, sum, extent);
  });
  forEachVector(0, plan.sums, [&](int64_t i, auto extent) {
    store(sums + i, load(sums + i, extent) + load(bandSums + i, extent), extent);
  });
}

bool backwardWeight(const Conv2dBackwardWeightArgs& arguments, CpuContext& context) {
  const Conv2dShape& s = arguments.shape;
  if (s.outputs == 0) return true;
  const WeightPlan plan(s);
  const int64_t items = plan.groups * plan.outputBlocks;
  float* partials = sharedScratch.floats(items * plan.sums + 1);
  if (partials == nullptr) return false;
  const int64_t floats = plan.bandInputRows(s) * plan.paddedWidth * s.inputs + simd::kLogicalLanes +
                         plan.bandRows * s.outWidth * plan.blockOutputs + plan.sums;
  bool starved = false;
  context.pool.parallelFor(
      items,
      rowGrain(plan.imagesPerGroup * s.outHeight * s.outWidth * s.kernelHeight * plan.columns *
               plan.blockOutputs / 16),
      [&](int64_t begin, int64_t end) {
        float* scratch = threadScratch.floats(floats);
        if (scratch == nullptr) return __atomic_store_n(&starved, true, __ATOMIC_RELAXED);
        for (int64_t item = begin; item < end; ++item) {
          float* sums = partials + item * plan.sums;
          clear(sums, plan.sums);
          const int64_t firstImage = item / plan.outputBlocks * plan.imagesPerGroup;
          for (int64_t image = firstImage;
               image < firstImage + plan.imagesPerGroup && image < s.batch; ++image)
            for (int64_t row = 0; row < s.outHeight; row += plan.bandRows)
              addWeightBand(arguments, s, plan, image, row,
                            s.outHeight - row < plan.bandRows ? s.outHeight - row : plan.bandRows,
                            item % plan.outputBlocks * kOutputBlock, scratch, sums);
        }
      });
  if (starved) return false;
  const int64_t taps = s.kernelHeight * s.kernelWidth;
  context.pool.parallelFor(
      s.outputs, rowGrain(4 * plan.groups * s.inputs * taps), [&](int64_t begin, int64_t end) {
        for (int64_t output = begin; output < end; ++output) {
          const float* of = partials + output / kOutputBlock * plan.sums;
          const int64_t row = output % kOutputBlock;
          const auto sumAt = [&](int64_t offset) {
            float sum = 0;
            for (int64_t group = 0; group < plan.groups; ++group)
              sum += of[group * plan.outputBlocks * plan.sums + offset];
            return sum;
          };
          float* dweight = arguments.dweight + output * s.inputs * taps;
          for (int64_t u = 0; u < s.kernelHeight; ++u)
            for (int64_t w = 0; w < s.kernelWidth; ++w)
              for (int64_t input = 0; input < s.inputs; ++input)
                dweight[input * taps + u * s.kernelWidth + w] =
                    sumAt((u * plan.blockOutputs + row) * plan.columns + w * s.inputs + input);
          if (arguments.dbias != nullptr)
            arguments.dbias[output] =
                sumAt(s.kernelHeight * plan.blockOutputs * plan.columns + row);
        }
      });
  return true;
}

}  // namespace

void conv2dCpu(const Conv2dArgs& arguments, CpuContext& context) {
  if (!forward(arguments, context)) refuse(context, Code::kOutOfMemory, kStarved);
}

void conv2dBackwardDataCpu(const Conv2dBackwardDataArgs& arguments, CpuContext& context) {
  if (!backwardData(arguments, context)) refuse(context, Code::kOutOfMemory, kStarved);
}

void conv2dBackwardWeightCpu(const Conv2dBackwardWeightArgs& arguments, CpuContext& context) {
  if (!backwardWeight(arguments, context)) refuse(context, Code::kOutOfMemory, kStarved);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
