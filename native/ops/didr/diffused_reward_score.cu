// The diffused reward score's particle estimators on CUDA: the contracts of diffused_reward_score.h.
//
//   weights: one row of threads per sample (a warp for up to 32 particles): largest reward, exponentials and their sums,
//            division; each thread comes back to the particles it wrote, so nothing has to be shared but three numbers
//   sums:    one block per run of 1024 elements of a sample. Threads form columns, one vector of 16 bytes each, times
//            parts, which share the particles of a column where the sample is small: part p takes particles p, p +
//            parts, ... In a thread 64 particles are added at a time in float32, then those sums; the parts' sums are
//            added in order through shared memory.
//   clip:    a gradient's norm is known once all its runs are; one launch more scales the samples that are above it.
//            Samples of one run do it at once, in registers.
//
// So the order of every sum depends on the shapes alone. Bytes per element of the score: particleCount elements read
// once (neighbouring threads read neighbouring vectors of one particle), one written.
#include "native/core/cuda_block.h"
#include "native/core/cuda_vector.h"
#include "native/ops/didr/diffused_reward_score.h"

namespace didr {
namespace {

constexpr int kWeightThreads = 512;
constexpr int kSumThreads = 256;
constexpr int kClipThreads = 256;
constexpr int kParticlesPerPartialSum = 64;

__global__ void __launch_bounds__(kWeightThreads)
    softmaxWeightsKernel(SoftmaxWeightsArgs arguments) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool present = row < arguments.batch;
  const int64_t sample = present ? row : 0;
  const int64_t count = present ? arguments.particleCount : 0;
  float largest = -INFINITY;
  int bad = 0;
  for (int64_t n = threadIdx.x; n < count; n += blockDim.x) {
    const float reward[1] = {arguments.rewards[n * arguments.batch + sample]};
    bad += countNonFinite(reward);
    largest = fmaxf(largest, __fmul_rn(reward[0], arguments.inverseBeta));
  }
  largest = rowMax(largest);
  bad = rowSum(bad);
  double sum = 0.0;
  double squares = 0.0;
  for (int64_t n = threadIdx.x; n < count; n += blockDim.x) {
    const float reward = arguments.rewards[n * arguments.batch + sample];
    const float e = expf(__fsub_rn(__fmul_rn(reward, arguments.inverseBeta), largest));
    arguments.weights[n * arguments.batch + sample] = e;
    sum += e;
    squares += static_cast<double>(e) * e;
  }
  sum = rowSum(sum);
  squares = rowSum(squares);
  const double inverse = 1.0 / sum;
  for (int64_t n = threadIdx.x; n < count; n += blockDim.x) {
    float& weight = arguments.weights[n * arguments.batch + sample];
    weight = static_cast<float>(weight * inverse);
  }
  if (present && threadIdx.x == 0) {
    arguments.effectiveSampleSize[sample] = static_cast<float>(sum * sum / squares);
    arguments.nonFinite[sample] = bad;
  }
}

// What the two weighted sums have in common.
struct WeightedSum {
  const void* elements;  // [particleCount, batch, sampleSize]
  const float* weights;
  void* score;
  int32_t* nonFinite;
  int64_t particleCount;
  int64_t batch;
  int64_t sampleSize;
  // The particle score: sum_n (w_n - 1/N) (x_n - x_0), times alpha/sigma^2.
  const float* coefficients;
  // The reward gradient: sum_n w_n g_n, times the factor, within the norm.
  const float* factor;
  float* norm;
  double* workspace;
  float maxNorm;
};

// What brings a norm down to maxNorm.
__device__ inline float clipScale(const WeightedSum& sum, double norm) {
  return sum.maxNorm > 0.0f && norm > sum.maxNorm ? static_cast<float>(sum.maxNorm / norm) : 1.0f;
}

template <class T, bool kCentred>
__global__ void __launch_bounds__(kSumThreads) weightedSumKernel(WeightedSum sum, int columns) {
  constexpr int V = kVector<T>;
  [[maybe_unused]] constexpr int kUnrolled = 16 / V;  // loads in flight; more of them spill
  const T* const elements = static_cast<const T*>(sum.elements);
  const int64_t runs = particleRunsPerSample(sum.sampleSize);
  const int64_t sample = blockIdx.x / runs;
  const int64_t run = blockIdx.x % runs;
  const int column = static_cast<int>(threadIdx.x) % columns;
  const int part = static_cast<int>(threadIdx.x) / columns;
  const int parts = static_cast<int>(blockDim.x) / columns;
  const int64_t element = run * kParticleRun + column * V;
  const int64_t left = sum.sampleSize - element;
  const VectorPart vector = {0, left < V ? static_cast<int>(left) : V,
                             sum.sampleSize % V == 0 && left >= V};
  const int64_t at = sample * sum.sampleSize + element;
  const int64_t particleStride = sum.batch * sum.sampleSize;
  const float share = kCentred ? 1.0f / static_cast<float>(sum.particleCount) : 0.0f;

  float total[V];
  float reference[V];
#pragma unroll
  for (int i = 0; i < V; ++i) total[i] = reference[i] = 0.0f;
  if (left > 0) {
    int bad = 0;
    if (kCentred) loadPart(elements + at, vector, reference);
    for (int64_t n = part; n < sum.particleCount;) {
      float partial[V];
#pragma unroll
      for (int i = 0; i < V; ++i) partial[i] = 0.0f;
#pragma unroll kUnrolled
      for (int k = 0; k < kParticlesPerPartialSum && n < sum.particleCount; ++k, n += parts) {
        const float weight = __fsub_rn(sum.weights[n * sum.batch + sample], share);
        float x[V];
        loadPart(elements + n * particleStride + at, vector, x);
        bad += countNonFinite(x);
#pragma unroll
        for (int i = 0; i < V; ++i)
          partial[i] =
              __fmaf_rn(weight, kCentred ? __fsub_rn(x[i], reference[i]) : x[i], partial[i]);
      }
#pragma unroll
      for (int i = 0; i < V; ++i) total[i] = __fadd_rn(total[i], partial[i]);
    }
    if (bad > 0) atomicAdd(sum.nonFinite + sample, bad);
  }

  if (parts > 1) {
    DIDR_SHARED(float, partSums, kSumThreads* V);
#pragma unroll
    for (int i = 0; i < V; ++i) partSums[i * blockDim.x + threadIdx.x] = total[i];
    __syncthreads();
    if (part == 0) {
      for (int p = 1; p < parts; ++p)
#pragma unroll
        for (int i = 0; i < V; ++i)
          total[i] = __fadd_rn(total[i], partSums[i * blockDim.x + p * columns + column]);
    }
  }

  const bool writes = part == 0 && left > 0;
  float scale;
  if (kCentred) {
    const float sigma = sum.coefficients[2 * sample + 1];
    scale = __fdiv_rn(sum.coefficients[2 * sample], __fmul_rn(sigma, sigma));
  } else {
    scale = sum.factor[sample];
  }
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    total[i] = __fmul_rn(scale, total[i]);
    squares = __fmaf_rn(total[i], total[i], squares);
  }
  if (!kCentred) {
    const double square = rowSum(static_cast<double>(writes ? squares : 0.0f));
    if (runs > 1) {
      if (threadIdx.x == 0) sum.workspace[blockIdx.x] = square;
    } else {
      const double norm = sqrt(square);
      if (threadIdx.x == 0) sum.norm[sample] = static_cast<float>(norm);
      const float clip = clipScale(sum, norm);
#pragma unroll
      for (int i = 0; i < V; ++i) total[i] = __fmul_rn(clip, total[i]);
    }
  }
  if (writes) storePart(static_cast<T*>(sum.score) + at, vector, total);
}

