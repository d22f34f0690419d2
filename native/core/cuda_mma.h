// Products of bfloat16 matrices with float32 sums, a warp at a time: c[16, 8] += a[16, 16] b[16, 8].
//
// From compute capability 8.0 on it is one instruction of the tensor cores. Below, and on the host, the same fragments are
// multiplied by fused multiply-adds on values that the lanes pass to each other: the same products and float32 sums, added
// one by one in a fixed order, where tensor cores add several at a time (and may round them towards zero).
//
// Fragments (PTX ISA 9.0, "Matrix Fragments for mma.m16n8k16" and "ldmatrix"): with g = lane / 4 and t = lane % 4, two
// neighbours in a 32-bit word, the first one low,
//   a  x[0]: row g, depth 2t;  x[1]: row g + 8, depth 2t;  x[2]: row g, depth 2t + 8;  x[3]: row g + 8, depth 2t + 8
//   b  x[0]: depth 2t, column g;  x[1]: depth 2t + 8, column g
//   c  x[0], x[1]: row g, columns 2t, 2t + 1;  x[2], x[3]: row g + 8, the same columns
#pragma once

#include "native/core/cuda_launch.h"
#include "native/core/dtype.h"

namespace didr {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
inline constexpr bool kTensorCores = false;
#else
inline constexpr bool kTensorCores = true;
#endif

struct MmaLeft {
  uint32_t x[4];
};
struct MmaRight {
  uint32_t x[2];
};
struct MmaSums {
  float x[4];
};

// Four 8 x 8 matrices from shared memory: lane l passes the address, a multiple of 16 bytes, of row l % 8 of matrix l / 8.
// x[j] receives elements 2t and 2t + 1 of row g of matrix j; with kTransposed, of its column g.
template <bool kTransposed>
__device__ void loadMatrices(const BFloat16* row, uint32_t (&x)[4]) {
#if defined(__CUDA_ARCH__)
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(address)
                 : "memory");
#else
  const int lane = static_cast<int>(threadIdx.x % kWarpThreads);
  const int g = lane / 4, t = lane % 4;
  const auto rowOf = [row](int source) {
    return reinterpret_cast<const BFloat16*>(
        __shfl_sync(~0u, reinterpret_cast<uintptr_t>(row), source));
  };
  for (int j = 0; j < 4; ++j) {
    if constexpr (kTransposed) {
      const BFloat16* const low = rowOf(8 * j + 2 * t);
      const BFloat16* const high = rowOf(8 * j + 2 * t + 1);
      x[j] = low[g].bits | static_cast<uint32_t>(high[g].bits) << 16;
    } else {
      const BFloat16* const from = rowOf(8 * j + g);
      x[j] = from[2 * t].bits | static_cast<uint32_t>(from[2 * t + 1].bits) << 16;
    }
  }
#endif
}

// The fragment at (row, column) of a tile in shared memory with rows of `pitch` elements, a multiple of 8.
// kRowsFirst: matrices 0 and 1 are eight rows apart, 0 and 2 eight columns; else the reverse. So
//   a stored as [row, depth]      loadFragment<false, true>       gives MmaLeft::x
//   b stored as [column, depth]   loadFragment<false, false>      gives MmaRight::x of columns 0-7, then of 8-15
//   b stored as [depth, column]   loadFragment<true, true>        likewise
//   a stored as [depth, row]      loadFragment<true, false>
template <bool kTransposed, bool kRowsFirst>
__device__ void loadFragment(const BFloat16* tile, int pitch, int row, int column,
                             uint32_t (&x)[4]) {
  const int lane = static_cast<int>(threadIdx.x % kWarpThreads);
  const int second = lane & 8, third = (lane & 16) / 2;
  row += lane % 8 + (kRowsFirst ? second : third);
  column += kRowsFirst ? third : second;
  loadMatrices<kTransposed>(tile + row * pitch + column, x);
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 800
// c + a b. A function of its own on a device: unrolled into a kernel's every product it would take the compiler minutes.
__device__ inline __attribute__((noinline)) MmaSums multiplyAcrossLanes(MmaLeft a, MmaRight b,
                                                                        MmaSums c) {
  const int lane = static_cast<int>(threadIdx.x % kWarpThreads);
  const int g = lane / 4, t = lane % 4;
  const auto pair = [](uint32_t low, uint32_t high) {
    return low | static_cast<uint64_t>(high) << 32;
  };
  const uint64_t columns = pair(b.x[0], b.x[1]);
  // Four lanes hold four steps of the depth each, two in either half.
#pragma unroll
  for (int source = 0; source < 4; ++source) {
    const uint64_t right[2] = {__shfl_sync(~0u, columns, 8 * t + source),
                               __shfl_sync(~0u, columns, 8 * t + 4 + source)};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint64_t left =
          __shfl_sync(~0u, pair(a.x[2 * half], a.x[2 * half + 1]), 4 * g + source);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const auto x = static_cast<uint32_t>(left >> (i / 2 * 32));
        const auto y = static_cast<uint32_t>(right[i % 2] >> (half * 32));
        const float first = __fmaf_rn(floatOf(x << 16), floatOf(y << 16), c.x[i]);
        c.x[i] = __fmaf_rn(floatOf(x & 0xffff0000u), floatOf(y & 0xffff0000u), first);
      }
    }
  }
  return c;
}
#endif

// c += a b
__device__ inline void multiplyAccumulate(const MmaLeft& a, const MmaRight& b, MmaSums& c) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c.x[0]), "+f"(c.x[1]), "+f"(c.x[2]), "+f"(c.x[3])
      : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b.x[0]), "r"(b.x[1]));
#else
  c = multiplyAcrossLanes(a, b, c);
#endif
}

}  // namespace didr
