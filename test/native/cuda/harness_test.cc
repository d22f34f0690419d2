// The harness itself: its execution model against what CUDA's programming guide promises.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "native/core/cuda_launch.h"
#include "test/native/cuda/execution.h"

namespace didr {
namespace {

__global__ void writeIndices(unsigned* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}

TEST_CASE("every thread of every block runs once, with its own indices") {
  constexpr unsigned kBlocks = 2 * 3 * 2, kThreads = 5 * 3 * 4;
  std::vector<unsigned> out(kBlocks * kThreads, ~0u);
  CudaContext context;
  context.launch("writeIndices", writeIndices, dim3(2, 3, 2), dim3(5, 3, 4), out.data());
  REQUIRE(context.error == cudaSuccess);
  for (unsigned block = 0; block < kBlocks; ++block)
    for (unsigned thread = 0; thread < kThreads; ++thread)
      REQUIRE(out[block * kThreads + thread] == 1000 * block + thread);
}

__global__ void reverseInSteps(int* out, int steps) {
  DIDR_SHARED(int, values, 256);
  const unsigned last = blockDim.x - 1;
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  for (int i = 0; i < steps; ++i) {
    __syncthreads();
    const int other = values[last - threadIdx.x];
    __syncthreads();
    values[threadIdx.x] = other + 1;
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = values[threadIdx.x];
}

TEST_CASE("barriers order shared memory") {
  for (const unsigned threads : {1u, 31u, 32u, 33u, 255u, 256u}) {
    CAPTURE(threads);
    std::vector<int> out(3 * threads, -1);
    CudaContext context;
    context.launch("reverseInSteps", reverseInSteps, 3, threads, out.data(), 5);
    REQUIRE(context.error == cudaSuccess);
    for (size_t i = 0; i < out.size(); ++i) {
      const int thread = static_cast<int>(i % threads);
      REQUIRE(out[i] == static_cast<int>(threads) - 1 - thread + 5);
    }
  }
}

__global__ void warpWide(int* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int* const row = out + 9 * threadIdx.x;
  row[0] = __shfl_sync(~0u, lane, 5);
  row[1] = __shfl_sync(~0u, lane, 3, 8);
  row[2] = __shfl_down_sync(~0u, lane, 7);
  row[3] = __shfl_up_sync(~0u, lane, 7);
  row[4] = __shfl_xor_sync(~0u, lane, 5);
  row[5] = static_cast<int>(__ballot_sync(~0u, lane % 3 == 0));
  row[6] = __any_sync(~0u, lane == 9) + 2 * __any_sync(~0u, lane == 40);
  row[7] = __all_sync(~0u, lane < 40) + 2 * __all_sync(~0u, lane != 9);
  const double twice = __shfl_down_sync(~0u, 0.5 * lane, 1, 16);
  row[8] = static_cast<int>(2 * twice);
}

TEST_CASE("shuffles and votes") {
  std::vector<int> out(96 * 9, -1);
  CudaContext context;
  context.launch("warpWide", warpWide, 1, 96, out.data());
  REQUIRE(context.error == cudaSuccess);
  int multiplesOfThree = 0;
  for (int i = 0; i < 32; i += 3) multiplesOfThree |= 1 << i;
  for (int thread = 0; thread < 96; ++thread) {
    const int lane = thread % 32;
    const int* const row = &out[static_cast<size_t>(9 * thread)];
    REQUIRE(row[0] == 5);
    REQUIRE(row[1] == lane / 8 * 8 + 3);
    REQUIRE(row[2] == (lane + 7 < 32 ? lane + 7 : lane));
    REQUIRE(row[3] == (lane >= 7 ? lane - 7 : lane));
    REQUIRE(row[4] == (lane ^ 5));
    REQUIRE(row[5] == multiplesOfThree);
    REQUIRE(row[6] == 1);
    REQUIRE(row[7] == 1);
    REQUIRE(row[8] == (lane % 16 == 15 ? lane : lane + 1));
  }
}

__global__ void sumSharedUnwritten(float* out) {
  DIDR_SHARED(float, values, 8);
  out[blockIdx.x] = values[7];
  values[7] = 1.0f;
}

TEST_CASE("shared memory starts as NaN in every block") {
  std::vector<float> out(4, 0.0f);
  CudaContext context;
  context.launch("sumSharedUnwritten", sumSharedUnwritten, 4, 1, out.data());
  REQUIRE(context.error == cudaSuccess);
  for (const float value : out) REQUIRE(value != value);
}

__global__ void countAll(int* counter) { atomicAdd(counter, 1); }

TEST_CASE("integer atomics count every thread, in both orders") {
  for (const auto order : {cuda_on_host::Order::kForward, cuda_on_host::Order::kReverse}) {
    cuda_on_host::setOrder(order);
    int counter = 0;
    CudaContext context;
    context.launch("countAll", countAll, 7, 100, &counter);
    REQUIRE(context.error == cudaSuccess);
    REQUIRE(counter == 700);
  }
  cuda_on_host::setOrder(cuda_on_host::Order::kForward);
}

__global__ void halfWaits(int*) {
  if (threadIdx.x < 16) __syncthreads();
}
__global__ void waitsAtTwoPlaces(int*) {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void laneLeaves(int* out) {
  if (threadIdx.x == 3) return;
  out[threadIdx.x] = __shfl_xor_sync(~0u, 1, 1);
}
__global__ void namesHalfTheWarp(int* out) { out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1, 1); }

std::string diagnosticOf(void (*kernel)(int*)) {
  int out[64] = {};
  const auto body = [&] { kernel(out); };
  std::string diagnostic;
  const cuda_on_host::Failure failure = cuda_on_host::execute(
      {{2}, {64}, 0}, [](const void* closure) { (*static_cast<const decltype(body)*>(closure))(); },
      &body, diagnostic);
  CHECK(failure == cuda_on_host::Failure::kExecution);
  return diagnostic;
}

TEST_CASE("what is undefined on a device ends the launch, not the process") {
  CHECK(diagnosticOf(halfWaits).find("divergent barrier in block (0, 0, 0): 16 of 64 threads") ==
        0);
  CHECK(diagnosticOf(waitsAtTwoPlaces).find("divergent barrier") == 0);
  CHECK(diagnosticOf(laneLeaves).find("divergent barrier") == 0);
  CHECK(diagnosticOf(namesHalfTheWarp).find("partial mask") == 0);

  // The launcher names the kernel and launches nothing more.
  CudaContext context;
  int out = 0;
  context.launch("halfWaits", halfWaits, 2, 64, &out);
  context.launch("countAll", countAll, 1, 1, &out);
  CHECK(context.error == cudaErrorLaunchFailure);
  CHECK(std::string(context.failedAt) == "halfWaits");
  CHECK(out == 0);

  // And the harness works on.
  CudaContext next;
  next.launch("countAll", countAll, 2, 64, &out);
  CHECK(next.error == cudaSuccess);
  CHECK(out == 128);
}

TEST_CASE("sizes that no device accepts are refused") {
  int out = 0;
  for (const auto& [blocks, threads] : {std::pair{dim3(0), dim3(1)},
                                        {dim3(1), dim3(0)},
                                        {dim3(1), dim3(1025)},
                                        {dim3(1, 65536), dim3(1)},
                                        {dim3(1), dim3(32, 33)}}) {
    CudaContext context;
    context.launch("countAll", countAll, blocks, threads, &out);
    CHECK(context.error == cudaErrorInvalidConfiguration);
  }
  CHECK(out == 0);
}

TEST_CASE("a stream runs in order behind the caller, and tells its failure at the next wait") {
  cudaStream_t stream;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  CudaContext context;
  context.stream = stream;
  int* counter = nullptr;
  REQUIRE(cudaMallocAsync(reinterpret_cast<void**>(&counter), sizeof *counter, stream) ==
          cudaSuccess);
  context.zero("zero", counter, sizeof *counter);
  for (int i = 0; i < 10; ++i) context.launch("countAll", countAll, 3, 32, counter);
  int result = -1;
  REQUIRE(cudaMemcpyAsync(&result, counter, sizeof result, cudaMemcpyDeviceToHost, stream) ==
          cudaSuccess);
  cudaEvent_t event;
  REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  REQUIRE(cudaEventRecord(event, stream) == cudaSuccess);
  REQUIRE(cudaEventSynchronize(event) == cudaSuccess);
  CHECK(result == 960);
  CHECK(cudaEventQuery(event) == cudaSuccess);
  context.launch("halfWaits", halfWaits, 1, 64, counter);
  CHECK(context.error == cudaSuccess);
  REQUIRE(cudaFreeAsync(counter, stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorLaunchFailure);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(cudaEventDestroy(event) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

}  // namespace
}  // namespace didr