// One block per run again: the sample's norm from all its runs, and the run's elements scaled where it is too large.
template <class T>
__global__ void __launch_bounds__(kClipThreads) clipKernel(WeightedSum sum) {
  constexpr int V = kVector<T>;
  const int64_t runs = particleRunsPerSample(sum.sampleSize);
  const int64_t sample = blockIdx.x / runs;
  const int64_t run = blockIdx.x % runs;
  double square = 0.0;
  for (int64_t r = threadIdx.x; r < runs; r += blockDim.x)
    square += sum.workspace[sample * runs + r];
  const double norm = sqrt(rowSum(square));
  if (run == 0 && threadIdx.x == 0) sum.norm[sample] = static_cast<float>(norm);
  const float clip = clipScale(sum, norm);
  if (clip == 1.0f) return;
  const int64_t element = run * kParticleRun + int64_t{threadIdx.x} * V;
  const int64_t left = sum.sampleSize - element;
  if (left <= 0) return;
  const VectorPart vector = {0, left < V ? static_cast<int>(left) : V,
                             sum.sampleSize % V == 0 && left >= V};
  T* const score = static_cast<T*>(sum.score) + sample * sum.sampleSize + element;
  float x[V];
  loadPart(score, vector, x);
#pragma unroll
  for (int i = 0; i < V; ++i) x[i] = __fmul_rn(clip, x[i]);
  storePart(score, vector, x);
}

