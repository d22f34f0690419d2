// The norm of a list of gradients on CUDA: the contract of gradient_norm.h.
//
// One thread block per block of the list leaves the sum of its squares in partials: vectors of 16
// bytes, float64 sums per thread, lanes in butterflies, warps in order. A second launch of one
// thread block adds up the partials, a thread every 512th of them, and merges the threads likewise;
// so the order depends on the sizes alone. It also finds out what is wrong where the norm is not
// finite: a block's sum is finite if and only if its elements are, so that only the faulty blocks
// of the first faulty tensor are read again. Bytes: 4 read per float32 element, 2 per bfloat16; 8
// written and read per block of 8192.
#include <cmath>

#include "native/ops/optim/gradient_norm.h"
#include "native/ops/optim/list.cuda.h"
#include "native/ops/reduce/accumulate.cuda.h"

namespace didr {
namespace {

constexpr int kThreads = 256;
constexpr int kFinishThreads = 512;

__global__ void __launch_bounds__(kThreads) squaresKernel(GradientNormArgs arguments) {
  constexpr ReduceMode kSquares = {true, 0, 1.0};
  const int64_t block = blockIdx.x;
  const ListPiece<GradientRow> piece(arguments.rows, arguments.tensors, block);
  const GradientRow row = arguments.rows[piece.number];
  const int64_t count = piece.end - piece.begin;
  Sum<float> total = Sum<float>::identity();
  if (row.dtype == DType::kBFloat16)
    addRow(total, inGlobalMemory(static_cast<const BFloat16*>(row.gradient)) + piece.begin, 0,
           count, kSquares);
  else
    addRow(total, inGlobalMemory(static_cast<const float*>(row.gradient)) + piece.begin, 0, count,
           kSquares);
  total = mergeRow(total);
  if (threadIdx.x == 0) arguments.partials[block] = total.sum;
}

__device__ inline bool isFinite(double x) { return x - x == 0.0; }

template <class T>
__device__ int64_t countBad(const T* x, int64_t begin, int64_t end) {
  int64_t bad = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
    bad += scalar::isNonFinite(toFloat(x[i])) ? 1 : 0;
  return bad;
}

// The least of the block's numbers.
__device__ inline int64_t leastOfBlock(int64_t x) {
  const auto least = [](int64_t a, int64_t b) { return a < b ? a : b; };
#pragma unroll
  for (int lanes = kWarpThreads / 2; lanes > 0; lanes /= 2)
    x = least(x, __shfl_xor_sync(~0u, x, lanes));
  return combineWarps(x, least);
}

__device__ inline GradientFault faultOf(const GradientNormArgs& arguments) {
  int64_t first = arguments.blocks;
  for (int64_t block = threadIdx.x; block < arguments.blocks; block += blockDim.x)
    if (first == arguments.blocks && !isFinite(arguments.partials[block])) first = block;
  first = leastOfBlock(first);
  if (first == arguments.blocks) return {arguments.tensors, -1, 0};
  const int64_t r = rowOfBlock(arguments.rows, arguments.tensors, first);
  const GradientRow row = arguments.rows[r];
  int64_t bad = 0;
  for (int64_t b = 0; b < listBlocks(row.count); ++b) {
    if (isFinite(arguments.partials[row.firstBlock + b])) continue;
    const int64_t begin = b * kListBlock;
    const int64_t end = begin + kListBlock < row.count ? begin + kListBlock : row.count;
    bad += row.dtype == DType::kBFloat16
               ? countBad(static_cast<const BFloat16*>(row.gradient), begin, end)
               : countBad(static_cast<const float*>(row.gradient), begin, end);
  }
  return {arguments.tensors, r, rowSum(bad)};
}

// One block.
__global__ void __launch_bounds__(kFinishThreads) gradientNormKernel(GradientNormArgs arguments) {
  double sum = 0.0;
  for (int64_t block = threadIdx.x; block < arguments.blocks; block += blockDim.x)
    sum += arguments.partials[block];
  const auto norm = static_cast<float>(std::sqrt(rowSum(sum)));
  const bool finite = !scalar::isNonFinite(norm);
  GradientFault fault = {0, 0, 0};
  if (!finite && arguments.fault != nullptr) fault = faultOf(arguments);
  if (threadIdx.x != 0) return;
  const double wanted = arguments.maxNorm / (static_cast<double>(norm) + 1e-6);
  *arguments.norm = norm;
  *arguments.clip = !finite ? scalar::nan() : wanted < 1.0 ? static_cast<float>(wanted) : 1.0f;
  if (arguments.fault != nullptr) *arguments.fault = fault;
}

}  // namespace

void gradientNormCuda(const GradientNormArgs& arguments, CudaContext& context) {
  if (arguments.blocks > 0)
    context.launch("gradientNorm's squares", squaresKernel,
                   dim3(static_cast<unsigned>(arguments.blocks)), kThreads, arguments);
  context.launch("gradientNorm", gradientNormKernel, 1, kFinishThreads, arguments);
}

}  // namespace didr
