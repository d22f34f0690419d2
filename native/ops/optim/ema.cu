// The moving averages on CUDA: the contract of ema.h.
//
// One thread block per block of the list; a thread moves 4 elements at a time, 16 bytes of float32
// or 8 of bfloat16, and the elements after a tensor's last vector one by one. The CPU's operations
// in its order, so its bits. Bytes per element: 8 read (6 where the value is bfloat16), 4 written.
#include "native/core/cuda_packed.h"
#include "native/ops/optim/ema.h"
#include "native/ops/optim/list.cuda.h"

namespace didr {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 4;

template <class T>
__device__ void moveAverages(float* average, const T* value, int64_t begin, int64_t end,
                             float gain) {
  const int64_t whole = begin + (end - begin) / kElements * kElements;
  for (int64_t i = begin + int64_t{threadIdx.x} * kElements; i < whole; i += kThreads * kElements) {
    Packed<float, kElements> a;
    Packed<T, kElements> x;
    a.load(average + i);
    x.load(value + i);
#pragma unroll
    for (int k = 0; k < kElements; ++k) a.set(k, a.get(k) + (toFloat(x.get(k)) - a.get(k)) * gain);
    a.store(average + i);
  }
  for (int64_t i = whole + threadIdx.x; i < end; i += kThreads)
    average[i] = average[i] + (toFloat(value[i]) - average[i]) * gain;
}

__global__ void __launch_bounds__(kThreads, 4) emaKernel(EmaArgs arguments) {
  const ListPiece<EmaRow> piece(arguments.rows, arguments.tensors, blockIdx.x);
  const EmaRow row = arguments.rows[piece.number];
  float* const average = inGlobalMemory(row.average);
  const auto gain = static_cast<float>(1.0 - arguments.decay);
  if (row.dtype == DType::kBFloat16)
    moveAverages(average, inGlobalMemory(static_cast<const BFloat16*>(row.value)), piece.begin,
                 piece.end, gain);
  else
    moveAverages(average, inGlobalMemory(static_cast<const float*>(row.value)), piece.begin,
                 piece.end, gain);
}

}  // namespace

void emaCuda(const EmaArgs& arguments, CudaContext& context) {
  if (arguments.blocks <= 0) return;
  context.launch("ema", emaKernel, dim3(static_cast<unsigned>(arguments.blocks)), kThreads,
                 arguments);
}

}  // namespace didr