// The smallest power of two that is at least `count`, but `most` at most.
int columnsFor(int64_t count, int most) {
  int columns = 1;
  while (columns < count && columns < most) columns *= 2;
  return columns;
}

template <class T, bool kCentred>
void launchWeightedSum(const char* name, const WeightedSum& sum, CudaContext& context) {
  const int64_t runs = particleRunsPerSample(sum.sampleSize);
  const int64_t longest = sum.sampleSize < kParticleRun ? sum.sampleSize : kParticleRun;
  const int columns = columnsFor((longest + kVector<T> - 1) / kVector<T>,
                                 static_cast<int>(kParticleRun) / kVector<T>);
  const int parts = columnsFor(sum.particleCount, kSumThreads / columns);
  const unsigned threads = static_cast<unsigned>(columns * parts);
  const unsigned blocks = static_cast<unsigned>(sum.batch * runs);
  context.launch(name, weightedSumKernel<T, kCentred>, blocks, rowThreads(threads, kSumThreads),
                 sum, columns);
  if (!kCentred && runs > 1)
    context.launch("clipping to the norm", clipKernel<T>, blocks,
                   static_cast<unsigned>(kParticleRun) / kVector<T>, sum);
}

}  // namespace

void softmaxWeightsCuda(const SoftmaxWeightsArgs& arguments, CudaContext& context) {
  if (arguments.batch <= 0) return;
  const unsigned threads = rowThreads(arguments.particleCount, kWeightThreads);
  const unsigned rows = rowsPerBlock(threads);
  context.launch("softmaxWeights", softmaxWeightsKernel, blocksFor(arguments.batch, rows),
                 dim3(threads, rows), arguments);
}

void diffusedRewardScoreCuda(const DiffusedRewardScoreArgs& arguments, CudaContext& context) {
  if (arguments.batch <= 0) return;
  softmaxWeightsCuda(
      {arguments.rewards, arguments.weights, arguments.effectiveSampleSize, arguments.nonFinite,
       arguments.particleCount, arguments.batch, arguments.inverseBeta},
      context);
  if (arguments.sampleSize <= 0) return;
  WeightedSum sum = {};
  sum.elements = arguments.particles;
  sum.weights = arguments.weights;
  sum.score = arguments.score;
  sum.nonFinite = arguments.nonFinite;
  sum.particleCount = arguments.particleCount;
  sum.batch = arguments.batch;
  sum.sampleSize = arguments.sampleSize;
  sum.coefficients = arguments.coefficients;
  if (arguments.dtype == DType::kFloat32)
    launchWeightedSum<float, true>("diffusedRewardScore", sum, context);
  else
    launchWeightedSum<BFloat16, true>("diffusedRewardScore", sum, context);
}

void weightedRewardGradientCuda(const WeightedRewardGradientArgs& arguments, CudaContext& context) {
  if (arguments.batch <= 0) return;
  softmaxWeightsCuda(
      {arguments.rewards, arguments.weights, arguments.effectiveSampleSize, arguments.nonFinite,
       arguments.particleCount, arguments.batch, arguments.inverseBeta},
      context);
  if (arguments.sampleSize <= 0) {
    context.zero("weightedRewardGradient", arguments.norm, arguments.batch * sizeof(float));
    return;
  }
  WeightedSum sum = {};
  sum.elements = arguments.gradients;
  sum.weights = arguments.weights;
  sum.score = arguments.score;
  sum.nonFinite = arguments.nonFinite;
  sum.particleCount = arguments.particleCount;
  sum.batch = arguments.batch;
  sum.sampleSize = arguments.sampleSize;
  sum.factor = arguments.factor;
  sum.norm = arguments.norm;
  sum.workspace = arguments.workspace;
  sum.maxNorm = arguments.maxNorm;
  if (arguments.dtype == DType::kFloat32)
    launchWeightedSum<float, false>("weightedRewardGradient", sum, context);
  else
    launchWeightedSum<BFloat16, false>("weightedRewardGradient", sum, context);
}

}  // namespace didr
