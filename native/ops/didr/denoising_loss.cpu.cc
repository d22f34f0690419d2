// Denoising score matching on the CPU, see denoising_loss.h for the maths and shapes.
//
// Parallel over runs of the flat [batch * sampleSize] order, as the noise is aligned. Inside a run
// the squares of each sample's piece go to 16 logical lanes by flat index; the piece's sum goes to
// its own workspace slot, and a last, short loop adds each sample's pieces in order in float64: the
// same bits for any number of threads.
// Bytes: 12 per float32 element (x0, output, gradient), 8 for the epsilon prediction. A large
// gradient is stored past the caches. Where noise is drawn its arithmetic is too long for the core
// to see the next loads behind it, so the inputs are asked for a tile ahead.
#include "native/ops/didr/denoising_loss.h"

#include "native/core/op.h"
#include "native/ops/didr/samples.cpu.h"
#include "native/ops/random/noise.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

static_assert(kDenoisingLossRun == kNoiseRun, "workspace slots are per run of noise");

// output - target = output + x0 x0 + noise eps; the gradient is scale times that.
struct LossCoefficients {
  float noise, x0, scale;
};

template <class T>
struct DenoisingLoss {
  const T* x0;
  const T* output;
  T* gradient;
  const DenoisingLossArgs& arguments;

  DIDR_MEMBER_HOST_DEVICE LossCoefficients coefficients(int64_t sample) const {
    const TargetCoefficients target =
        targetOf(arguments.prediction, arguments.coefficients[2 * sample],
                 arguments.coefficients[2 * sample + 1]);
    const double weight = arguments.weights == nullptr ? 1.0 : arguments.weights[sample];
    const double elements =
        static_cast<double>(arguments.sampleSize) * static_cast<double>(arguments.batch);
    return {static_cast<float>(-target.noise), static_cast<float>(-target.x0),
            static_cast<float>(2.0 * weight / elements)};
  }
};

// Where a run is among the samples, and the squares of the present sample so far.
struct Piece {
  int64_t sample;
  int64_t begin;
  int64_t end;  // of the sample
  simd::LaneSum squares;
};

template <bool kNoise, bool kX0, class T>
DIDR_SIMD void finishPiece(const DenoisingLoss<T>& op, Piece& piece, int64_t last) {
  const int64_t end = piece.end < last ? piece.end : last;
  const float total = piece.squares.total();
  const int64_t slot = piece.sample + piece.begin / kDenoisingLossRun;
  op.arguments.workspace[slot] = static_cast<double>(total);
  if ((bitsOf(total) & 0x7f800000u) == 0x7f800000u) {
    int32_t found = countNonFinite(op.output + piece.begin, end - piece.begin);
    if constexpr (kX0) found += countNonFinite(op.x0 + piece.begin, end - piece.begin);
    addCount(op.arguments.nonFinite + piece.sample, found);
  }
  ++piece.sample;
  piece.begin = piece.end;
  piece.end += op.arguments.sampleSize;
  piece.squares = simd::LaneSum();
}

template <bool kNoise, bool kX0>
DIDR_SIMD F32 differenceVector(F32 noise, F32 x0Coefficient, F32 eps, F32 x0, F32 output) {
  // Alone, either coefficient is -1.
  if constexpr (!kNoise) return output - x0;
  if constexpr (!kX0) return output - eps;
  return simd::fma(noise, eps, simd::fma(x0Coefficient, x0, output));
}

// A group that meets a sample's boundary or the end: coefficients lane by lane, and squares masked
// to their samples.
template <bool kNoise, bool kX0, class T>
__attribute__((noinline)) void lossMixed(const DenoisingLoss<T>& op, Piece& piece, int64_t first,
                                         int64_t count, const F32 (&eps)[4]) {
  float noise[kNoiseGroup] = {};
  float x0Coefficient[kNoiseGroup] = {};
  float scale[kNoiseGroup] = {};
  forEachSample(first, first + count, op.arguments.sampleSize,
                [&](int64_t sample, int64_t begin, int64_t end) {
                  const LossCoefficients coefficients = op.coefficients(sample);
                  for (int64_t i = begin - first; i < end - first; ++i) {
                    noise[i] = coefficients.noise;
                    x0Coefficient[i] = coefficients.x0;
                    scale[i] = coefficients.scale;
                  }
                });
  F32 difference[4] = {};
  for (int v = 0; v < 4; ++v) {
    const int64_t i = first + v * kLanes;
    const int lanes = simd::lanesLeft(count - v * kLanes);
    if (lanes == 0) break;
    F32 x0 = simd::zero();
    if constexpr (kX0) x0 = simd::loadPartial(op.x0 + i, lanes);
    difference[v] = differenceVector<kNoise, kX0>(simd::load(noise + v * kLanes),
                                                  simd::load(x0Coefficient + v * kLanes), eps[v],
                                                  x0, simd::loadPartial(op.output + i, lanes));
    simd::storePartial(op.gradient + i, simd::load(scale + v * kLanes) * difference[v], lanes);
  }
  forEachSample(
      first, first + count, op.arguments.sampleSize, [&](int64_t, int64_t begin, int64_t end) {
        const int from = static_cast<int>(begin - first);
        const int to = static_cast<int>(end - first);
        for (int v = from / kLanes; v * kLanes < to; ++v) {
          const simd::I32 lane = simd::laneIndex() + v * kLanes;
          const F32 own = simd::select((lane >= from) & (lane < to), difference[v], simd::zero());
          F32& sum = piece.squares.parts[v % simd::kLaneVectors];
          sum = simd::fma(own, own, sum);
        }
        if (end == piece.end) finishPiece<kNoise, kX0>(op, piece, end);
      });
}

