// `reportNonFinite` on CUDA: nothing to launch. A kernel cannot fail an op, so the device's queue
// reads the counts back behind the work so far and fails it there (native/core/cuda_device.cc).
#include "native/core/cuda_launch.h"
#include "native/ops/didr/report_nonfinite.h"

namespace didr {

void reportNonFiniteCuda(const ReportNonFiniteArgs&, CudaContext&) {}

}  // namespace didr
