// Rows of a table and the sum of their gradients on the CPU, see embedding.h.
//
// Forward parallel over ids. Backward parallel over ranges of the vocabulary: a thread clears its
// rows, then walks all ids and adds those that are its own, so that a row's sum has the order of
// the ids; the walk is small beside clearing the table.
#include "native/ops/nn/embedding.h"

#include "native/core/op.h"
#include "native/core/refuse.h"
#include "native/ops/nn/vectors.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

DIDR_SIMD bool allInside(const int32_t* ids, int64_t count, int64_t vocabulary) {
  bool inside = true;
  for (int64_t i = 0; i < count; ++i) inside &= ids[i] >= 0 && ids[i] < vocabulary;
  return inside;
}

}  // namespace

void embeddingCpu(const EmbeddingArgs& arguments, CpuContext& context) {
  if (!allInside(arguments.ids, arguments.count, arguments.vocabulary))
    return refuse(context, Code::kRange, kIdOutside);
  const auto rowBytes = static_cast<int64_t>(sizeOf(arguments.dtype)) * arguments.size;
  if (rowBytes == 0) return;
  context.pool.parallelFor(
      arguments.count, rowGrain(arguments.size), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          memcpy(static_cast<char*>(arguments.y) + i * rowBytes,
                 static_cast<const char*>(arguments.table) + arguments.ids[i] * rowBytes,
                 static_cast<size_t>(rowBytes));
      });
}

void embeddingBackwardCpu(const EmbeddingBackwardArgs& arguments, CpuContext& context) {
  if (!allInside(arguments.ids, arguments.count, arguments.vocabulary))
    return refuse(context, Code::kRange, kIdOutside);
  const int64_t size = arguments.size;
  context.pool.parallelFor(arguments.vocabulary, rowGrain(size), [&](int64_t begin, int64_t end) {
    clear(arguments.dTable + begin * size, (end - begin) * size);
    for (int64_t i = 0; i < arguments.count; ++i) {
      const int64_t id = arguments.ids[i];
      if (id < begin || id >= end) continue;
      const float* dy = arguments.dy + i * size;
      float* row = arguments.dTable + id * size;
      forEachVector(0, size, [&](int64_t c, auto extent) {
        store(row + c, load(row + c, extent) + load(dy + c, extent), extent);
      });
    }
  });
}

}  // namespace DIDR_LEVEL
}  // namespace didr
