// One instruction level's column of the op table. Compiled once per level.
#include <type_traits>

#include "native/core/level.h"
#include "native/ops/op_headers.h"
#include "native/ops/op_table.h"

#define DIDR_STRING(x) DIDR_STRING_OF(x)
#define DIDR_STRING_OF(x) #x

namespace didr {
namespace DIDR_LEVEL {

#define DIDR_OP(name, Arguments)                                                   \
  void name##Cpu(const Arguments& arguments, CpuContext& context);                 \
  static void name##Entry(const void* arguments, CpuContext& context) {            \
    name##Cpu(*static_cast<const Arguments*>(arguments), context);                 \
  }                                                                                \
  static_assert(sizeof(Arguments) <= kMaxArgumentBytes, #Arguments " is too big"); \
  static_assert(std::is_trivially_copyable_v<Arguments>, #Arguments " is copied as bytes");
#define DIDR_OP_CPU DIDR_OP
#include "native/ops/ops.def"
#undef DIDR_OP

extern const OpTable kOps;
const OpTable kOps = {
    DIDR_STRING(DIDR_LEVEL),
    {
#define DIDR_OP(name, Arguments) name##Entry,
#include "native/ops/ops.def"
#undef DIDR_OP
    },
};
#undef DIDR_OP_CPU

}  // namespace DIDR_LEVEL
}  // namespace didr
