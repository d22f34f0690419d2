// The Integral KL's cotangent on CUDA: the contract of integral_kl.h.
//
//   difference = b_psi o_psi - b_ref o~ + (a_psi - a_ref) x_t,  residual = difference - (sigma^2/alpha) s_r
//   gradient = scale residual;  sums of residual^2 and difference^2;  with dmd, scale is divided by mean |x0 - xhat0_ref|
//
// One row of threads (a warp for small samples, up to 512 threads for large ones) per run of 8192 elements of a sample,
// counted from the sample's start, so that neither the batch nor the sample's place in it changes a sum. Vectors of 16
// bytes where the sample size is a multiple of them; else the same elements go to the same threads one by one.
//
// The per-sample scalars are formed in float64 by one thread of the row. Squares are added per thread in float32 (16 at
// most), from there on in float64: lanes in a butterfly, warps in order, a sample's runs by one warp in a second launch,
// and the samples of a bin in order, by one thread per bin, in a third.
//
// dmd needs the sample's mean first. A sample of one run is held in registers over that reduction, in the same launch;
// larger ones take a launch more, which reads x0, x_t and the teacher's outputs. Bytes per element: every input that the
// contract needs read once, the gradient written once; for dmd beyond a run x0, x_t and the teacher's outputs once more.
#include <cmath>

#include "native/core/cuda_block.h"
#include "native/core/cuda_vector.h"
#include "native/ops/didr/integral_kl.h"

namespace didr {
namespace {

constexpr int kThreads = 512;
constexpr int kTotalsThreads = 256;
constexpr int kBinThreads = 128;

// Workspace of a run.
enum Sum { kTarget = 0, kReference = 1, kDmd = 2, kSums = 3 };

struct Scale {
  float assistant, teacher;  // of the outputs
  float xt;                  // of x_t in the difference
  float teacherXt;           // of x_t in the teacher's denoiser
  float drs;
  float gradient;
};

// Where a row works.
struct Run {
  int64_t row;  // over all samples' runs; beyond the last one nothing is left to do
  int64_t sample;
  int64_t begin;  // flat
  int length;
  bool aligned;
};

template <class T>
__device__ Run runOfRow(const IntegralKLArgs& arguments, int64_t rows) {
  const int64_t perSample = integralKLRunsPerSample(arguments.sampleSize);
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= rows) return {row, 0, 0, 0, false};
  const int64_t sample = row / perSample;
  const int64_t offset = row % perSample * kIntegralKLRun;
  const int64_t left = arguments.sampleSize - offset;
  return {row, sample, sample * arguments.sampleSize + offset,
          static_cast<int>(left < kIntegralKLRun ? left : kIntegralKLRun),
          arguments.sampleSize % kVector<T> == 0};
}

// The k-th vector of this thread.
template <class T>
__device__ VectorPart partOf(const Run& run, int first) {
  constexpr int V = kVector<T>;
  const int left = run.length - first;
  return {0, left < V ? left : V, run.aligned && left >= V};
}

// The guided teacher's output; `bad` counts what was read. `part` begins at `first` of the flat batch.
template <class T>
__device__ void loadTeacher(const IntegralKLArgs& arguments, int64_t first, const VectorPart& part,
                            float (&o)[kVector<T>], int& bad) {
  loadPart(static_cast<const T*>(arguments.teacher) + first, part, o);
  bad += countNonFinite(o);
  if (arguments.teacherUncond == nullptr) return;
  float uncond[kVector<T>];
  loadPart(static_cast<const T*>(arguments.teacherUncond) + first, part, uncond);
  bad += countNonFinite(uncond);
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i)
    o[i] = __fmaf_rn(arguments.guidance, __fsub_rn(o[i], uncond[i]), uncond[i]);
}

// |x0 - xhat0_ref| of a vector, given the teacher's output.
__device__ inline float distance(const Scale& scale, float x0, float xt, float o) {
  return fabsf(__fsub_rn(x0, __fmaf_rn(scale.teacherXt, xt, __fmul_rn(scale.teacher, o))));
}

