#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "native/cuda/cublas.h"

namespace didr {
namespace {

constexpr const char* kFiles[] = {"libcublas.so.13", "libcublas.so.12"};
constexpr int kOldestMajor = 12;

// cublasStatus_t
constexpr int kSuccess = 0, kAllocationFailed = 3, kNotSupported = 15;
// cublasOperation_t
constexpr int kAsItIs = 0, kTransposed = 1;
// cudaDataType
constexpr int kFloat32Type = 0, kBFloat16Type = 14;
// cublasComputeType_t: products and sums in float32; not the one that rounds float32 operands to TF32.
constexpr int kComputeFloat32 = 68;
// cublasMath_t: the default, and no partial sums in the type of the result.
constexpr int kMathMode = 16;
// cublasGemmAlgo_t
constexpr int kDefaultAlgorithm = -1;

// For the message of a product that failed.
const char* statusName(int status) {
  switch (status) {
    case 1:
      return "matmul: CUBLAS_STATUS_NOT_INITIALIZED";
    case kAllocationFailed:
      return "matmul: CUBLAS_STATUS_ALLOC_FAILED";
    case 7:
      return "matmul: CUBLAS_STATUS_INVALID_VALUE";
    case 8:
      return "matmul: CUBLAS_STATUS_ARCH_MISMATCH";
    case 13:
      return "matmul: CUBLAS_STATUS_EXECUTION_FAILED";
    case 14:
      return "matmul: CUBLAS_STATUS_INTERNAL_ERROR";
    default:
      return "matmul: cuBLAS";
  }
}

template <class Function>
bool find(void* library, const char* name, Function& function, const char*& missing) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) missing = name;
  return function != nullptr;
}

}  // namespace

Cublas::Cublas(cudaStream_t stream, bool onHost) {
  const char* const wanted = std::getenv("DIDR_CUBLAS");
  if (wanted != nullptr && std::strcmp(wanted, "0") == 0) {
    std::snprintf(description_, sizeof description_, "own kernel: cuBLAS is off (DIDR_CUBLAS=0)");
    return;
  }
  char reasons[300] = "";
  if (wanted != nullptr && *wanted != '\0') {
    if (open(wanted, stream, reasons, sizeof reasons)) return;
  } else if (onHost) {
    std::snprintf(reasons, sizeof reasons, "the kernels run on the host");
  } else {
    size_t used = 0;
    for (const char* const file : kFiles) {
      char reason[140];
      if (open(file, stream, reason, sizeof reason)) return;
      used += static_cast<size_t>(std::snprintf(reasons + used, sizeof reasons - used, "%s%s",
                                                used == 0 ? "" : "; ", reason));
      if (used >= sizeof reasons) break;
    }
  }
  std::snprintf(description_, sizeof description_, "own kernel: no cuBLAS: %s", reasons);
}

Cublas::~Cublas() {
  // The library stays open: it has threads and handlers of its own.
  if (handle_ != nullptr) entries_.destroy(handle_);
}

bool Cublas::open(const char* file, cudaStream_t stream, char* reason, size_t reasonBytes) {
  void* const library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const why = dlerror();
    std::snprintf(reason, reasonBytes, "%s", why != nullptr ? why : file);
    return false;
  }
  CublasEntries entries;
  const char* missing = nullptr;
  if (!find(library, "cublasCreate_v2", entries.create, missing) ||
      !find(library, "cublasDestroy_v2", entries.destroy, missing) ||
      !find(library, "cublasSetStream_v2", entries.setStream, missing) ||
      !find(library, "cublasSetMathMode", entries.setMathMode, missing) ||
      !find(library, "cublasGetVersion_v2", entries.version, missing) ||
      !find(library, "cublasGemmEx", entries.gemm, missing) ||
      !find(library, "cublasGemmStridedBatchedEx", entries.gemmStridedBatched, missing)) {
    std::snprintf(reason, reasonBytes, "%s has no %s", file, missing);
    return false;
  }
  CublasEntries::Handle handle = nullptr;
  int status = entries.create(&handle);
  if (status != kSuccess) {
    std::snprintf(reason, reasonBytes, "%s cannot be set up (status %d)", file, status);
    return false;
  }
  int version = 0;
  const char* failed = nullptr;
  if ((status = entries.version(handle, &version)) != kSuccess) failed = "version";
  const int major = version / 10000, minor = version / 100 % 100, patch = version % 100;
  if (failed == nullptr && major < kOldestMajor) {
    std::snprintf(reason, reasonBytes, "%s is version %d.%d.%d, %d.0 or newer is needed", file,
                  major, minor, patch, kOldestMajor);
    entries.destroy(handle);
    return false;
  }
  if (failed == nullptr && (status = entries.setStream(handle, stream)) != kSuccess)
    failed = "stream";
  if (failed == nullptr && (status = entries.setMathMode(handle, kMathMode)) != kSuccess)
    failed = "math mode";
  if (failed != nullptr) {
    std::snprintf(reason, reasonBytes, "%s fails at its %s (status %d)", file, failed, status);
    entries.destroy(handle);
    return false;
  }
  entries_ = entries;
  handle_ = handle;
  std::snprintf(description_, sizeof description_, "cuBLAS %d.%d.%d (%s)", major, minor, patch,
                file);
  return true;
}

// cuBLAS has columns lie contiguous, so to it each of our matrices is its transpose, and it is asked for
// yᵀ [n, m] = op(b)ᵀ op(a)ᵀ: b comes first, and an operand that we read as it lies is one that it reads as it lies. Leading
// dimensions are the lengths of our rows.
bool Cublas::multiply(const MatmulArgs& arguments, CudaContext& context) const {
  if (handle_ == nullptr) return false;
  const auto& [a, b, bias, y, m, n, k, batch, aStride, bStride, transA, transB, activation, dtype,
               alpha, beta] = arguments;
  // Nothing to sum is the kernel's own case, and sizes are 32-bit integers here.
  if (m <= 0 || n <= 0 || k <= 0 || batch <= 0) return false;
  if (m > INT32_MAX || n > INT32_MAX || k > INT32_MAX || batch > INT32_MAX) return false;
  const int type = dtype == DType::kFloat32 ? kFloat32Type : kBFloat16Type;
  const int rows = static_cast<int>(n), columns = static_cast<int>(m);
  const int depth = static_cast<int>(k);
  const int opA = transA ? kTransposed : kAsItIs, opB = transB ? kTransposed : kAsItIs;
  const int lda = transA ? columns : depth, ldb = transB ? depth : rows;
  const int status = batch == 1 ? entries_.gemm(handle_, opB, opA, rows, columns, depth, &alpha, b,
                                                type, ldb, a, type, lda, &beta, y, type, rows,
                                                kComputeFloat32, kDefaultAlgorithm)
                                : entries_.gemmStridedBatched(
                                      handle_, opB, opA, rows, columns, depth, &alpha, b, type, ldb,
                                      bStride, a, type, lda, aStride, &beta, y, type, rows, m * n,
                                      static_cast<int>(batch), kComputeFloat32, kDefaultAlgorithm);
  if (status == kNotSupported) return false;
  if (status != kSuccess)
    context.check(statusName(status),
                  status == kAllocationFailed ? cudaErrorMemoryAllocation : cudaErrorLaunchFailure);
  return true;
}

}  // namespace didr
