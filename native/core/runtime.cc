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
    std::atexit([] { get()->cpu().stop(); });
    return made;
  }();
  return runtime;
}

}  // namespace didr
