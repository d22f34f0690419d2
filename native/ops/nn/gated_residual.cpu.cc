// x + G_b h and its backward pass on the CPU, see gated_residual.h.
//
// Parallel over blocks of rows; a block computes its sample's row of gates once. Backward, the sums
// for dgate go to one row of partials per block, which a second loop over columns adds up in order.
#include "native/ops/nn/gated_residual.h"

#include "native/core/op.h"
#include "native/core/refuse.h"
#include "native/core/simd_math.h"
#include "native/ops/nn/scratch.cpu.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;

// The gates of one sample, or null if memory is short.
template <class T>
const float* gatesOf(const void* gate, int64_t sample, int64_t size, bool tanh) {
  float* gates = threadScratch.floats(size);
  if (gates == nullptr) return nullptr;
  const T* row = static_cast<const T*>(gate) + sample * size;
  forEachVector(0, size, [&](int64_t i, auto extent) {
    const F32 g = load(row + i, extent);
    store(gates + i, tanh ? simd::tanh(g) : g, extent);
  });
  return gates;
}

template <class T>
void forwardAs(const GatedResidualArgs& arguments, CpuContext& context) {
  const int64_t size = arguments.size;
  bool starved = false;
  context.pool.parallelFor(
      rowBlocks(arguments.rows, arguments.rowsPerSample), rowBlockGrain(size),
      [&](int64_t firstBlock, int64_t lastBlock) {
        for (int64_t index = firstBlock; index < lastBlock; ++index) {
          const RowBlock block(index, arguments.rowsPerSample);
          const float* gates = gatesOf<T>(arguments.gate, block.sample, size, arguments.tanh);
          if (gates == nullptr) return __atomic_store_n(&starved, true, __ATOMIC_RELAXED);
          for (int64_t row = block.begin; row < block.end; ++row) {
            const T* x = static_cast<const T*>(arguments.x) + row * size;
            const T* h = static_cast<const T*>(arguments.h) + row * size;
            T* y = static_cast<T*>(arguments.y) + row * size;
            forEachVector(0, size, [&](int64_t i, auto extent) {
              store(y + i,
                    simd::fma(load(gates + i, extent), load(h + i, extent), load(x + i, extent)),
                    extent);
            });
          }
        }
      });
  if (starved) refuse(context, Code::kOutOfMemory, "no memory for the gates");
}

template <class T>
void backwardAs(const GatedResidualBackwardArgs& arguments, CpuContext& context) {
  const int64_t size = arguments.size;
  const int64_t blocks = rowBlocks(arguments.rows, arguments.rowsPerSample);
  bool starved = false;
  context.pool.parallelFor(blocks, rowBlockGrain(size), [&](int64_t firstBlock, int64_t lastBlock) {
    for (int64_t index = firstBlock; index < lastBlock; ++index) {
      const RowBlock block(index, arguments.rowsPerSample);
      const float* gates = gatesOf<T>(arguments.gate, block.sample, size, arguments.tanh);
      if (gates == nullptr) return __atomic_store_n(&starved, true, __ATOMIC_RELAXED);
      float* sums = arguments.partials + index * size;
      clear(sums, size);
      for (int64_t row = block.begin; row < block.end; ++row) {
        const T* h = static_cast<const T*>(arguments.h) + row * size;
        const T* dy = static_cast<const T*>(arguments.dy) + row * size;
        T* dh = static_cast<T*>(arguments.dh) + row * size;
        forEachVector(0, size, [&](int64_t i, auto extent) {
          const F32 gradient = load(dy + i, extent);
          const F32 sum = simd::fma(gradient, load(h + i, extent), load(sums + i, extent));
          store(dh + i, gradient * load(gates + i, extent), extent);
          store(sums + i, sum, extent);
        });
      }
    }
  });
  if (starved) return refuse(context, Code::kOutOfMemory, "no memory for the gates");
  const int64_t samples = arguments.rows == 0 ? 0 : arguments.rows / arguments.rowsPerSample;
  const int64_t blocksPerSample = samples == 0 ? 0 : blocks / samples;
  context.pool.parallelFor(
      samples, rowGrain(size * blocksPerSample), [&](int64_t firstSample, int64_t lastSample) {
        for (int64_t sample = firstSample; sample < lastSample; ++sample) {
          const float* sums = arguments.partials + sample * blocksPerSample * size;
          const T* gate = static_cast<const T*>(arguments.gate) + sample * size;
          float* dgate = arguments.dgate + sample * size;
          forEachVector(0, size, [&](int64_t i, auto extent) {
            F32 sum = simd::zero();
            for (int64_t block = 0; block < blocksPerSample; ++block)
              sum += load(sums + block * size + i, extent);
            if (arguments.tanh) {
              const F32 t = simd::tanh(load(gate + i, extent));
              sum *= (1.0f - t) * (1.0f + t);
            }
            store(dgate + i, sum, extent);
          });
        }
      });
}

}  // namespace

void gatedResidualCpu(const GatedResidualArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    forwardAs<BFloat16>(arguments, context);
  else
    forwardAs<float>(arguments, context);
}

void gatedResidualBackwardCpu(const GatedResidualBackwardArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    backwardAs<BFloat16>(arguments, context);
  else
    backwardAs<float>(arguments, context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