__device__ inline Scale scaleOf(const IntegralKLArgs& arguments, int64_t sample) {
  const IntegralKLCoefficients c = integralKLCoefficients(arguments, sample);
  return {static_cast<float>(c.assistantOutput),
          static_cast<float>(c.teacherOutput),
          static_cast<float>(c.assistantXt - c.teacherXt),
          static_cast<float>(c.teacherXt),
          static_cast<float>(c.drs),
          static_cast<float>(c.gradient)};
}

// What the gradient is divided by, of a sample's summed distances.
__device__ inline float dmdScale(const IntegralKLArgs& arguments, float scale, double sum) {
  const double mean = sum / static_cast<double>(arguments.sampleSize);
  return static_cast<float>(scale / (mean > kDmdFloor ? mean : kDmdFloor));
}

// The sum of |x0 - xhat0_ref| of every run.
template <class T>
__global__ void __launch_bounds__(kThreads)
    dmdDistanceKernel(IntegralKLArgs arguments, int64_t rows) {
  constexpr int V = kVector<T>;
  constexpr int kVectorsPerThread = kIntegralKLRun / kThreads / V;
  const Run run = runOfRow<T>(arguments, rows);
  DIDR_SHARED(Scale, scales, 8);
  if (threadIdx.x == 0) scales[threadIdx.y] = scaleOf(arguments, run.sample);
  __syncthreads();
  const Scale scale = scales[threadIdx.y];

  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const int first = (k * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * V;
    if (first >= run.length) break;
    const VectorPart part = partOf<T>(run, first);
    const int64_t at = run.begin + first;
    float o[V], xt[V], x0[V];
    int counted = 0;  // by integralKLKernel, which reads the same values
    loadTeacher<T>(arguments, at, part, o, counted);
    loadPart(static_cast<const T*>(arguments.xt) + at, part, xt);
    loadPart(static_cast<const T*>(arguments.x0) + at, part, x0);
    const int bad = countNonFinite(x0);
    if (bad > 0) atomicAdd(arguments.nonFinite + run.sample, bad);
#pragma unroll
    for (int i = 0; i < V; ++i)
      if (part.has(i)) sum = __fadd_rn(sum, distance(scale, x0[i], xt[i], o[i]));
  }
  const double total = rowSum(static_cast<double>(sum));
  if (run.row < rows && threadIdx.x == 0) arguments.workspace[kSums * run.row + kDmd] = total;
}

// The divisor of the dmd weighting: none, found here (samples of one run), or from dmdDistanceKernel.
enum class Dmd { kNone, kHere, kBefore };

// Two blocks to a multiprocessor, except where the registers hold residuals too: there they would spill, and one block
// has enough loads on the way.
constexpr int blocksPerMultiprocessor(Dmd mode) { return mode == Dmd::kHere ? 1 : 2; }

