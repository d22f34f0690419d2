// A few neighbouring elements of any dtype in a thread's registers, moved 4, 8 or 16 bytes at a
// time.
#pragma once

#include <cstdint>
#include <cstring>

#include "native/core/cuda_launch.h"
#include "native/core/dtype.h"

namespace didr {

template <class T, int kCount>
struct Packed {
  static constexpr int kBytes = static_cast<int>(sizeof(T)) * kCount;
  static constexpr int kWords = kBytes / 4;
  static_assert(kBytes % 4 == 0 && (kBytes < 16 || kBytes % 16 == 0) && kBytes != 12);

  uint32_t words[kWords];

  __device__ T get(int i) const {
    if constexpr (sizeof(T) == 4) {
      return ofBits<uint32_t>(words[i]);
    } else if constexpr (sizeof(T) == 2) {
      return ofBits<uint16_t>(static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2))));
    } else {
      return ofBits<uint8_t>(static_cast<uint8_t>(words[i / 4] >> (8 * (i % 4))));
    }
  }

  // Elements start as zeros and are set once.
  __device__ void clear() {
#pragma unroll
    for (int w = 0; w < kWords; ++w) words[w] = 0;
  }
  __device__ void set(int i, T value) {
    if constexpr (sizeof(T) == 4) {
      words[i] = bitsIn<uint32_t>(value);
    } else if constexpr (sizeof(T) == 2) {
      words[i / 2] |= static_cast<uint32_t>(bitsIn<uint16_t>(value)) << (16 * (i % 2));
    } else {
      words[i / 4] |= static_cast<uint32_t>(bitsIn<uint8_t>(value)) << (8 * (i % 4));
    }
  }

  // `source` is a multiple of the bytes, or of 16 where those are more.
  __device__ void load(const T* source) {
    if constexpr (kBytes == 4) {
      words[0] = *reinterpret_cast<const uint32_t*>(source);
    } else if constexpr (kBytes == 8) {
      const uint2 v = *reinterpret_cast<const uint2*>(source);
      words[0] = v.x;
      words[1] = v.y;
    } else {
#pragma unroll
      for (int w = 0; w < kWords; w += 4) {
        const uint4 v = reinterpret_cast<const uint4*>(source)[w / 4];
        words[w] = v.x;
        words[w + 1] = v.y;
        words[w + 2] = v.z;
        words[w + 3] = v.w;
      }
    }
  }
  __device__ void store(T* target) const {
    if constexpr (kBytes == 4) {
      __stwb(reinterpret_cast<uint32_t*>(target), words[0]);
    } else if constexpr (kBytes == 8) {
      __stwb(reinterpret_cast<uint2*>(target), make_uint2(words[0], words[1]));
    } else {
#pragma unroll
      for (int w = 0; w < kWords; w += 4)
        __stwb(reinterpret_cast<uint4*>(target) + w / 4,
               make_uint4(words[w], words[w + 1], words[w + 2], words[w + 3]));
    }
  }

  // The first `count` elements.
  __device__ void storeSome(T* target, int64_t count) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      if (i < count) target[i] = get(i);
  }

 private:
  template <class Bits>
  static __device__ T ofBits(Bits bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  template <class Bits>
  static __device__ Bits bitsIn(T value) {
    Bits bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
  }
};

// Whether a Packed<T, kCount> can be loaded from, or stored to, `address`.
template <class T, int kCount>
__device__ bool isAligned(const T* address) {
  constexpr uintptr_t kBytes = Packed<T, kCount>::kBytes < 16 ? Packed<T, kCount>::kBytes : 16;
  return reinterpret_cast<uintptr_t>(address) % kBytes == 0;
}

}  // namespace didr
