#include "native/ops/op_table.h"

#include <cstdlib>
#include <cstring>

namespace didr {
namespace {

constexpr const char* kNames[] = {
#define DIDR_OP(name, Arguments) #name,
#define DIDR_OP_CPU DIDR_OP
#include "native/ops/ops.def"
#undef DIDR_OP_CPU
#undef DIDR_OP
};

}  // namespace

const char* nameOf(Op op) { return kNames[static_cast<int>(op)]; }

// DIDR_LEVELS: the levels of this build, lowest first, as DIDR_LEVEL_ROW(name, condition) rows.
#define DIDR_LEVEL_ROW(name, supported) \
  namespace name {                      \
  extern const OpTable kOps;            \
  }
#if defined(DIDR_X86_LEVELS)
#define DIDR_LEVELS                                       \
  DIDR_LEVEL_ROW(v2, __builtin_cpu_supports("x86-64-v2")) \
  DIDR_LEVEL_ROW(v3, __builtin_cpu_supports("x86-64-v3")) \
  DIDR_LEVEL_ROW(v4, __builtin_cpu_supports("x86-64-v4"))
#else
#define DIDR_LEVELS DIDR_LEVEL_ROW(base, true)
#endif
DIDR_LEVELS
#undef DIDR_LEVEL_ROW

const OpTable* const* cpuOpLevels(int& count) {
  struct Supported {
    const OpTable* tables[4] = {};
    int count = 0;
    Supported() {
#define DIDR_LEVEL_ROW(name, supported) \
  if (supported) tables[count++] = &name::kOps;
      DIDR_LEVELS
#undef DIDR_LEVEL_ROW
    }
  };
  static const Supported supported;
  count = supported.count;
  return supported.tables;
}

const OpTable& cpuOps() {
  int count = 0;
  const OpTable* const* levels = cpuOpLevels(count);
  if (const char* wanted = std::getenv("DIDR_SIMD"))
    for (int i = 0; i < count; ++i)
      if (std::strcmp(levels[i]->level, wanted) == 0) return *levels[i];
  return *levels[count - 1];
}

}  // namespace didr