template <class T, Dmd kDmdMode>
__global__ void __launch_bounds__(kThreads, blocksPerMultiprocessor(kDmdMode))
    integralKLKernel(IntegralKLArgs arguments, int64_t rows) {
  constexpr int V = kVector<T>;
  constexpr int kVectorsPerThread = kIntegralKLRun / kThreads / V;
  const Run run = runOfRow<T>(arguments, rows);
  const bool readsXt = integralKLReadsXt(arguments);
  DIDR_SHARED(Scale, scales, 8);
  if (threadIdx.x == 0) scales[threadIdx.y] = scaleOf(arguments, run.sample);
  __syncthreads();
  Scale scale = scales[threadIdx.y];
  if (kDmdMode == Dmd::kBefore) {
    const int64_t perSample = integralKLRunsPerSample(arguments.sampleSize);
    double sum = 0.0;
    if (run.row < rows)
      for (int64_t r = threadIdx.x; r < perSample; r += blockDim.x)
        sum += arguments.workspace[kSums * (run.sample * perSample + r) + kDmd];
    scale.gradient = dmdScale(arguments, scale.gradient, rowSum(sum));
  }

  float residuals[kVectorsPerThread][V];
  float targetSum = 0.0f;
  float referenceSum = 0.0f;
  float distanceSum = 0.0f;
  int bad = 0;
#pragma unroll
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const int first = (k * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * V;
    if (first >= run.length) break;
    const VectorPart part = partOf<T>(run, first);
    const int64_t at = run.begin + first;
    float o[V], x[V];
    loadTeacher<T>(arguments, at, part, o, bad);
    loadPart(static_cast<const T*>(arguments.assistant) + at, part, x);
    bad += countNonFinite(x);
    float(&residual)[V] = residuals[k];
#pragma unroll
    for (int i = 0; i < V; ++i)
      residual[i] = __fmaf_rn(scale.assistant, x[i], -__fmul_rn(scale.teacher, o[i]));
    if (readsXt) {
      loadPart(static_cast<const T*>(arguments.xt) + at, part, x);
      bad += countNonFinite(x);
#pragma unroll
      for (int i = 0; i < V; ++i) residual[i] = __fmaf_rn(scale.xt, x[i], residual[i]);
    }
    if (kDmdMode == Dmd::kHere) {
      float x0[V];
      loadPart(static_cast<const T*>(arguments.x0) + at, part, x0);
      bad += countNonFinite(x0);
#pragma unroll
      for (int i = 0; i < V; ++i)
        if (part.has(i)) distanceSum = __fadd_rn(distanceSum, distance(scale, x0[i], x[i], o[i]));
    }
    // Elements outside the part are zero from here on: all that was read for them is.
#pragma unroll
    for (int i = 0; i < V; ++i) referenceSum = __fmaf_rn(residual[i], residual[i], referenceSum);
    if (arguments.drs != nullptr) {
      loadPart(static_cast<const T*>(arguments.drs) + at, part, x);
      bad += countNonFinite(x);
#pragma unroll
      for (int i = 0; i < V; ++i) residual[i] = __fmaf_rn(-scale.drs, x[i], residual[i]);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) targetSum = __fmaf_rn(residual[i], residual[i], targetSum);
    if (kDmdMode != Dmd::kHere) {
#pragma unroll
      for (int i = 0; i < V; ++i) residual[i] = __fmul_rn(scale.gradient, residual[i]);
      storePart(static_cast<T*>(arguments.gradient) + at, part, residual);
    }
  }
  if (bad > 0) atomicAdd(arguments.nonFinite + run.sample, bad);
  if (kDmdMode == Dmd::kHere) {
    scale.gradient = dmdScale(arguments, scale.gradient, rowSum(static_cast<double>(distanceSum)));
#pragma unroll
    for (int k = 0; k < kVectorsPerThread; ++k) {
      const int first = (k * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * V;
      if (first >= run.length) break;
#pragma unroll
      for (int i = 0; i < V; ++i) residuals[k][i] = __fmul_rn(scale.gradient, residuals[k][i]);
      storePart(static_cast<T*>(arguments.gradient) + run.begin + first, partOf<T>(run, first),
                residuals[k]);
    }
  }
  const double target = rowSum(static_cast<double>(targetSum));
  const double reference = rowSum(static_cast<double>(referenceSum));
  if (run.row < rows && threadIdx.x == 0) {
    arguments.workspace[kSums * run.row + kTarget] = target;
    arguments.workspace[kSums * run.row + kReference] = reference;
  }
}

// A sample's totals, by one warp. They stay in float64 in the workspace of the sample's first run for the bins.
__global__ void __launch_bounds__(kTotalsThreads) integralKLTotalsKernel(IntegralKLArgs arguments) {
  const int64_t sample = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (sample >= arguments.batch) return;
  const int64_t perSample = integralKLRunsPerSample(arguments.sampleSize);
  double* const sums = arguments.workspace + kSums * sample * perSample;
  double target = 0.0;
  double reference = 0.0;
  for (int64_t r = threadIdx.x; r < perSample; r += kWarpThreads) {
    target += sums[kSums * r + kTarget];
    reference += sums[kSums * r + kReference];
  }
  target = warpSum(target);
  reference = warpSum(reference);
  if (threadIdx.x != 0) return;
  const double alpha = arguments.coefficients[2 * sample];
  const double sigma = arguments.coefficients[2 * sample + 1];
  const double norm = alpha / sigma * (alpha / sigma);
  if (perSample > 0) {
    sums[kTarget] = norm * target;
    sums[kReference] = norm * reference;
  }
  arguments.target[sample] = static_cast<float>(norm * target);
  arguments.reference[sample] = static_cast<float>(norm * reference);
}

// One thread per bin goes through the samples in order, which come by way of shared memory, a block's worth at a time.
__global__ void __launch_bounds__(kBinThreads) integralKLBinsKernel(IntegralKLArgs arguments) {
  DIDR_SHARED(int32_t, bins, kBinThreads);
  DIDR_SHARED(double, targets, kBinThreads);
  DIDR_SHARED(double, references, kBinThreads);
  const int64_t stride = kSums * integralKLRunsPerSample(arguments.sampleSize);
  const int64_t bin = int64_t{blockIdx.x} * kBinThreads + threadIdx.x;
  const bool present = bin < arguments.binCount;
  double* const row = arguments.accumulator + bin;
  double target = present ? row[0] : 0.0;
  double reference = present ? row[arguments.binCount] : 0.0;
  double count = present ? row[2 * int64_t{arguments.binCount}] : 0.0;
  for (int64_t first = 0; first < arguments.batch; first += kBinThreads) {
    const int64_t sample = first + threadIdx.x;
    if (sample < arguments.batch) {
      const double t =
          arguments.sampleSize > 0 ? arguments.workspace[sample * stride + kTarget] : 0;
      const double r =
          arguments.sampleSize > 0 ? arguments.workspace[sample * stride + kReference] : 0;
      bins[threadIdx.x] = std::isfinite(t) && std::isfinite(r) ? arguments.bins[sample] : -1;
      targets[threadIdx.x] = t;
      references[threadIdx.x] = r;
    }
    __syncthreads();
    const int64_t left = arguments.batch - first;
    for (int i = 0; i < kBinThreads && i < left; ++i) {
      if (bins[i] != bin) continue;
      target += targets[i];
      reference += references[i];
      count += 1.0;
    }
    __syncthreads();
  }
  if (!present) return;
  row[0] = target;
  row[arguments.binCount] = reference;
  row[2 * int64_t{arguments.binCount}] = count;
}

template <class T>
void launchIntegralKL(const IntegralKLArgs& arguments, CudaContext& context) {
  const int64_t perSample = integralKLRunsPerSample(arguments.sampleSize);
  const int64_t rows = arguments.batch * perSample;
  const int64_t longest =
      arguments.sampleSize < kIntegralKLRun ? arguments.sampleSize : kIntegralKLRun;
  const unsigned threads = rowThreads((longest + kVector<T> - 1) / kVector<T>, kThreads);
  const unsigned perBlock = rowsPerBlock(threads);
  const dim3 blocks = blocksFor(rows, perBlock);
  const dim3 block(threads, perBlock);
  const char* const name = "integralKL";
  if (arguments.weighting != Weighting::kDmd) {
    context.launch(name, integralKLKernel<T, Dmd::kNone>, blocks, block, arguments, rows);
  } else if (perSample == 1) {
    context.launch(name, integralKLKernel<T, Dmd::kHere>, blocks, block, arguments, rows);
  } else {
    context.launch("integralKL's dmd distance", dmdDistanceKernel<T>, blocks, block, arguments,
                   rows);
    context.launch(name, integralKLKernel<T, Dmd::kBefore>, blocks, block, arguments, rows);
  }
}

}  // namespace

void integralKLCuda(const IntegralKLArgs& arguments, CudaContext& context) {
  if (arguments.batch <= 0) return;
  context.zero("integralKL", arguments.nonFinite, arguments.batch * sizeof(int32_t));
  if (arguments.sampleSize > 0) {
    if (arguments.dtype == DType::kFloat32)
      launchIntegralKL<float>(arguments, context);
    else
      launchIntegralKL<BFloat16>(arguments, context);
  }
  constexpr unsigned kRows = kTotalsThreads / kWarpThreads;
  context.launch("integralKL's totals", integralKLTotalsKernel, blocksFor(arguments.batch, kRows),
                 dim3(kWarpThreads, kRows), arguments);
  if (arguments.accumulator != nullptr && arguments.binCount > 0)
    context.launch("integralKL's bins", integralKLBinsKernel,
                   blocksFor(arguments.binCount, kBinThreads), kBinThreads, arguments);
}

}  // namespace didr
