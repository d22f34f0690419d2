// Theoretical occupancy by the toolkit's calculator, for scripts/kernels-report.mjs.
//
// Reads lines `architecture threads registers sharedBytes`, writes for each the resident blocks of a multiprocessor and
// the share of its threads in percent. Limits per architecture: CUDA C++ Programming Guide 13.0, "Compute Capabilities",
// technical specifications.
#include <cuda_occupancy.h>

#include <cstddef>
#include <cstdio>

namespace {

struct Limits {
  int architecture;
  size_t sharedPerMultiprocessor;
};
constexpr Limits kLimits[] = {{80, 164 << 10}, {90, 228 << 10}, {100, 228 << 10}};

constexpr int kThreadsPerMultiprocessor = 2048;
constexpr int kRegisters = 65536;
constexpr size_t kReservedShared = 1 << 10;
constexpr size_t kSharedPerBlock = 48 << 10;

}  // namespace

int main() {
  int architecture, threads, registers, shared;
  while (std::scanf("%d %d %d %d", &architecture, &threads, &registers, &shared) == 4) {
    const Limits* limits = nullptr;
    for (const Limits& row : kLimits)
      if (row.architecture == architecture) limits = &row;
    if (limits == nullptr) {
      std::fprintf(stderr, "no limits for sm_%d\n", architecture);
      return 1;
    }
    cudaOccDeviceProp device;
    device.computeMajor = architecture / 10;
    device.computeMinor = architecture % 10;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = kThreadsPerMultiprocessor;
    device.regsPerBlock = kRegisters;
    device.regsPerMultiprocessor = kRegisters;
    device.warpSize = 32;
    device.sharedMemPerBlock = kSharedPerBlock;
    device.sharedMemPerMultiprocessor = limits->sharedPerMultiprocessor;
    device.sharedMemPerBlockOptin = limits->sharedPerMultiprocessor - kReservedShared;
    device.reservedSharedMemPerBlock = kReservedShared;
    device.numSms = 1;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = threads;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = static_cast<size_t>(shared);
    const cudaOccDeviceState state;
    cudaOccResult result;
    const cudaOccError error =
        cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0);
    if (error != CUDA_OCC_SUCCESS) {
      std::fprintf(stderr, "the occupancy calculator refuses sm_%d: %d\n", architecture, error);
      return 1;
    }
    std::printf("%d %d\n", result.activeBlocksPerMultiprocessor,
                100 * result.activeBlocksPerMultiprocessor * threads / kThreadsPerMultiprocessor);
  }
  return 0;
}
