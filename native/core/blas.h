// Single-precision matrix products behind one small interface.
//
// Built with DIDR_BLAS_OPENBLAS the product is OpenBLAS's; without, the package's own kernel
// (native/ops/matmul/gemm.cpu.h) takes its place and sgemm is not declared. A product runs on the
// thread that calls it, and several threads may call at once: the thread pool owns all parallelism.
#pragma once

#include <cstdint>

namespace didr {

// What multiplies matrices in this build, for people to read.
const char* blasName();

#if defined(DIDR_BLAS_OPENBLAS)
// c = alpha op(a) op(b) + beta c, row-major; op(a) [m, k], op(b) [k, n], c [m, n], with the given
// distances between rows. c is not read when beta is 0.
void sgemm(bool transA, bool transB, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
           int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
#endif

}  // namespace didr
