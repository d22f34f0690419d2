// Products by a cuBLAS that is opened at run time, against float64: fake_cublas.cc in its place. On a real device
// matmul_test.cc goes through the real one.
#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "native/ops/matmul/matmul.h"
#include "test/native/cuda/both_devices.h"
#include "test/native/elementwise/reference.h"

namespace didr::test {
namespace {

// A queue whose cuBLAS is the one that DIDR_CUBLAS names while it is made.
class QueueWith {
 public:
  explicit QueueWith(const char* cublas) {
    CudaFailure failure = {};
    if (cublas == nullptr)
      unsetenv("DIDR_CUBLAS");
    else
      setenv("DIDR_CUBLAS", cublas, 1);
    REQUIRE(module().createQueue(0, queue_, failure));
    unsetenv("DIDR_CUBLAS");
  }
  ~QueueWith() { module().destroyQueue(queue_); }
  QueueWith(const QueueWith&) = delete;
  QueueWith& operator=(const QueueWith&) = delete;

  static const CudaModule& module() { return Cuda::get().module(); }
  std::string description() const { return module().matrixProducts(queue_); }
  CudaQueue* get() const { return queue_; }

 private:
  CudaQueue* queue_ = nullptr;
};

int productsTaken() {
  void* const library = dlopen(DIDR_FAKE_CUBLAS, RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library != nullptr);
  void* const count = dlsym(library, "fakeCublasProducts");
  REQUIRE(count != nullptr);
  return reinterpret_cast<int (*)()>(count)();
}

// Device memory of the queue's with these elements, between sentinels.
template <class T>
class OnQueue {
 public:
  OnQueue(const QueueWith& queue, const std::vector<T>& values) : queue_(queue), values_(values) {
    values_.insert(values_.begin(), kGuard, storeAs(T{}, 12345.0f));
    values_.insert(values_.end(), kGuard, storeAs(T{}, 12345.0f));
    CudaFailure failure = {};
    REQUIRE(QueueWith::module().allocateHost(bytes(), staging_, failure));
    REQUIRE(QueueWith::module().allocate(queue.get(), bytes(), device_, failure));
    std::memcpy(staging_, values_.data(), bytes());
    REQUIRE(QueueWith::module().upload(queue.get(), device_, staging_, bytes(), failure));
  }
  ~OnQueue() {
    CudaFailure ignored = {};
    QueueWith::module().release(queue_.get(), device_, ignored);
    QueueWith::module().synchronize(queue_.get(), ignored);
    QueueWith::module().releaseHost(staging_);
  }
  OnQueue(const OnQueue&) = delete;
  OnQueue& operator=(const OnQueue&) = delete;

  T* at() const { return static_cast<T*>(device_) + kGuard; }

  std::vector<T> read() const {
    CudaFailure failure = {};
    REQUIRE(QueueWith::module().download(queue_.get(), staging_, device_, bytes(), failure));
    REQUIRE(QueueWith::module().synchronize(queue_.get(), failure));
    const T* const all = static_cast<const T*>(staging_);
    const size_t size = values_.size() - 2 * kGuard;
    REQUIRE(std::memcmp(all, values_.data(), kGuard * sizeof(T)) == 0);
    REQUIRE(std::memcmp(all + kGuard + size, values_.data(), kGuard * sizeof(T)) == 0);
    return std::vector<T>(all + kGuard, all + kGuard + size);
  }

 private:
  static constexpr size_t kGuard = 8;
  size_t bytes() const { return values_.size() * sizeof(T); }

