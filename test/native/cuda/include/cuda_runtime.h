// Stands in for the toolkit's <cuda_runtime.h> when a .cu file is compiled by the host's C++ compiler: the keywords,
// built-in variables, vector types, intrinsics and the part of the runtime that this project uses, with CUDA's names
// and meanings. Kernels run as test/native/cuda/execution.h says; streams are worker threads; device memory is the
// host's, filled with NaNs.
//
// Facts about names, values and alignments: CUDA C++ Programming Guide 13.0 (sections 10 and 21) and CUDA Runtime API
// 13.0 reference.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#include "test/native/cuda/execution.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// --- Vector types ---------------------------------------------------------------------------------------------------
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// --- Built-in variables ---------------------------------------------------------------------------------------------
using didr::cuda_on_host::blockDim;
using didr::cuda_on_host::blockIdx;
using didr::cuda_on_host::gridDim;
using didr::cuda_on_host::threadIdx;
inline constexpr int warpSize = ::didr::cuda_on_host::kWarpSize;

// --- Barriers, votes and shuffles -----------------------------------------------------------------------------------
inline void __syncthreads(std::source_location where = std::source_location::current()) {
  didr::cuda_on_host::syncBlock(where);
}
inline void __syncwarp(unsigned mask = ~0u,
                       std::source_location where = std::source_location::current()) {
  didr::cuda_on_host::gatherWarp(mask, 0, true, where);
}

namespace didr::cuda_on_host {

template <class T>
T shuffle(unsigned mask, T value, unsigned source, bool inRange, std::source_location where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const uint64_t* const values = gatherWarp(mask, bits, false, where);
  if (!inRange) return value;
  std::memcpy(&value, &values[source % kWarpSize], sizeof value);
  return value;
}

// The lanes whose predicate holds. `lanes` receives those that take part.
inline unsigned vote(unsigned mask, bool predicate, unsigned& lanes, std::source_location where) {
  constexpr uint64_t kPresent = 2;
  const unsigned warpThreads = blockDim.x * blockDim.y * blockDim.z;
  const unsigned linear = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned left = warpThreads - linear / kWarpSize * kWarpSize;
  const uint64_t* const values = gatherWarp(mask, kPresent | predicate, false, where);
  unsigned holds = 0;
  lanes = left < kWarpSize ? (1u << left) - 1 : ~0u;
  for (unsigned i = 0; i < kWarpSize && i < left; ++i) holds |= (values[i] & 1) << i;
  return holds;
}

}  // namespace didr::cuda_on_host

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              std::source_location where = std::source_location::current()) {
  const unsigned segment = didr::cuda_on_host::lane() & ~static_cast<unsigned>(width - 1);
  return didr::cuda_on_host::shuffle(
      mask, value, segment | (static_cast<unsigned>(source) & (width - 1)), true, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   std::source_location where = std::source_location::current()) {
  const unsigned lane = didr::cuda_on_host::lane();
  const bool inRange = (lane & (width - 1)) + delta < static_cast<unsigned>(width);
  return didr::cuda_on_host::shuffle(mask, value, lane + delta, inRange, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 std::source_location where = std::source_location::current()) {
  const unsigned lane = didr::cuda_on_host::lane();
  return didr::cuda_on_host::shuffle(mask, value, lane - delta, (lane & (width - 1)) >= delta,
                                     where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize,
                  std::source_location where = std::source_location::current()) {
  const unsigned lane = didr::cuda_on_host::lane();
  const unsigned source = lane ^ static_cast<unsigned>(bits);
  const bool inRange = source / width <= lane / width;
  return didr::cuda_on_host::shuffle(mask, value, source, inRange, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              std::source_location where = std::source_location::current()) {
  unsigned lanes;
  return didr::cuda_on_host::vote(mask, predicate != 0, lanes, where);
}
inline int __any_sync(unsigned mask, int predicate,
                      std::source_location where = std::source_location::current()) {
  unsigned lanes;
  return didr::cuda_on_host::vote(mask, predicate != 0, lanes, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      std::source_location where = std::source_location::current()) {
  unsigned lanes;
  return didr::cuda_on_host::vote(mask, predicate != 0, lanes, where) == lanes;
}

// --- Memory and arithmetic ------------------------------------------------------------------------------------------
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
void __stwb(T* address, T value) {
  *address = value;
}
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>, "floating atomics have no fixed order");
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((uint64_t{a} * b) >> 32);
}
inline unsigned __float_as_uint(float a) {
  unsigned u;
  std::memcpy(&u, &a, sizeof u);
  return u;
}
inline float __uint_as_float(unsigned u) {
  float a;
  std::memcpy(&a, &u, sizeof a);
  return a;
}
inline int __popc(unsigned u) { return __builtin_popcount(u); }

// --- Runtime --------------------------------------------------------------------------------------------------------
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMemoryPoolsSupported = 115,
};
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDisableTiming = 2;

enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };

struct HostStream;
struct HostEvent;
struct HostPool;
using cudaMemPool_t = HostPool*;
using cudaStream_t = HostStream*;
using cudaEvent_t = HostEvent*;
using cudaHostFn_t = void (*)(void*);

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major, minor;
  int multiProcessorCount;
};
struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keepBytes);
cudaError_t cudaMallocHost(void** memory, size_t bytes);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

namespace didr::cuda_on_host {

// Runs the grid on the stream: at once and on the calling thread for the null stream, whose launches report what a
// device reports at the next synchronization.
cudaError_t launchOn(cudaStream_t stream, const Grid& grid, std::function<void()> body);

}  // namespace didr::cuda_on_host

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3& blocks = config->gridDim;
  const dim3& threads = config->blockDim;
  // By value: the arguments of a launch are copied before it returns.
  std::tuple<std::remove_cv_t<Parameters>...> copies(std::forward<Arguments>(arguments)...);
  return didr::cuda_on_host::launchOn(
      config->stream,
      {{blocks.x, blocks.y, blocks.z}, {threads.x, threads.y, threads.z}, config->dynamicSmemBytes},
      [kernel, copies] { std::apply(kernel, copies); });
}
