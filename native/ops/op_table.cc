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

// The levels of this build, lowest first, as DIDR_LEVEL_ROW(name, condition) rows.
#if defined(DIDR_WITH_v2)
#define DIDR_ROW_V2 DIDR_LEVEL_ROW(v2, __builtin_cpu_supports("x86-64-v2"))
#else
#define DIDR_ROW_V2
#endif
#if defined(DIDR_WITH_v3)
#define DIDR_ROW_V3 DIDR_LEVEL_ROW(v3, __builtin_cpu_supports("x86-64-v3"))
#else
#define DIDR_ROW_V3
#endif
#if defined(DIDR_WITH_v4)
#define DIDR_ROW_V4 DIDR_LEVEL_ROW(v4, __builtin_cpu_supports("x86-64-v4"))
#else
#define DIDR_ROW_V4
#endif
#if defined(DIDR_WITH_base)
#define DIDR_ROW_BASE DIDR_LEVEL_ROW(base, true)
#else
#define DIDR_ROW_BASE
#endif
#define DIDR_BUILT_LEVELS DIDR_ROW_BASE DIDR_ROW_V2 DIDR_ROW_V3 DIDR_ROW_V4

#define DIDR_LEVEL_ROW(name, supported) \
  namespace name {                      \
  extern const OpTable kOps;            \
  }
DIDR_BUILT_LEVELS
#undef DIDR_LEVEL_ROW

const OpTable* const* cpuOpLevels(int& count) {
  struct Supported {
    const OpTable* tables[4] = {};
    int count = 0;
    Supported() {
#define DIDR_LEVEL_ROW(name, supported) \
  if (supported) tables[count++] = &name::kOps;
      DIDR_BUILT_LEVELS
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
