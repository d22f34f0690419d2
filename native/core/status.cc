#include "native/core/status.h"

namespace didr {

const char* nameOf(Code code) {
  switch (code) {
    case Code::kOk:
      return "OK";
    case Code::kShape:
      return "ERR_SHAPE";
    case Code::kDtype:
      return "ERR_DTYPE";
    case Code::kDevice:
      return "ERR_DEVICE";
    case Code::kDisposed:
      return "ERR_DISPOSED";
    case Code::kRange:
      return "ERR_RANGE";
    case Code::kConfig:
      return "ERR_CONFIG";
    case Code::kNonfinite:
      return "ERR_NONFINITE";
    case Code::kBackend:
      return "ERR_BACKEND";
    case Code::kOutOfMemory:
      return "ERR_OUT_OF_MEMORY";
  }
  return "ERR_BACKEND";
}

}  // namespace didr