  const QueueWith& queue_;
  std::vector<T> values_;
  void* staging_ = nullptr;
  void* device_ = nullptr;
};

struct Options {
  int64_t m = 5, n = 7, k = 9, batch = 1;
  bool transA = false, transB = false, sharedA = false, sharedB = false, bias = false;
  Activation activation = Activation::kNone;
  float alpha = 1, beta = 0;
};

// Compares y with float64; returns how many products cuBLAS was asked for.
template <class T>
int checkProduct(const QueueWith& queue, const Options& o) {
  CAPTURE(o.m);
  CAPTURE(o.n);
  CAPTURE(o.k);
  CAPTURE(o.batch);
  CAPTURE(o.transA);
  CAPTURE(o.transB);
  const int64_t aStride = o.sharedA ? 0 : o.m * o.k, bStride = o.sharedB ? 0 : o.k * o.n;
  const std::vector<T> a = someValues<T>(o.m * o.k * (o.sharedA ? 1 : o.batch), 71);
  const std::vector<T> b = someValues<T>(o.k * o.n * (o.sharedB ? 1 : o.batch), 72);
  const std::vector<T> bias = someValues<T>(o.n, 73);
  std::vector<T> before = someValues<T>(o.m * o.n * o.batch, 74);
  // Without beta y must not be read.
  if (o.beta == 0)
    for (T& value : before) value = storeAs(T{}, NAN);
  const OnQueue<T> left(queue, a), right(queue, b), added(queue, bias), y(queue, before);
  const MatmulArgs arguments = {left.at(),
                                right.at(),
                                o.bias ? added.at() : nullptr,
                                y.at(),
                                o.m,
                                o.n,
                                o.k,
                                o.batch,
                                aStride,
                                bStride,
                                o.transA,
                                o.transB,
                                o.activation,
                                DTypeOf<T>::value,
                                o.alpha,
                                o.beta};
  const int taken = productsTaken();
  CudaFailure failure = {};
  REQUIRE(
      QueueWith::module().launch(queue.get(), static_cast<int>(Op::matmul), &arguments, failure));
  const std::vector<T> got = y.read();
  requireEach(got.size(), [&](size_t at) {
    const auto column = static_cast<int64_t>(at) % o.n;
    const int64_t row = static_cast<int64_t>(at) / o.n % o.m;
    const int64_t batch = static_cast<int64_t>(at) / o.n / o.m;
    double sum = 0, magnitude = 0;
    for (int64_t p = 0; p < o.k; ++p) {
      const double x = toFloat(
          a[static_cast<size_t>(batch * aStride + (o.transA ? p * o.m + row : row * o.k + p))]);
      const double z = toFloat(b[static_cast<size_t>(
          batch * bStride + (o.transB ? column * o.k + p : p * o.n + column))]);
      sum += x * z;
      magnitude += std::fabs(x * z);
    }
    double x = o.alpha * sum;
    if (o.beta != 0) x += o.beta * toFloat(before[at]);
    if (o.bias) x += toFloat(bias[static_cast<size_t>(column)]);
    const double want = activationOf(o.activation, x);
    const double bound = 0x1p-21 * (std::fabs(o.alpha) * magnitude + std::fabs(x) + 1) +
                         (sizeof(T) == 4 ? 0 : kRounding<T> * std::fabs(want));
    return std::fabs(toFloat(got[at]) - want) <= bound;
  });
  return productsTaken() - taken;
}

TEST_CASE_TEMPLATE("cublas: operands, strides and factors are mapped to column order", T, float,
                   BFloat16) {
  if (!Cuda::get().onHost()) return;
  const QueueWith queue(DIDR_FAKE_CUBLAS);
  CHECK(queue.description() == "cuBLAS 13.0.2 (" DIDR_FAKE_CUBLAS ")");
  for (const bool transA : {false, true})
    for (const bool transB : {false, true})
      for (const int64_t batch : {1, 3})
        for (const int shared : {0, 1, 2})
          CHECK(checkProduct<T>(queue, {.batch = batch,
                                        .transA = transA,
                                        .transB = transB,
                                        .sharedA = shared == 1,
                                        .sharedB = shared == 2}) == 1);
  CHECK(checkProduct<T>(queue, {.m = 1, .n = 1, .k = 1}) == 1);
  CHECK(checkProduct<T>(queue, {.m = 1, .n = 13, .k = 4, .transB = true}) == 1);
  CHECK(checkProduct<T>(queue, {.m = 17, .n = 1, .k = 3, .transA = true}) == 1);
  CHECK(checkProduct<T>(queue, {.batch = 2, .alpha = 0.25f, .beta = -0.5f}) == 1);
}

TEST_CASE(
    "cublas: bias and activation come after a product in float32, in one that is ours in "
    "bfloat16") {
  if (!Cuda::get().onHost()) return;
  const QueueWith queue(DIDR_FAKE_CUBLAS);
  for (int kind = 0; kind <= static_cast<int>(kLastActivation); ++kind)
    for (const bool bias : {false, true}) {
      // Rows that are and that are not whole vectors, at addresses that are aligned and that are not.
      for (const int64_t n : {8, 7}) {
        Options options = {.n = n,
                           .batch = 2,
                           .sharedB = true,
                           .bias = bias,
                           .activation = static_cast<Activation>(kind),
                           .alpha = 0.5f,
                           .beta = 0.25f};
        CHECK(checkProduct<float>(queue, options) == 1);
        const bool isPlain = !bias && options.activation == Activation::kNone;
        CHECK(checkProduct<BFloat16>(queue, options) == (isPlain ? 1 : 0));
      }
    }
}

TEST_CASE("cublas: nothing to sum is the own kernel's, nothing to write nobody's") {
  if (!Cuda::get().onHost()) return;
  const QueueWith queue(DIDR_FAKE_CUBLAS);
  CHECK(checkProduct<float>(queue, {.k = 0}) == 0);
  CHECK(checkProduct<float>(queue, {.k = 0, .bias = true, .beta = 0.5f}) == 0);
  CHECK(checkProduct<float>(queue, {.m = 0}) == 0);
  CHECK(checkProduct<BFloat16>(queue, {.batch = 0}) == 0);
}

TEST_CASE(
    "cublas: one that is off, too old, incomplete or not there leaves the own kernel, saying why") {
  if (!Cuda::get().onHost()) return;
  const struct {
    const char* named;
    std::string reason;
  } cases[] = {
      {"0", "own kernel: cuBLAS is off (DIDR_CUBLAS=0)"},
      {nullptr, "own kernel: no cuBLAS: the kernels run on the host"},
      {"", "own kernel: no cuBLAS: the kernels run on the host"},
      {DIDR_FAKE_CUBLAS_OLD, "own kernel: no cuBLAS: " DIDR_FAKE_CUBLAS_OLD
                             " is version 11.5.4, 12.0 or newer is needed"},
      {DIDR_FAKE_CUBLAS_INCOMPLETE,
       "own kernel: no cuBLAS: " DIDR_FAKE_CUBLAS_INCOMPLETE " has no cublasGemmStridedBatchedEx"},
      {"/nonexistent/libcublas.so",
       "own kernel: no cuBLAS: /nonexistent/libcublas.so: cannot open"},
  };
  for (const auto& [named, reason] : cases) {
    const QueueWith queue(named);
    CHECK(queue.description().substr(0, reason.size()) == reason);
    CHECK(checkProduct<float>(queue, {}) == 0);
  }
}

}  // namespace
}  // namespace didr::test
