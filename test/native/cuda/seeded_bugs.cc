// The harness has to see these: one kernel per kind of bug, which a flag mends.
//
//   cuda_seeded_bugs_<sanitizer> <bug> seeded|mended
//
// A mended kernel ends with 0; a seeded one with a sanitizer's report, or with the launch's error and 1.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "native/core/cuda_launch.h"

namespace didr {
namespace {

constexpr int kThreads = 128;

__global__ void missingBarrier(float* out, bool seeded) {
  DIDR_SHARED(float, values, kThreads);
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (!seeded) __syncthreads();
  out[threadIdx.x] = values[kThreads - 1 - threadIdx.x];
}

__global__ void missingWarpBarrier(float* out, bool seeded) {
  DIDR_SHARED(float, values, kThreads);
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (!seeded) __syncwarp();
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

__global__ void blocksMeet(float* out, bool seeded) {
  if (threadIdx.x == 0) out[seeded ? 0 : blockIdx.x] = 1.0f;
}

__global__ void globalOverrun(float* out, bool seeded) {
  out[threadIdx.x + (seeded ? 1 : 0)] = 1.0f;
}

__global__ void sharedOverrun(float* out, bool seeded) {
  DIDR_SHARED(float, values, kThreads);
  DIDR_SHARED(float, neighbours, kThreads);
  float* const first = values;
  first[threadIdx.x + (seeded ? 1 : 0)] = 1.0f;
  neighbours[threadIdx.x] = 2.0f;
  out[threadIdx.x] = neighbours[threadIdx.x];
}

__global__ void misalignedVector(float* out, bool seeded) {
  if (threadIdx.x < 8)
    *reinterpret_cast<float4*>(out + 4 * threadIdx.x + (seeded ? 1 : 0)) =
        make_float4(1.0f, 2.0f, 3.0f, 4.0f);
}

__global__ void divergentBarrier(float* out, bool seeded) {
  out[threadIdx.x] = 1.0f;
  if (!seeded || threadIdx.x < kThreads / 2) __syncthreads();
}

struct Bug {
  const char* name;
  void (*kernel)(float*, bool);
  unsigned blocks = 1;
};

constexpr Bug kBugs[] = {
    {"missing-barrier", missingBarrier},     {"missing-warp-barrier", missingWarpBarrier},
    {"blocks-meet", blocksMeet, 3},          {"global-overrun", globalOverrun},
    {"shared-overrun", sharedOverrun},       {"misaligned-vector", misalignedVector},
    {"divergent-barrier", divergentBarrier},
};

int runBug(const Bug& bug, bool seeded) {
  void* out = nullptr;
  if (cudaMalloc(&out, kThreads * sizeof(float)) != cudaSuccess) return 2;
  CudaContext context;
  context.launch(bug.name, bug.kernel, bug.blocks, kThreads, static_cast<float*>(out), seeded);
  if (context.error != cudaSuccess) {
    std::fprintf(stderr, "the launch of %s failed: %s\n", context.failedAt,
                 cudaGetErrorName(context.error));
    return 1;
  }
  cudaFree(out);
  return 0;
}

}  // namespace
}  // namespace didr

int main(int count, char** values) {
  if (count == 3)
    for (const didr::Bug& bug : didr::kBugs)
      if (std::strcmp(bug.name, values[1]) == 0)
        return didr::runBug(bug, std::strcmp(values[2], "seeded") == 0);
  std::fprintf(stderr, "usage: %s <bug> seeded|mended\n", values[0]);
  return 2;
}
