// Memory that a thread lays packed operands out in. It grows to the largest request and is kept,
// since the same layers come round at every step of training.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "native/core/level.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

struct ScratchMemory {
  float* data = nullptr;
  int64_t capacity = 0;

  ~ScratchMemory() { std::free(data); }

  // At least `count` floats on a 64-byte boundary, valid until the next call; null if memory is
  // short.
  float* floats(int64_t count) {
    if (count <= capacity && data != nullptr) return data;
    std::free(data);
    const size_t bytes = (static_cast<size_t>(count) * sizeof(float) / 64 + 1) * 64;
    data = static_cast<float*>(std::aligned_alloc(64, bytes));
    capacity = data == nullptr ? 0 : count;
    return data;
  }
};

// What the threads of one loop work in, each in its own.
thread_local ScratchMemory threadScratch;
// What the thread that starts a loop prepares for all of them.
thread_local ScratchMemory sharedScratch;

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
