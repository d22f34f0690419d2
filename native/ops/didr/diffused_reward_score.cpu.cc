// The particle estimators of the diffused reward score on the CPU, see diffused_reward_score.h for
// the maths and shapes.
//
// Weights: a vector holds neighbouring samples, and walks down the particles three times (largest
// reward, exponentials, division); rewards are small. Sums over particles are taken in blocks of
// kWeightBlock, so that 10^5 particles lose no digits.
// Weighted sums: parallel over samples and runs of kParticleRun elements. Up to kRowBlock rows are
// summed in registers, element by element, as that many streams side by side; with more particles
// the run's sums wait in the first-level cache between blocks of rows. Every particle is read once
// from memory.
// Bytes: 4 per float32 particle element, and the score.
#include "native/ops/didr/diffused_reward_score.h"

#include "native/core/op.h"
#include "native/core/simd_math.h"
#include "native/ops/didr/samples.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

constexpr int64_t kWeightBlock = 64;
// Rows summed together: as many streams as the hardware follows.
constexpr int kRowBlock = 16;
// Elements worth a thread, roughly 10 microseconds.
constexpr int64_t kElementsPerThread = 32768;

struct Rewards {
  const float* rewards;
  float* weights;
  float* effectiveSampleSize;
  int32_t* nonFinite;
  int64_t particleCount;
  int64_t batch;
  float inverseBeta;
};

// Items worth a thread.
DIDR_SIMD int64_t grainOf(int64_t elementsPerItem) {
  if (elementsPerItem < 1) return kElementsPerThread;
  return (kElementsPerThread + elementsPerItem - 1) / elementsPerItem;
}

// The weights of samples [b, b + lanes), and nonFinite set to the count among their rewards.
DIDR_SIMD void weighVector(const Rewards& op, int64_t b, int lanes) {
  F32 largest = simd::broadcast(-__builtin_inff());
  F32 total = simd::zero();
  for (int64_t n = 0; n < op.particleCount; ++n) {
    const F32 reward = simd::loadPartial(op.rewards + n * op.batch + b, lanes);
    largest = simd::max(largest, reward);
    total += reward;
  }
  F32 sum = simd::zero();
  F32 squares = simd::zero();
  for (int64_t block = 0; block < op.particleCount; block += kWeightBlock) {
    const int64_t end =
        block + kWeightBlock < op.particleCount ? block + kWeightBlock : op.particleCount;
    F32 blockSum = simd::zero();
    F32 blockSquares = simd::zero();
    for (int64_t n = block; n < end; ++n) {
      const F32 reward = simd::loadPartial(op.rewards + n * op.batch + b, lanes);
      const F32 weight = simd::exp((reward - largest) * op.inverseBeta);
      simd::storePartial(op.weights + n * op.batch + b, weight, lanes);
      blockSum += weight;
      blockSquares = simd::fma(weight, weight, blockSquares);
    }
    sum += blockSum;
    squares += blockSquares;
  }
  for (int64_t n = 0; n < op.particleCount; ++n) {
    float* const weights = op.weights + n * op.batch + b;
    simd::storePartial(weights, simd::loadPartial(weights, lanes) / sum, lanes);
  }
  simd::storePartial(op.effectiveSampleSize + b, sum * sum / squares, lanes);

  float totals[kLanes];
  simd::store(totals, total);
  for (int lane = 0; lane < lanes; ++lane) {
    int32_t found = 0;
    if (!__builtin_isfinite(totals[lane]))
      for (int64_t n = 0; n < op.particleCount; ++n)
        found += countNonFinite(op.rewards + n * op.batch + b + lane, 1);
    op.nonFinite[b + lane] = found;
  }
}

template <class Args>
DIDR_SIMD void weigh(const Args& arguments, CpuContext& context) {
  const Rewards op = {arguments.rewards,    arguments.weights,       arguments.effectiveSampleSize,
                      arguments.nonFinite,  arguments.particleCount, arguments.batch,
                      arguments.inverseBeta};
  // An exponential costs about as much as four elements of a sum.
  const int64_t grain = (grainOf(4 * op.particleCount) + kLanes - 1) / kLanes * kLanes;
  context.pool.parallelFor(op.batch, grain, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b += kLanes) weighVector(op, b, simd::lanesLeft(end - b));
  });
}

