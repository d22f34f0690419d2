// Launching CUDA kernels: by name, on a stream, with every launch's error kept.
//
// A .cu file compiles with nvcc and, for the tests, with the host's C++ compiler, whose <cuda_runtime.h> is the one
// of test/native/cuda/include. Hence a function call in the place of <<<>>>, and macros for shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

// A shared array of the block; `name` is declared as type[count].
#if defined(__CUDACC__)
#define DIDR_SHARED(type, name, count) __shared__ type name[count]
#else
#define DIDR_SHARED(type, name, count)       \
  static constexpr char name##Key = 0;       \
  auto& name = *static_cast<type(*)[count]>( \
      ::didr::cuda_on_host::sharedArray(&name##Key, sizeof(type) * (count), alignof(type)))
#endif

namespace didr {

inline constexpr int kWarpThreads = 32;

class Cublas;  // native/cuda/cublas.h

// What a launcher may use besides its arguments. The first error stays, and nothing is launched after it.
struct CudaContext {
  cudaStream_t stream = nullptr;
  int multiprocessors = 1;
  cudaError_t error = cudaSuccess;
  const char* failedAt = nullptr;
  const Cublas* cublas = nullptr;

  void check(const char* what, cudaError_t result) {
    if (result == cudaSuccess || error != cudaSuccess) return;
    error = result;
    failedAt = what;
    cudaGetLastError();  // told here, so not to whoever asks next
  }

  // Blocks of a grid-stride loop over `count` elements, `perBlock` at a time: enough to fill the device, and no more.
  unsigned gridStrideBlocks(int64_t count, int64_t perBlock) const {
    constexpr int kBlocksPerMultiprocessor = 8;
    const int64_t needed = (count + perBlock - 1) / perBlock;
    const int64_t filling = int64_t{multiprocessors} * kBlocksPerMultiprocessor;
    return static_cast<unsigned>(needed < filling ? needed : filling);
  }

  template <class... Parameters, class... Arguments>
  void launch(const char* name, void (*kernel)(Parameters...), dim3 blocks, dim3 threads,
              Arguments&&... arguments) {
    if (error != cudaSuccess) return;
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = threads;
    config.stream = stream;
    check(name, cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
  }

  void zero(const char* name, void* memory, size_t bytes) {
    if (error != cudaSuccess || bytes == 0) return;
    check(name, cudaMemsetAsync(memory, 0, bytes, stream));
  }
};

}  // namespace didr
