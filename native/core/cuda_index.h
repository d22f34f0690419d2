// Positions in tensors of several axes: divisions by sizes that the host knows, made ready there.
#pragma once

#include <cstdint>

#include "native/core/cuda_launch.h"

namespace didr {

// floor(n / size), n >= 0.
//
// Below 2^31 by a product with magic = ceil(2^shift / size), shift = 31 + ceil(log2 size): magic is
// off by less than 1, the quotient by less than n / 2^shift < 1 / size, too little to carry it past
// an integer (Granlund and Montgomery, "Division by invariant integers using multiplication",
// PLDI 1994, theorem 4.2). Larger n are divided.
struct Divisor {
  int64_t size = 1;
  uint64_t magic = uint64_t{1} << 31;
  int32_t shift = 31;

  Divisor() = default;
  explicit Divisor(int64_t divisor) : size(divisor) {
    if (divisor > INT32_MAX) {
      magic = 0;
      return;
    }
    while ((int64_t{1} << (shift - 31)) < divisor) ++shift;
    const uint64_t whole = (uint64_t{1} << shift) / static_cast<uint64_t>(divisor);
    magic = whole + (whole * static_cast<uint64_t>(divisor) < uint64_t{1} << shift ? 1 : 0);
  }

  __device__ int64_t quotient(int64_t n) const {
    if (n <= INT32_MAX) return static_cast<int64_t>((static_cast<uint64_t>(n) * magic) >> shift);
    return n / size;
  }
};

}  // namespace didr