// kCentred: sum_n (w_n - 1/N) (x_n - x_0), else sum_n w_n x_n.
template <bool kCentred, class T>
struct WeightedSum {
  const T* rows;  // [particleCount, batch, sampleSize]
  const float* weights;
  T* score;
  int32_t* nonFinite;
  int64_t particleCount;
  int64_t batch;
  int64_t sampleSize;

  // Elements per step: a whole number of vectors and of logical lanes.
  static constexpr int64_t kStep = 4 * simd::kLogicalLanes / simd::kLaneVectors;

  // Some rows at a run's start, and their coefficients.
  struct RowBlock {
    DIDR_MEMBER_HOST_DEVICE RowBlock(const WeightedSum& sum, int64_t n, int64_t sample,
                                     int64_t begin)
        : base(sum.rows + sample * sum.sampleSize + begin),
          score(sum.score + sample * sum.sampleSize + begin),
          count(static_cast<int>(sum.particleCount - n < kRowBlock ? sum.particleCount - n
                                                                   : kRowBlock)) {
      for (int r = 0; r < count; ++r) {
        row[r] = base + (n + r) * sum.batch * sum.sampleSize;
        const float weight = sum.weights[(n + r) * sum.batch + sample];
        coefficient[r] = kCentred ? weight - 1.0f / static_cast<float>(sum.particleCount) : weight;
      }
    }

    const T* base;
    T* score;
    int count;
    const T* row[kRowBlock];
    float coefficient[kRowBlock];
  };

  struct Outcome {
    F32 total = {};  // not finite if an input is not
    simd::LaneSum squares;
  };

