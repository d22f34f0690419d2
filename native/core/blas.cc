#include "native/core/blas.h"

#if defined(DIDR_BLAS_OPENBLAS)
#include <cblas.h>

#include <mutex>
#include <string>
#endif

namespace didr {

#if defined(DIDR_BLAS_OPENBLAS)
namespace {

// OpenBLAS built without threads hands out its work buffers without a lock: two threads in it at
// once may get the same one and spoil each other's product. Its builds with threads are safe, and
// are told to use one.
//
// Asked at the first product: before its own constructors have run OpenBLAS must not be called.
bool needsLock() {
  static const bool needed = [] {
    openblas_set_num_threads(1);
    return openblas_get_parallel() == OPENBLAS_SEQUENTIAL;
  }();
  return needed;
}
std::mutex sequential;

}  // namespace

const char* blasName() {
  static const std::string name = std::string(openblas_get_config()) + ", kernels for " +
                                  openblas_get_corename() +
                                  (needsLock() ? ", one product at a time" : "");
  return name.c_str();
}

void sgemm(bool transA, bool transB, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
           int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  std::unique_lock lock(sequential, std::defer_lock);
  if (needsLock()) lock.lock();
  cblas_sgemm(CblasRowMajor, transA ? CblasTrans : CblasNoTrans, transB ? CblasTrans : CblasNoTrans,
              static_cast<blasint>(m), static_cast<blasint>(n), static_cast<blasint>(k), alpha, a,
              static_cast<blasint>(lda), b, static_cast<blasint>(ldb), beta, c,
              static_cast<blasint>(ldc));
}
#else
const char* blasName() { return "didr"; }
#endif

}  // namespace didr
