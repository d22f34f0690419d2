// The table of ops: every op's name, argument size and, per instruction level, its CPU kernel.
#pragma once

#include <cstdint>

#include "native/core/op.h"

namespace didr {

enum class Op : uint16_t {
#define DIDR_OP(name, Arguments) name,
#define DIDR_OP_CPU DIDR_OP
#include "native/ops/ops.def"
#undef DIDR_OP_CPU
#undef DIDR_OP
  kCount,
};
inline constexpr int kOpCount = static_cast<int>(Op::kCount);

const char* nameOf(Op op);

// The CPU kernels of one instruction level, indexed by Op.
struct OpTable {
  const char* level;
  CpuKernel kernels[kOpCount];
};

// Best level of this build that this CPU runs; `DIDR_SIMD` (a level's name) asks for a lower one.
const OpTable& cpuOps();
// All levels of this build that this CPU runs, lowest first; `count` receives their number.
const OpTable* const* cpuOpLevels(int& count);

}  // namespace didr