// Elements [first, last), inside one run; `tile` holds their noise, and is null where the target
// has none.
template <bool kNoise, bool kX0, bool kStreaming, class T>
DIDR_SIMD void lossTile(const DenoisingLoss<T>& op, Piece& piece, const NoiseTile* tile,
                        int64_t first, int64_t last) {
  F32 noise = simd::zero();
  F32 x0Coefficient = simd::zero();
  F32 scale = simd::zero();
  int64_t loadedSample = -1;
  int64_t group = 0;
  for (int64_t i = first; i < last; i += kNoiseGroup, ++group) {
    F32 eps[4] = {};
    if constexpr (kNoise) {
      if constexpr (kX0) simd::prefetch(op.x0 + i + kNoiseTile, kNoiseGroup);
      simd::prefetch(op.output + i + kNoiseTile, kNoiseGroup);
      tile->normals(group, eps);
    }
    const int64_t groupEnd = i + kNoiseGroup;
    if (groupEnd > piece.end || groupEnd > last) {
      // A copy, so that eps itself may stay in registers.
      const F32 copy[4] = {eps[0], eps[1], eps[2], eps[3]};
      lossMixed<kNoise, kX0>(op, piece, i, groupEnd < last ? kNoiseGroup : last - i, copy);
      continue;
    }
    if (piece.sample != loadedSample) {
      const LossCoefficients coefficients = op.coefficients(piece.sample);
      noise = simd::broadcast(coefficients.noise);
      x0Coefficient = simd::broadcast(coefficients.x0);
      scale = simd::broadcast(coefficients.scale);
      loadedSample = piece.sample;
    }
    for (int v = 0; v < 4; ++v) {
      F32 x0 = simd::zero();
      if constexpr (kX0) x0 = simd::load(op.x0 + i + v * kLanes);
      const F32 difference = differenceVector<kNoise, kX0>(noise, x0Coefficient, eps[v], x0,
                                                           simd::load(op.output + i + v * kLanes));
      simd::storeOutput<kStreaming>(op.gradient + i + v * kLanes, scale * difference);
      F32& sum = piece.squares.parts[v % simd::kLaneVectors];
      sum = simd::fma(difference, difference, sum);
    }
    if (groupEnd == piece.end) finishPiece<kNoise, kX0>(op, piece, groupEnd);
  }
}

template <bool kNoise, bool kX0, class T>
DIDR_SIMD void lossRuns(const DenoisingLoss<T>& op, bool streaming, int64_t begin, int64_t end) {
  const int64_t sampleSize = op.arguments.sampleSize;
  Piece piece;
  const auto startRun = [&](int64_t first) {
    piece.sample = first / sampleSize;
    piece.begin = first;
    piece.end = (piece.sample + 1) * sampleSize;
    piece.squares = simd::LaneSum();
  };
  const auto tile = [&](const NoiseTile* noise, int64_t first, int64_t last) {
    if (first % kNoiseRun == 0) startRun(first);
    if (streaming)
      lossTile<kNoise, kX0, true>(op, piece, noise, first, last);
    else
      lossTile<kNoise, kX0, false>(op, piece, noise, first, last);
    // The run ends inside the sample.
    if ((last % kNoiseRun == 0 || last == end) && piece.begin < last)
      finishPiece<kNoise, kX0>(op, piece, last);
  };
  if constexpr (kNoise) {
    forEachNoiseTile(
        op.arguments.seed, op.arguments.offset, begin, end,
        [&](const NoiseTile& noise, int64_t first, int64_t last) { tile(&noise, first, last); });
  } else {
    for (int64_t first = begin; first < end; first += kNoiseRun)
      tile(nullptr, first, first + kNoiseRun < end ? first + kNoiseRun : end);
  }
  if (streaming) simd::streamFence();
}

template <class T>
DIDR_SIMD void denoisingLossAs(const DenoisingLossArgs& arguments, CpuContext& context) {
  const DenoisingLoss<T> op = {static_cast<const T*>(arguments.x0),
                               static_cast<const T*>(arguments.output),
                               static_cast<T*>(arguments.gradient), arguments};
  const int64_t count = arguments.batch * arguments.sampleSize;
  const bool streaming = simd::streamingPays(op.gradient, count * static_cast<int64_t>(sizeof(T)));
  for (int64_t b = 0; b < arguments.batch; ++b) arguments.nonFinite[b] = 0;
  context.pool.parallelFor(count, kDenoisingLossRun, [&](int64_t begin, int64_t end) {
    switch (arguments.prediction) {
      case Prediction::kEpsilon:
        lossRuns<true, false>(op, streaming, begin, end);
        break;
      case Prediction::kX0:
        lossRuns<false, true>(op, streaming, begin, end);
        break;
      case Prediction::kV:
      case Prediction::kFlow:
        lossRuns<true, true>(op, streaming, begin, end);
        break;
    }
  });

  for (int64_t b = 0; b < arguments.batch; ++b) {
    double sum = 0.0;
    const int64_t begin = b * arguments.sampleSize;
    const int64_t end = begin + arguments.sampleSize;
    for (int64_t run = begin / kDenoisingLossRun; run * kDenoisingLossRun < end; ++run)
      sum += arguments.workspace[b + run];
    const double weight = arguments.weights == nullptr ? 1.0 : arguments.weights[b];
    const double mean =
        arguments.sampleSize == 0 ? 0.0 : sum / static_cast<double>(arguments.sampleSize);
    arguments.loss[b] = static_cast<float>(weight * mean);
  }
}

}  // namespace

void denoisingLossCpu(const DenoisingLossArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    denoisingLossAs<BFloat16>(arguments, context);
  else
    denoisingLossAs<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
