// Rows in blocks: what ops over [rows, size] with per-sample operands are cut into, and sum over.
#pragma once

#include <cstdint>

namespace didr {

inline constexpr int64_t kRowBlock = 64;

// Blocks of at most kRowBlock rows that do not span two samples.
constexpr int64_t rowBlocks(int64_t rows, int64_t rowsPerSample) {
  return rows == 0 ? 0 : rows / rowsPerSample * ((rowsPerSample + kRowBlock - 1) / kRowBlock);
}

}  // namespace didr
