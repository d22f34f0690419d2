// Marks scalar formulas shared by the CPU kernels, the CUDA kernels and the CUDA-on-host harness.
//
// On the host the functions have internal linkage and are always inlined: every CPU kernel is compiled
// once per instruction level, and a weak out-of-line copy made for AVX-512 must never be the one that the
// linker keeps for the baseline.
#pragma once

#if defined(__CUDACC__)
#define DIDR_HOST_DEVICE static __host__ __device__ __forceinline__
#define DIDR_MEMBER_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define DIDR_HOST_DEVICE static __forceinline
#define DIDR_MEMBER_HOST_DEVICE __forceinline
#else
#define DIDR_HOST_DEVICE static inline __attribute__((always_inline))
#define DIDR_MEMBER_HOST_DEVICE inline __attribute__((always_inline))
#endif
