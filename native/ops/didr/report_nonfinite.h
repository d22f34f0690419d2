// Contract of `reportNonFinite`: turns the counts that a fused op left into that op's failure.
//
// counts [batch]: non-finite values found per sample. When any is above zero, the op named by `name` is reported as
// failed (ERR_NONFINITE, with the first such sample, its count and the total) at the next wait on the queue.
#pragma once

#include <cstdint>

namespace didr {

struct ReportNonFiniteArgs {
  const int32_t* counts;
  int64_t batch;
  const char* name;  // of static storage
};

}  // namespace didr
