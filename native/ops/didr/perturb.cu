// x_t = alpha x0 + sigma eps on CUDA: the contract of perturb.h, eps with the same bits as on the CPU.
//
// The batch is one flat array, cut into vectors of 16 bytes; those start at multiples of 4 elements, where random
// blocks start too, and are aligned whatever the sample size. A thread takes a vector, draws its noise in registers,
// and goes on by the grid's stride; which sample it is in is followed by additions, with one division per thread. The
// vectors that cross from one sample into the next, and the last one, go element by element. Bytes per element: what
// the contract asks for, x0 once and xt (and noise) once. Philox and Box-Muller take about 40 instructions per element,
// so that large grids are bound by arithmetic as much as by memory; hence few registers and full occupancy.
#include "native/core/cuda_vector.h"
#include "native/ops/didr/perturb.h"
#include "native/ops/random/normal.h"

namespace didr {
namespace {

constexpr int kThreads = 256;

// A grid's stride in samples and elements.
struct SampleStride {
  int64_t samples;
  int64_t elements;
};

__device__ inline float perturbed(float alpha, float sigma, float x0, float noise) {
  return __fmaf_rn(sigma, noise, __fmul_rn(alpha, x0));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    perturbKernel(PerturbArgs arguments, SampleStride stride) {
  constexpr int V = kVector<T>;
  const T* const x0 = static_cast<const T*>(arguments.x0);
  T* const xt = static_cast<T*>(arguments.xt);
  T* const noise = static_cast<T*>(arguments.noise);
  const int64_t total = arguments.batch * arguments.sampleSize;
  const int64_t step = int64_t{gridDim.x} * kThreads * V;
  int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * V;
  int64_t sample = first / arguments.sampleSize;
  int64_t element = first % arguments.sampleSize;
  for (; first < total; first += step) {
    float eps[V];
#pragma unroll
    for (int q = 0; q < V / 4; ++q) {
      const NormalBlock normals =
          normalDraw(arguments.seed, arguments.offset, static_cast<uint64_t>(first / 4 + q));
#pragma unroll
      for (int i = 0; i < 4; ++i) eps[4 * q + i] = normals.value[i];
    }
    if (element + V <= arguments.sampleSize) {
      const float alpha = arguments.coefficients[2 * sample];
      const float sigma = arguments.coefficients[2 * sample + 1];
      float x[V];
      loadVector(x0 + first, x);
      const int bad = countNonFinite(x);
      if (bad > 0) atomicAdd(arguments.nonFinite + sample, bad);
#pragma unroll
      for (int i = 0; i < V; ++i) x[i] = perturbed(alpha, sigma, x[i], eps[i]);
      storeVector(xt + first, x);
      if (noise != nullptr) storeVector(noise + first, eps);
    } else {
      int64_t s = sample;
      int64_t j = element;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (first + i < total) {
          const float x[1] = {toFloat(x0[first + i])};
          if (countNonFinite(x) > 0) atomicAdd(arguments.nonFinite + s, 1);
          storeElement(xt + first + i, perturbed(arguments.coefficients[2 * s],
                                                 arguments.coefficients[2 * s + 1], x[0], eps[i]));
          if (noise != nullptr) storeElement(noise + first + i, eps[i]);
        }
        if (++j == arguments.sampleSize) {
          j = 0;
          ++s;
        }
      }
    }
    sample += stride.samples;
    element += stride.elements;
    if (element >= arguments.sampleSize) {
      element -= arguments.sampleSize;
      ++sample;
    }
  }
}

template <class T>
void launchPerturb(const PerturbArgs& arguments, CudaContext& context) {
  const int64_t perBlock = kThreads * kVector<T>;
  const unsigned blocks =
      context.gridStrideBlocks(arguments.batch * arguments.sampleSize, perBlock);
  const int64_t step = blocks * perBlock;
  context.launch("perturb", perturbKernel<T>, blocks, kThreads, arguments,
                 SampleStride{step / arguments.sampleSize, step % arguments.sampleSize});
}

}  // namespace

void perturbCuda(const PerturbArgs& arguments, CudaContext& context) {
  if (arguments.batch <= 0) return;
  context.zero("perturb", arguments.nonFinite, arguments.batch * sizeof(int32_t));
  if (arguments.sampleSize <= 0) return;
  if (arguments.dtype == DType::kFloat32)
    launchPerturb<float>(arguments, context);
  else
    launchPerturb<BFloat16>(arguments, context);
}

}  // namespace didr
