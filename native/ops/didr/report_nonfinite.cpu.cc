#include "native/core/report_nonfinite.h"

#include "native/core/level.h"
#include "native/ops/didr/report_nonfinite.h"

namespace didr {
namespace DIDR_LEVEL {

void reportNonFiniteCpu(const ReportNonFiniteArgs& arguments, CpuContext& context) {
  refuseNonFinite(context, arguments.name, arguments.counts, arguments.batch);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
