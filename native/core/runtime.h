// The process's devices. Shared by every JavaScript thread that loads the addon; never destroyed, since threads may
// still run when the process's destructors do.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "native/core/cpu_device.h"
#include "native/core/cuda_device.h"

namespace didr {

class Runtime {
 public:
  // Null when this build has no kernels that this CPU can run.
  static Runtime* get();

  CpuDevice& cpu() { return cpu_; }
  // Opened on first use; null with the reason in `status` when it cannot be.
  CudaDevice* cuda(int index, Status& status);

 private:
  explicit Runtime(const OpTable& ops);
  void stop();

  CpuDevice cpu_;
  std::mutex cudaMutex_;
  std::vector<std::unique_ptr<CudaDevice>> cuda_;  // by index
};

}  // namespace didr
