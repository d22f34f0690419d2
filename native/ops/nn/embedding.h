// Contract of `embedding`: y[i, :] = table[ids[i], :], and of `embeddingBackward`, its transpose:
// dTable[v, :] = sum over i with ids[i] = v of dy[i, :], in the order of i.
//
// Shapes: ids [count], table and dTable [vocabulary, size], y and dy [count, size]; dTable is
// overwritten. An id outside [0, vocabulary) is refused: the op fails (ERR_RANGE) at the next wait and
// writes nothing. A device whose kernels cannot fail an op counts such ids in `outside`, for
// `embedding` to fail by, and writes NaN to their rows of y; in `embeddingBackward`, whose ids have
// been through `embedding`, it leaves their rows of dy out. The CPU leaves `outside` alone.
// dtypes: ids int32; table and y float32 or bfloat16; gradients float32.
// Aliasing: none. Bytes: y (or dy and dTable) once.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

inline constexpr const char* kIdOutside = "an id lies outside the vocabulary";

struct EmbeddingArgs {
  const void* table;
  const int32_t* ids;
  void* y;
  int32_t* outside;  // one
  int64_t count;
  int64_t vocabulary;
  int64_t size;
  DType dtype;
};

struct EmbeddingBackwardArgs {
  const float* dy;
  const int32_t* ids;
  float* dTable;
  int64_t count;
  int64_t vocabulary;
  int64_t size;
};

}  // namespace didr
