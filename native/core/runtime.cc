#include "native/core/runtime.h"

#include <cstdlib>

namespace didr {

Runtime::Runtime(const OpTable& ops) : cpu_(ops, defaultThreadCount()) {}

Runtime* Runtime::get() {
  static Runtime* const runtime = []() -> Runtime* {
    int levels = 0;
    cpuOpLevels(levels);
    if (levels == 0) return nullptr;
    auto* made = new Runtime(cpuOps());
    // exit() runs the destructors of libraries, the BLAS among them, while the worker may be inside one of their
    // functions. This handler was registered later than those, so it runs before them.
    std::atexit([] { get()->stop(); });
    return made;
  }();
  return runtime;
}

CudaDevice* Runtime::cuda(int index, Status& status) {
  const std::lock_guard lock(cudaMutex_);
  const auto slot = static_cast<size_t>(index);
  if (slot >= cuda_.size()) cuda_.resize(slot + 1);
  if (cuda_[slot] == nullptr) cuda_[slot] = CudaDevice::open(index, status);
  return cuda_[slot].get();
}

void Runtime::stop() {
  cpu_.stop();
  const std::lock_guard lock(cudaMutex_);
  for (const auto& device : cuda_)
    if (device != nullptr) device->stop();
}

}  // namespace didr