  // Adds a block's rows to kVectors vectors from element i on; after the last block the score is
  // written.
  template <int kVectors, bool kWhole>
  DIDR_SIMD void addVectors(const RowBlock& block, int64_t i, int lanes, bool first, bool last,
                            float factor, float* sums, Outcome& outcome) {
    const auto read = [&](const T* p, int v) {
      if constexpr (kWhole)
        return simd::load(p + i + v * kLanes);
      else
        return simd::loadPartial(p + i, lanes);
    };
    F32 base[kVectors] = {};
    if constexpr (kCentred)
      for (int v = 0; v < kVectors; ++v) base[v] = read(block.base, v);
    F32 sum[kVectors] = {};
    for (int r = 0; r < block.count; ++r) {
      const F32 coefficient = simd::broadcast(block.coefficient[r]);
      for (int v = 0; v < kVectors; ++v) {
        F32 x = read(block.row[r], v);
        if constexpr (kCentred) x -= base[v];
        sum[v] = simd::fma(coefficient, x, sum[v]);
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      float* const kept = sums + i + v * kLanes;
      if (!first) sum[v] += simd::load(kept);
      if (!last) {
        simd::store(kept, sum[v]);
        continue;
      }
      const F32 score = sum[v] * factor;
      outcome.total += score;
      F32& part = outcome.squares.parts[(i / kLanes + v) % simd::kLaneVectors];
      part = simd::fma(score, score, part);
      if constexpr (kWhole)
        simd::store(block.score + i + v * kLanes, score);
      else
        simd::storePartial(block.score + i, score, lanes);
    }
  }

  // Writes the score of elements [begin, begin + count) of a sample; returns the sum of its
  // squares.
  float computeRun(int64_t sample, int64_t begin, int64_t count, float factor) const {
    alignas(64) float sums[kParticleRun];
    Outcome outcome;
    for (int64_t n = 0; n < particleCount; n += kRowBlock) {
      const RowBlock block(*this, n, sample, begin);
      const bool first = n == 0;
      const bool last = n + kRowBlock >= particleCount;
      int64_t i = 0;
      for (; i + kStep <= count; i += kStep)
        addVectors<kStep / kLanes, true>(block, i, kLanes, first, last, factor, sums, outcome);
      for (; i < count; i += kLanes)
        addVectors<1, false>(block, i, simd::lanesLeft(count - i), first, last, factor, sums,
                             outcome);
    }
    if (simd::any(simd::isNonFinite(outcome.total))) {
      int32_t found = 0;
      for (int64_t n = 0; n < particleCount; ++n)
        found += countNonFinite(rows + (n * batch + sample) * sampleSize + begin, count);
      addCount(nonFinite + sample, found);
    }
    return outcome.squares.total();
  }

  // Calls body(sample, run, begin, count) for every run of every sample, in parallel.
  template <class Body>
  void forEachRun(CpuContext& context, int64_t rowsPerRun, const Body& body) const {
    const int64_t runs = particleRunsPerSample(sampleSize);
    const int64_t longest = sampleSize < kParticleRun ? sampleSize : kParticleRun;
    context.pool.parallelFor(
        batch * runs, grainOf(longest * rowsPerRun), [&](int64_t itemBegin, int64_t itemEnd) {
          for (int64_t item = itemBegin; item < itemEnd; ++item) {
            const int64_t begin = item % runs * kParticleRun;
            const int64_t left = sampleSize - begin;
            body(item / runs, item, begin, left < kParticleRun ? left : kParticleRun);
          }
        });
  }
};

template <class T>
DIDR_SIMD void diffusedRewardScoreAs(const DiffusedRewardScoreArgs& arguments,
                                     CpuContext& context) {
  weigh(arguments, context);
  const WeightedSum<true, T> sum = {static_cast<const T*>(arguments.particles),
                                    arguments.weights,
                                    static_cast<T*>(arguments.score),
                                    arguments.nonFinite,
                                    arguments.particleCount,
                                    arguments.batch,
                                    arguments.sampleSize};
  sum.forEachRun(
      context, arguments.particleCount, [&](int64_t sample, int64_t, int64_t begin, int64_t count) {
        const double alpha = arguments.coefficients[2 * sample];
        const double sigma = arguments.coefficients[2 * sample + 1];
        sum.computeRun(sample, begin, count, static_cast<float>(alpha / (sigma * sigma)));
      });
}

template <class T>
DIDR_SIMD void weightedRewardGradientAs(const WeightedRewardGradientArgs& arguments,
                                        CpuContext& context) {
  weigh(arguments, context);
  const WeightedSum<false, T> sum = {static_cast<const T*>(arguments.gradients),
                                     arguments.weights,
                                     static_cast<T*>(arguments.score),
                                     arguments.nonFinite,
                                     arguments.particleCount,
                                     arguments.batch,
                                     arguments.sampleSize};
  sum.forEachRun(context, arguments.particleCount,
                 [&](int64_t sample, int64_t run, int64_t begin, int64_t count) {
                   arguments.workspace[run] = static_cast<double>(
                       sum.computeRun(sample, begin, count, arguments.factor[sample]));
                 });
  const int64_t runs = particleRunsPerSample(arguments.sampleSize);
  bool clips = false;
  for (int64_t b = 0; b < arguments.batch; ++b) {
    double squares = 0.0;
    for (int64_t r = 0; r < runs; ++r) squares += arguments.workspace[b * runs + r];
    arguments.norm[b] = static_cast<float>(__builtin_sqrt(squares));
    clips |= arguments.maxNorm > 0.0f && arguments.norm[b] > arguments.maxNorm;
  }
  if (!clips) return;
  sum.forEachRun(context, 1, [&](int64_t sample, int64_t, int64_t begin, int64_t count) {
    if (!(arguments.norm[sample] > arguments.maxNorm)) return;
    const float scale = arguments.maxNorm / arguments.norm[sample];
    T* const score = sum.score + sample * arguments.sampleSize + begin;
    for (int64_t i = 0; i < count; i += kLanes) {
      const int lanes = simd::lanesLeft(count - i);
      simd::storePartial(score + i, simd::loadPartial(score + i, lanes) * scale, lanes);
    }
  });
}

}  // namespace

void softmaxWeightsCpu(const SoftmaxWeightsArgs& arguments, CpuContext& context) {
  weigh(arguments, context);
}

void diffusedRewardScoreCpu(const DiffusedRewardScoreArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    diffusedRewardScoreAs<BFloat16>(arguments, context);
  else
    diffusedRewardScoreAs<float>(arguments, context);
}

void weightedRewardGradientCpu(const WeightedRewardGradientArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    weightedRewardGradientAs<BFloat16>(arguments, context);
  else
    weightedRewardGradientAs<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
