// Matrix products by cuBLAS, opened at run time: libcublas.so.13, else libcublas.so.12. The module does not depend on it;
// where there is none, matmul.cu's own kernel makes them all.
//
// DIDR_CUBLAS=0 turns it off; any other value is the path of the library to open in its place.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "native/core/cuda_launch.h"
#include "native/ops/matmul/matmul.h"

namespace didr {

// The entry points that are used. Declared here, because the toolkit's headers need not be where the module is built.
// Values and signatures: cuBLAS 13.0 documentation, sections 2.2 and 2.8; the same since 11.0.
struct CublasEntries {
  using Handle = void*;
  using Status = int;

  Status (*create)(Handle* handle);
  Status (*destroy)(Handle handle);
  Status (*setStream)(Handle handle, cudaStream_t stream);
  Status (*setMathMode)(Handle handle, int mode);
  Status (*version)(Handle handle, int* version);
  Status (*gemm)(Handle handle, int transA, int transB, int m, int n, int k, const void* alpha,
                 const void* a, int typeA, int lda, const void* b, int typeB, int ldb,
                 const void* beta, void* c, int typeC, int ldc, int compute, int algorithm);
  Status (*gemmStridedBatched)(Handle handle, int transA, int transB, int m, int n, int k,
                               const void* alpha, const void* a, int typeA, int lda,
                               long long strideA, const void* b, int typeB, int ldb,
                               long long strideB, const void* beta, void* c, int typeC, int ldc,
                               long long strideC, int batch, int compute, int algorithm);
};

// cuBLAS on one stream, or the reason why it is not there.
class Cublas {
 public:
  // Opens it for the current device. `onHost`: the kernels run on the host, where only a library that DIDR_CUBLAS names
  // can be one for them.
  Cublas(cudaStream_t stream, bool onHost);
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  // Which library, `cuBLAS 13.0.2 (libcublas.so.13)`, or why none.
  const char* description() const { return description_; }

  // Enqueues y = alpha op(a) op(b) + beta y; bias and activation are left out. False where cuBLAS is not there or does not
  // take the product: nothing has been enqueued then. The context has the error where it failed.
  bool multiply(const MatmulArgs& arguments, CudaContext& context) const;

 private:
  bool open(const char* file, cudaStream_t stream, char* reason, size_t reasonBytes);

  CublasEntries entries_{};
  CublasEntries::Handle handle_ = nullptr;
  char description_[400];
};

}  // namespace didr
