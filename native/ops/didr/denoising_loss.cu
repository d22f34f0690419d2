// Denoising score matching on CUDA: the contract of denoising_loss.h.
//
//   d_j = output_j - target_j,  gradient_j = 2 weight d_j / (sampleSize batch),  loss = weight / sampleSize sum_j d_j^2
//
// One row of threads (a warp for small samples, up to 512 threads for large ones) per workspace slot, that is per piece
// of a sample inside a run of 8192 elements of the flat batch. A thread takes vectors of 16 bytes that start at flat
// multiples of their size, so they are aligned and begin where random blocks begin, whatever the sample size; a piece's
// first and last vector may be partial. The noise is drawn again in registers. Squares are added per thread in float32
// (16 at most), from there on in float64, lanes in a butterfly and warps in order; a second small launch adds a sample's
// pieces. So the order depends on the shapes alone. Bytes per element: output (and x0) read once, gradient written once.
#include "native/core/cuda_block.h"
#include "native/core/cuda_vector.h"
#include "native/ops/didr/denoising_loss.h"
#include "native/ops/random/normal.h"

namespace didr {
namespace {

constexpr int kThreads = 512;
constexpr int kFinishThreads = 256;

struct Scale {
  float noise;
  float x0;
  float gradient;
};

// The sample whose pieces include workspace slot `slot`: the last b with b + floor(b sampleSize / run) <= slot.
__device__ inline int64_t sampleOfSlot(const DenoisingLossArgs& arguments, int64_t slot) {
  const auto firstSlot = [&](int64_t b) {
    return b + b * arguments.sampleSize / kDenoisingLossRun;
  };
  int64_t sample = slot * kDenoisingLossRun / (kDenoisingLossRun + arguments.sampleSize);
  while (sample + 1 < arguments.batch && firstSlot(sample + 1) <= slot) ++sample;
  return sample;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    denoisingLossKernel(DenoisingLossArgs arguments, int64_t slots) {
  constexpr int V = kVector<T>;
  constexpr int kVectorsPerThread = kDenoisingLossRun / kThreads / V;
  const T* const x0 = static_cast<const T*>(arguments.x0);
  const T* const output = static_cast<const T*>(arguments.output);
  T* const gradient = static_cast<T*>(arguments.gradient);

  const int64_t slot = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool present = slot < slots;
  const int64_t sample = present ? sampleOfSlot(arguments, slot) : 0;
  const int64_t run = slot - sample;
  const int64_t sampleBegin = sample * arguments.sampleSize;
  const int64_t sampleEnd = sampleBegin + arguments.sampleSize;
  const int64_t runBegin = run * kDenoisingLossRun;
  const int64_t begin = sampleBegin > runBegin ? sampleBegin : runBegin;
  const int64_t runEnd = runBegin + kDenoisingLossRun;
  const int64_t end = !present ? begin : sampleEnd < runEnd ? sampleEnd : runEnd;

  DIDR_SHARED(Scale, scales, 8);
  if (threadIdx.x == 0) {
    const TargetCoefficients target =
        targetOf(arguments.prediction, arguments.coefficients[2 * sample],
                 arguments.coefficients[2 * sample + 1]);
    const double weight = arguments.weights != nullptr ? arguments.weights[sample] : 1.0;
    scales[threadIdx.y] = {static_cast<float>(target.noise), static_cast<float>(target.x0),
                           static_cast<float>(2.0 * weight /
                                              (static_cast<double>(arguments.sampleSize) *
                                               static_cast<double>(arguments.batch)))};
  }
  __syncthreads();
  const Scale scale = scales[threadIdx.y];

  float sum = 0.0f;
  int bad = 0;
#pragma unroll
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const int64_t first =
        begin / V * V + (int64_t{k} * blockDim.x + static_cast<int>(threadIdx.x)) * V;
    if (first >= end) break;
    const VectorPart part = {first < begin ? static_cast<int>(begin - first) : 0,
                             end - first < V ? static_cast<int>(end - first) : V,
                             first >= begin && end - first >= V};
    float d[V];
    loadPart(output + first, part, d);
    bad += countNonFinite(d);
    if (arguments.prediction != Prediction::kEpsilon) {
      float x[V];
      loadPart(x0 + first, part, x);
      bad += countNonFinite(x);
#pragma unroll
      for (int i = 0; i < V; ++i) d[i] = __fmaf_rn(-scale.x0, x[i], d[i]);
    }
    if (arguments.prediction != Prediction::kX0) {
#pragma unroll
      for (int q = 0; q < V / 4; ++q) {
        const NormalBlock normals =
            normalDraw(arguments.seed, arguments.offset, static_cast<uint64_t>(first / 4 + q));
#pragma unroll
        for (int i = 0; i < 4; ++i)
          d[4 * q + i] = __fmaf_rn(-scale.noise, normals.value[i], d[4 * q + i]);
      }
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (part.has(i)) sum = __fmaf_rn(d[i], d[i], sum);
      d[i] = __fmul_rn(scale.gradient, d[i]);
    }
    storePart(gradient + first, part, d);
  }
  if (bad > 0) atomicAdd(arguments.nonFinite + sample, bad);
  const double total = rowSum(static_cast<double>(sum));
  if (present && threadIdx.x == 0) arguments.workspace[slot] = total;
}

// One warp per sample.
__global__ void __launch_bounds__(kFinishThreads)
    denoisingLossFinishKernel(DenoisingLossArgs arguments) {
  const int64_t sample = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (sample >= arguments.batch) return;
  const int64_t begin = sample * arguments.sampleSize;
  const int64_t firstSlot = sample + begin / kDenoisingLossRun;
  const int64_t lastSlot = sample + (begin + arguments.sampleSize - 1) / kDenoisingLossRun;
  double total = 0.0;
  for (int64_t slot = firstSlot + threadIdx.x; slot <= lastSlot; slot += kWarpThreads)
    total += arguments.workspace[slot];
  total = warpSum(total);
  if (threadIdx.x == 0) {
    const double weight = arguments.weights != nullptr ? arguments.weights[sample] : 1.0;
    arguments.loss[sample] =
        static_cast<float>(weight * total / static_cast<double>(arguments.sampleSize));
  }
}

template <class T>
void launchDenoisingLoss(const DenoisingLossArgs& arguments, CudaContext& context) {
  const int64_t slots = denoisingLossWorkspace(arguments.batch, arguments.sampleSize);
  const int64_t longest =
      arguments.sampleSize < kDenoisingLossRun ? arguments.sampleSize : kDenoisingLossRun;
  // A piece may touch one vector more than it fills.
  const unsigned threads = rowThreads((longest + 2 * kVector<T> - 2) / kVector<T>, kThreads);
  const unsigned rows = rowsPerBlock(threads);
  context.launch("denoisingLoss", denoisingLossKernel<T>, blocksFor(slots, rows),
                 dim3(threads, rows), arguments, slots);
}

}  // namespace

void denoisingLossCuda(const DenoisingLossArgs& arguments, CudaContext& context) {
  if (arguments.batch <= 0) return;
  context.zero("denoisingLoss", arguments.nonFinite, arguments.batch * sizeof(int32_t));
  if (arguments.sampleSize <= 0) {
    context.zero("denoisingLoss", arguments.loss, arguments.batch * sizeof(float));
    return;
  }
  if (arguments.dtype == DType::kFloat32)
    launchDenoisingLoss<float>(arguments, context);
  else
    launchDenoisingLoss<BFloat16>(arguments, context);
  constexpr unsigned kRows = kFinishThreads / kWarpThreads;
  context.launch("denoisingLossFinish", denoisingLossFinishKernel,
                 blocksFor(arguments.batch, kRows), dim3(kWarpThreads, kRows), arguments);
}

}  // namespace didr
