// Runs a CUDA grid on the host: the part of the CUDA execution model that kernels can observe.
//
// Blocks run one after another. The threads of a block are fibers of the calling thread: each runs until it reaches a
// barrier or a warp-wide operation, then gives way until the others have arrived, so a thread-barrier costs two stack
// switches. What the hardware leaves undefined is an error here, told in a diagnostic, and ends the launch alone:
//
//   divergent barrier      some threads of a block wait in __syncthreads (or a warp-wide operation) that others
//                          never reach, or wait at different lines
//   launch configuration   sizes that no device accepts
//
// and the sanitizers see the rest as they would see host code:
//
//   out-of-bounds global   device memory is malloc'ed                                              (ASan)
//   out-of-bounds shared   shared arrays live in an arena with poisoned gaps between them          (ASan)
//   misaligned vectors     vector types carry CUDA's alignments                                    (UBSan)
//   missing barrier        under TSan every CUDA thread is a TSan fiber that is ordered with the others of its block
//                          by barriers alone, and with those of other blocks not at all
//
// Shared arrays start out as NaNs (all bits set) in every block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

namespace didr::cuda_on_host {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
  uint64_t volume() const { return uint64_t{x} * y * z; }
};

// The built-in variables of the CUDA thread that runs.
extern constinit thread_local Extent threadIdx, blockIdx, blockDim, gridDim;

enum class Failure { kNone, kConfiguration, kExecution };

struct Grid {
  Extent blocks;
  Extent threads;
  size_t dynamicSharedBytes = 0;
};

// The order of blocks, and of threads inside a block. A correct kernel computes the same bits in both.
enum class Order { kForward, kReverse };
void setOrder(Order order);

// Calls `body(closure)` once per thread of the grid. `diagnostic` is written when the result is not kNone.
Failure execute(const Grid& grid, void (*body)(const void* closure), const void* closure,
                std::string& diagnostic);

// The rest is called from inside a kernel.
void syncBlock(std::source_location where);
// Waits for the warp's other threads and returns what each of them passed, by lane; valid until the caller's next
// warp-wide operation. `mask` must name every thread of the warp. `ordersMemory`: as __syncwarp does.
const uint64_t* gatherWarp(unsigned mask, uint64_t value, bool ordersMemory,
                           std::source_location where);
unsigned lane();
// The block's shared array that belongs to `key`, made by the first thread that asks.
void* sharedArray(const void* key, size_t bytes, size_t alignment);
void* dynamicShared();

inline constexpr unsigned kWarpSize = 32;
inline constexpr unsigned kMaxThreadsPerBlock = 1024;
inline constexpr size_t kMaxSharedBytes = 48 << 10;

}  // namespace didr::cuda_on_host
