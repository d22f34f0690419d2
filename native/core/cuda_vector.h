// Elements in registers: 16 bytes at a time where the address allows, one by one at the ends.
//
// Loads are plain ld.global: outputs may alias inputs, so the read-only path is not for these kernels.
#pragma once

#include <cstdint>

#include "native/core/cuda_launch.h"
#include "native/core/dtype.h"

namespace didr {

// Elements of T in 16 bytes.
template <class T>
inline constexpr int kVector = 16 / static_cast<int>(sizeof(T));

inline __device__ void loadVector(const float* source, float (&x)[4]) {
  const float4 v = *reinterpret_cast<const float4*>(source);
  x[0] = v.x;
  x[1] = v.y;
  x[2] = v.z;
  x[3] = v.w;
}

// An intrinsic, since the compiler takes apart an assignment whose parts come from different places.
inline __device__ void storeVector(float* target, const float (&x)[4]) {
  __stwb(reinterpret_cast<float4*>(target), make_float4(x[0], x[1], x[2], x[3]));
}

inline __device__ void loadVector(const BFloat16* source, float (&x)[8]) {
  const uint4 v = *reinterpret_cast<const uint4*>(source);
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = floatOf(words[i] << 16);
    x[2 * i + 1] = floatOf(words[i] & 0xffff0000u);
  }
}

// Two floats rounded to bfloat16, `low` in the low half. From compute capability 8.0 on it is one instruction, which
// differs from toBFloat16 in nothing but the payload of NaNs.
inline __device__ uint32_t packBFloat16(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return toBFloat16(low).bits | static_cast<uint32_t>(toBFloat16(high).bits) << 16;
#endif
}

inline __device__ void storeVector(BFloat16* target, const float (&x)[8]) {
  __stwb(reinterpret_cast<uint4*>(target),
         make_uint4(packBFloat16(x[0], x[1]), packBFloat16(x[2], x[3]), packBFloat16(x[4], x[5]),
                    packBFloat16(x[6], x[7])));
}

inline __device__ void storeElement(float* target, float x) { *target = x; }
inline __device__ void storeElement(BFloat16* target, float x) {
  target->bits = static_cast<uint16_t>(packBFloat16(x, 0.0f));
}

// The part [begin, end) of the kVector<T> elements from some address on that a thread works on. `whole` when it is all
// of them and the address is a multiple of 16 bytes.
struct VectorPart {
  int begin;
  int end;
  bool whole;

  __device__ bool has(int i) const { return i >= begin && i < end; }
};

// Elements outside the part read as zero.
template <class T>
__device__ void loadPart(const T* source, const VectorPart& part, float (&x)[kVector<T>]) {
  if (part.whole) {
    loadVector(source, x);
  } else {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) x[i] = part.has(i) ? toFloat(source[i]) : 0.0f;
  }
}

template <class T>
__device__ void storePart(T* target, const VectorPart& part, const float (&x)[kVector<T>]) {
  if (part.whole) {
    storeVector(target, x);
  } else {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i)
      if (part.has(i)) storeElement(target + i, x[i]);
  }
}

// Infinities and NaNs.
template <int kCount>
__device__ int countNonFinite(const float (&x)[kCount]) {
  int count = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i) count += (bitsOf(x[i]) & 0x7f800000u) == 0x7f800000u ? 1 : 0;
  return count;
}

}  // namespace didr
