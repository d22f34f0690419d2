// The process's devices. Shared by every JavaScript thread that loads the addon; never destroyed, since threads may
// still run when the process's destructors do.
#pragma once

#include "native/core/cpu_device.h"

namespace didr {

class Runtime {
 public:
  // Null when this build has no kernels that this CPU can run.
  static Runtime* get();

  CpuDevice& cpu() { return cpu_; }

 private:
  explicit Runtime(const OpTable& ops);

  CpuDevice cpu_;
};

}  // namespace didr
