// Stands in for libcublas where the kernels run on the host: the entry points that native/cuda/cublas.h declares, as NVIDIA's
// documentation has them. Matrices are stored column by column, sums are in double, work is in order on the handle's
// stream, and arguments that the real one refuses are refused.
//
// FAKE_CUBLAS_VERSION: what it says it is. FAKE_CUBLAS_WITHOUT_BATCHES: it has no cublasGemmStridedBatchedEx.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "native/core/dtype.h"

#if !defined(FAKE_CUBLAS_VERSION)
#define FAKE_CUBLAS_VERSION 130002
#endif
#define FAKE_CUBLAS_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7, kNotSupported = 15;
constexpr int kFloat32 = 0, kBFloat16 = 14, kComputeFloat32 = 68, kTransposed = 1;

struct Handle {
  void* stream = nullptr;
  int mathMode = 0;
};

std::atomic<int> products{0};

using Enqueue = void (*)(void* stream, void (*function)(void*), void* argument);

// In the program that the harness is linked into, or in the module that runs on the host.
Enqueue findEnqueue() {
  constexpr const char* kName = "didr_cuda_on_host_enqueue";
  if (void* const found = dlsym(RTLD_DEFAULT, kName)) return reinterpret_cast<Enqueue>(found);
  const char* const module = std::getenv("DIDR_CUDA_MODULE");
  void* const opened = module == nullptr ? nullptr : dlopen(module, RTLD_NOW | RTLD_NOLOAD);
  return opened == nullptr ? nullptr : reinterpret_cast<Enqueue>(dlsym(opened, kName));
}

struct Matrix {
  const void* data;
  int64_t leading;
  bool transposed;

  // Of op(matrix), which is stored column by column before op.
  double at(int64_t row, int64_t column, int type) const {
    const int64_t place = transposed ? column + row * leading : row + column * leading;
    return type == kFloat32 ? static_cast<const float*>(data)[place]
                            : static_cast<double>(
                                  didr::toFloat(static_cast<const didr::BFloat16*>(data)[place]));
  }
};

struct Product {
  int64_t m, n, k, batch;
  Matrix a, b;
  int64_t strideA, strideB, strideC, leadingC;
  void* c;
  int type;
  float alpha, beta;

  size_t width() const { return type == kFloat32 ? sizeof(float) : sizeof(didr::BFloat16); }

  void run() const {
    for (int64_t index = 0; index < batch; ++index) {
      const Matrix left = moved(a, index * strideA), right = moved(b, index * strideB);
      char* const out = static_cast<char*>(c) + static_cast<size_t>(index * strideC) * width();
      for (int64_t column = 0; column < n; ++column)
        for (int64_t row = 0; row < m; ++row) {
          double sum = 0;
          for (int64_t p = 0; p < k; ++p) sum += left.at(row, p, type) * right.at(p, column, type);
          const int64_t place = row + column * leadingC;
          double x = alpha * sum;
          if (beta != 0) x += beta * Matrix{out, leadingC, false}.at(row, column, type);
          if (type == kFloat32)
            reinterpret_cast<float*>(out)[place] = static_cast<float>(x);
          else
            reinterpret_cast<didr::BFloat16*>(out)[place] = didr::toBFloat16(static_cast<float>(x));
        }
    }
  }

 private:
  Matrix moved(Matrix matrix, int64_t elements) const {
    matrix.data = static_cast<const char*>(matrix.data) + elements * static_cast<int64_t>(width());
    return matrix;
  }
};

int enqueue(void* handle, int transA, int transB, int m, int n, int k, const void* alpha,
            const void* a, int typeA, int lda, long long strideA, const void* b, int typeB, int ldb,
            long long strideB, const void* beta, void* c, int typeC, int ldc, long long strideC,
            int batch, int compute, int algorithm) {
  if (handle == nullptr) return kNotInitialized;
  const bool isA = transA == kTransposed, isB = transB == kTransposed;
  if (transA < 0 || transA > kTransposed || transB < 0 || transB > kTransposed || m < 0 || n < 0 ||
      k < 0 || batch < 0 || lda < std::max(1, isA ? k : m) || ldb < std::max(1, isB ? n : k) ||
      ldc < std::max(1, m) || alpha == nullptr || beta == nullptr)
    return kInvalidValue;
  if (typeA != typeB || typeA != typeC || (typeA != kFloat32 && typeA != kBFloat16) ||
      compute != kComputeFloat32 || algorithm != -1)
    return kNotSupported;
  // No reductions in bfloat16, and TF32 only where it has been asked for.
  if (static_cast<Handle*>(handle)->mathMode != 16) return kNotSupported;
  static const Enqueue inOrder = findEnqueue();
  if (inOrder == nullptr) return kNotInitialized;
  ++products;
  auto product = std::make_unique<Product>(Product{m,
                                                   n,
                                                   k,
                                                   batch,
                                                   {a, lda, isA},
                                                   {b, ldb, isB},
                                                   strideA,
                                                   strideB,
                                                   strideC,
                                                   ldc,
                                                   c,
                                                   typeA,
                                                   *static_cast<const float*>(alpha),
                                                   *static_cast<const float*>(beta)});
  inOrder(
      static_cast<Handle*>(handle)->stream,
      [](void* argument) {
        const std::unique_ptr<Product> own(static_cast<Product*>(argument));
        own->run();
      },
      product.release());
  return kSuccess;
}

}  // namespace

// Products that it has taken, for tests.
FAKE_CUBLAS_EXPORT int fakeCublasProducts() { return products; }

FAKE_CUBLAS_EXPORT int cublasCreate_v2(void** handle) {
  *handle = new Handle;
  return kSuccess;
}

FAKE_CUBLAS_EXPORT int cublasDestroy_v2(void* handle) {
  delete static_cast<Handle*>(handle);
  return kSuccess;
}

FAKE_CUBLAS_EXPORT int cublasSetStream_v2(void* handle, void* stream) {
  static_cast<Handle*>(handle)->stream = stream;
  return kSuccess;
}

FAKE_CUBLAS_EXPORT int cublasSetMathMode(void* handle, int mode) {
  static_cast<Handle*>(handle)->mathMode = mode;
  return kSuccess;
}

FAKE_CUBLAS_EXPORT int cublasGetVersion_v2(void*, int* version) {
  *version = FAKE_CUBLAS_VERSION;
  return kSuccess;
}

FAKE_CUBLAS_EXPORT int cublasGemmEx(void* handle, int transA, int transB, int m, int n, int k,
                                    const void* alpha, const void* a, int typeA, int lda,
                                    const void* b, int typeB, int ldb, const void* beta, void* c,
                                    int typeC, int ldc, int compute, int algorithm) {
  return enqueue(handle, transA, transB, m, n, k, alpha, a, typeA, lda, 0, b, typeB, ldb, 0, beta,
                 c, typeC, ldc, 0, 1, compute, algorithm);
}

#if !defined(FAKE_CUBLAS_WITHOUT_BATCHES)
FAKE_CUBLAS_EXPORT int cublasGemmStridedBatchedEx(void* handle, int transA, int transB, int m,
                                                  int n, int k, const void* alpha, const void* a,
                                                  int typeA, int lda, long long strideA,
                                                  const void* b, int typeB, int ldb,
                                                  long long strideB, const void* beta, void* c,
                                                  int typeC, int ldc, long long strideC, int batch,
                                                  int compute, int algorithm) {
  return enqueue(handle, transA, transB, m, n, k, alpha, a, typeA, lda, strideA, b, typeB, ldb,
                 strideB, beta, c, typeC, ldc, strideC, batch, compute, algorithm);
}
#endif
