// Failing an op with a sentence of its own. Out of line, since kernels are compiled once per instruction level and must
// not share inline library code such as std::string's.
#pragma once

#include "native/core/op.h"

namespace didr {

// Fails the op that runs in `context`; the failure surfaces at the next wait on the queue.
void refuse(CpuContext& context, Code code, const char* message);

}  // namespace didr
