#include "native/core/blas.h"

#if defined(DIDR_BLAS_OPENBLAS)
#include <cblas.h>

#include <cstdlib>
#include <mutex>
#include <string>
#endif

#if defined(DIDR_BLAS_OPENBLAS) && defined(__x86_64__) && defined(__linux__)
// OpenBLAS' constructor, which does nothing when called again.
extern "C" void gotoblas_init(void) __attribute__((weak));

// OpenBLAS goes by a list of processor models, and takes its slowest kernels (SSE3) on any that is newer than itself: a
// tenth of the speed. So it is told which kernels the processor can run, unless the user has told it already. It listens
// once, in its own constructor; this one comes before.
__attribute__((constructor(101))) static void chooseOpenBlasKernels() {
  constexpr const char* kVariable = "OPENBLAS_CORETYPE";
  if (std::getenv(kVariable) != nullptr || gotoblas_init == nullptr) return;
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (!avx2) return;
  setenv(kVariable, avx512 ? "SkylakeX" : "Haswell", 1);
  gotoblas_init();
  unsetenv(kVariable);
}
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
