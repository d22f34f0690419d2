// An op is one row of a table: a name, the argument struct of its contract and one kernel per backend.
//
// Argument structs are plain data (pointers into device storage, sizes, scalars): an op call copies its struct
// into the stream's queue and returns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "native/core/status.h"
#include "native/core/thread_pool.h"

namespace didr {

// What a CPU kernel may use besides its arguments.
struct CpuContext {
  ThreadPool& pool;
  // The name that a failure is reported under.
  const char* op;
  // Set by a kernel that has to refuse its data; surfaces at the next wait on the stream.
  Status failure;
};

using CpuKernel = void (*)(const void* arguments, CpuContext& context);

// The largest argument struct; table.cpu.cc asserts it for every op.
inline constexpr size_t kMaxArgumentBytes = 384;
inline constexpr int kMaxRank = 8;

}  // namespace didr
