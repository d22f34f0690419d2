#include "native/core/refuse.h"

namespace didr {

void refuse(CpuContext& context, Code code, const char* message) {
  context.failure = {code, message};
}

}  // namespace didr
