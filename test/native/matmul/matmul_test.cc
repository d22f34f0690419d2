#include "native/ops/matmul/matmul.h"

#include "native/ops/matmul/gemm.cpu.h"
#include "test/native/elementwise/reference.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

struct Size {
  int64_t m, n, k;
};

struct Options {
  bool transA = false, transB = false;
  int64_t batch = 1;
  bool sharedA = false, sharedB = false;
  bool bias = false;
  Activation activation = Activation::kNone;
  float alpha = 1, beta = 0;
};

// Every level and several thread counts. Sums are taken in another order there, so results are
// compared with float64 and not with each other.
template <class Check>
void onEveryPool(const Check& check) {
  int levels = 0;
  const OpTable* const* tables = cpuOpLevels(levels);
  for (const int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    for (int level = 0; level < levels; ++level) {
      CAPTURE(threads);
      CAPTURE(tables[level]->level);
      check([&](const MatmulArgs& arguments) {
        CpuContext context{pool, "matmul", {}};
        tables[level]->kernels[static_cast<int>(Op::matmul)](&arguments, context);
        CHECK(context.failure.ok());
      });
    }
  }
}

template <class T>
void checkProduct(const Size& s, const Options& o) {
  CAPTURE(s.m);
  CAPTURE(s.n);
  CAPTURE(s.k);
  CAPTURE(o.transA);
  CAPTURE(o.transB);
  CAPTURE(o.batch);
  CAPTURE(o.bias);
  CAPTURE(static_cast<int>(o.activation));
  const int64_t aStride = o.sharedA ? 0 : s.m * s.k;
  const int64_t bStride = o.sharedB ? 0 : s.k * s.n;
  const std::vector<T> a = someValues<T>(s.m * s.k * (o.sharedA ? 1 : o.batch), 51);
  const std::vector<T> b = someValues<T>(s.k * s.n * (o.sharedB ? 1 : o.batch), 52);
  const std::vector<T> bias = someValues<T>(s.n, 53);
  const std::vector<T> before = someValues<T>(s.m * s.n * o.batch, 54);

  std::vector<double> want(before.size()), scale(before.size());
  for (int64_t batch = 0; batch < o.batch; ++batch)
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t j = 0; j < s.n; ++j) {
        double sum = 0, magnitude = 0;
        for (int64_t p = 0; p < s.k; ++p) {
          const auto at =
              static_cast<size_t>(batch * aStride + (o.transA ? p * s.m + i : i * s.k + p));
          const auto bt =
              static_cast<size_t>(batch * bStride + (o.transB ? j * s.k + p : p * s.n + j));
          const double term = static_cast<double>(toFloat(a[at])) * toFloat(b[bt]);
          sum += term;
          magnitude += std::fabs(term);
        }
        const auto yt = static_cast<size_t>((batch * s.m + i) * s.n + j);
        double x = o.alpha * sum;
        if (o.beta != 0) x += o.beta * toFloat(before[yt]);
        if (o.bias) x += toFloat(bias[static_cast<size_t>(j)]);
        want[yt] = activationOf(o.activation, x);
        scale[yt] = std::fabs(o.alpha) * magnitude + std::fabs(x) + 1;
      }

  const bool isFloat = std::is_same_v<T, float>;
  const double rounding = isFloat ? 0 : 0x1p-8;
  const double tolerance = 0x1p-24 * (4 + 2 * std::sqrt(static_cast<double>(s.k)));
  onEveryPool([&](const auto& launch) {
    // Without beta y must not be read: it starts as NaN.
    Guarded<T> left(a), right(b, 1), offset(bias);
    Guarded<T> fresh(static_cast<int64_t>(before.size())), updated(before);
    Guarded<T>& y = o.beta == 0 ? fresh : updated;
    MatmulArgs arguments{};
    arguments.a = left.data();
    arguments.b = right.data();
    arguments.bias = o.bias ? offset.data() : nullptr;
    arguments.y = y.data();
    arguments.m = s.m;
    arguments.n = s.n;
    arguments.k = s.k;
    arguments.batch = o.batch;
    arguments.aBatchStride = aStride;
    arguments.bBatchStride = bStride;
    arguments.transA = o.transA;
    arguments.transB = o.transB;
    arguments.activation = o.activation;
    arguments.dtype = DTypeOf<T>::value;
    arguments.alpha = o.alpha;
    arguments.beta = o.beta;
    launch(arguments);
    int64_t wrong = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double got = toFloat(y.data()[i]);
      wrong += !(std::fabs(got - want[i]) <= tolerance * scale[i] + rounding * std::fabs(want[i]));
    }
    CHECK(wrong == 0);
  });
}

template <class T>
void checkTransposes(const Size& s, Options options) {
  for (const bool transA : {false, true})
    for (const bool transB : {false, true}) {
      options.transA = transA;
      options.transB = transB;
      checkProduct<T>(s, options);
    }
}

TEST_CASE("matmul: odd sizes and transposes, every way of computing") {
  for (const Size& s :
       {Size{1, 1, 1}, Size{3, 5, 17}, Size{5, 1, 300}, Size{1, 300, 65}, Size{4, 3, 64},
        Size{17, 2, 63}, Size{2, 513, 300}, Size{31, 33, 32}, Size{64, 65, 63}, Size{33, 300, 17},
        Size{130, 70, 300}, Size{70, 4, 900}, Size{300, 3, 700}, Size{65, 1, 5000}}) {
    checkTransposes<float>(s, {});
    checkTransposes<BFloat16>(s, {});
  }
}

TEST_CASE("matmul: nothing to sum, nothing to write") {
  for (const Size& s : {Size{3, 5, 0}, Size{0, 5, 3}, Size{3, 0, 4}, Size{100, 100, 0}}) {
    checkProduct<float>(s, {});
    checkProduct<float>(s, {.bias = true, .activation = Activation::kTanh});
    checkProduct<float>(s, {.beta = 0.5f});
    checkProduct<BFloat16>(s, {.bias = true, .activation = Activation::kGelu});
  }
  checkProduct<float>({3, 5, 4}, {.batch = 0});
}

TEST_CASE("matmul: bias and every activation, small and large") {
  for (const Size& s : {Size{7, 19, 11}, Size{100, 70, 65}, Size{600, 40, 33}})
    for (int kind = 0; kind <= static_cast<int>(kLastActivation); ++kind)
      for (const bool bias : {false, true}) {
        checkProduct<float>(s, {.bias = bias, .activation = static_cast<Activation>(kind)});
        checkProduct<BFloat16>(s, {.bias = bias, .activation = static_cast<Activation>(kind)});
      }
}

TEST_CASE("matmul: alpha and beta") {
  for (const Size& s : {Size{7, 19, 11}, Size{1, 40, 3}, Size{100, 70, 65}})
    for (const float beta : {1.0f, -0.5f}) {
      checkTransposes<float>(s, {.alpha = 0.25f, .beta = beta});
      checkProduct<float>(
          s, {.bias = true, .activation = Activation::kRelu, .alpha = -2, .beta = beta});
      checkProduct<BFloat16>(s, {.bias = true, .alpha = 3, .beta = beta});
    }
}

TEST_CASE("matmul: batches, with either operand shared") {
  for (const Size& s : {Size{5, 7, 9}, Size{40, 50, 60}, Size{2, 200, 100}})
    for (const int shared : {0, 1, 2}) {
      const Options options{
          .batch = 5, .sharedA = shared == 1, .sharedB = shared == 2, .bias = true};
      checkTransposes<float>(s, options);
      checkTransposes<BFloat16>(s, options);
    }
  checkProduct<float>({8, 8, 8}, {.batch = 300});
}

TEST_CASE("matmul: cut into panels, chunks and tiles") {
  checkProduct<float>({1100, 130, 70}, {.bias = true, .activation = Activation::kSilu});
  checkProduct<float>({130, 1100, 70}, {.transB = true, .bias = true});
  checkProduct<BFloat16>({530, 600, 300}, {.transA = true, .bias = true});
}

TEST_CASE("matmul: NaN and infinity reach what they multiply, and only that") {
  for (const int64_t size : {9, 100}) {
    std::vector<float> a = someFloats(size * size, 61), b = someFloats(size * size, 62);
    a[static_cast<size_t>(3 * size + 4)] = kNan;
    onEveryPool([&](const auto& launch) {
      Guarded<float> y(size * size);
      MatmulArgs arguments{};
      arguments.a = a.data();
      arguments.b = b.data();
      arguments.y = y.data();
      arguments.m = arguments.n = arguments.k = size;
      arguments.batch = 1;
      arguments.dtype = DType::kFloat32;
      arguments.alpha = 1;
      launch(arguments);
      for (int64_t i = 0; i < size * size; ++i) CHECK(std::isnan(y.data()[i]) == (i / size == 3));
    });
  }
}

TEST_CASE("matmul: products on several threads at once do not disturb each other") {
  constexpr int64_t kSize = 96, kBatch = 400;
  const std::vector<float> a = someFloats(kSize * kSize, 71), b = someFloats(kSize * kSize, 72);
  MatmulArgs arguments{};
  arguments.a = a.data();
  arguments.b = b.data();
  arguments.m = arguments.n = arguments.k = kSize;
  arguments.dtype = DType::kFloat32;
  arguments.alpha = 1;
  ThreadPool one(1), many(8);
  std::vector<float> want(kSize * kSize), got(kSize * kSize * kBatch);
  const CpuKernel kernel = cpuOps().kernels[static_cast<int>(Op::matmul)];
  arguments.batch = 1;
  arguments.y = want.data();
  CpuContext alone{one, "matmul", {}};
  kernel(&arguments, alone);
  arguments.batch = kBatch;
  arguments.y = got.data();
  for (int round = 0; round < 10; ++round) {
    CpuContext together{many, "matmul", {}};
    kernel(&arguments, together);
    int wrong = 0;
    for (size_t i = 0; i < kBatch; ++i)
      wrong += std::memcmp(&got[i * want.size()], want.data(), want.size() * sizeof(float)) != 0;
    CHECK(wrong == 0);
  }
}

// The package's own product is compiled into every build's tests, with a BLAS or without.
TEST_CASE("gemm: the package's own product") {
  for (const Size& s : {Size{1, 1, 1}, Size{3, 5, 17}, Size{64, 65, 63}, Size{250, 31, 300},
                        Size{17, 2100, 40}, Size{130, 70, 600}})
    for (const bool transA : {false, true})
      for (const bool transB : {false, true})
        for (const float beta : {0.0f, 1.0f, -0.5f}) {
          CAPTURE(s.m);
          CAPTURE(transA);
          CAPTURE(transB);
          CAPTURE(beta);
          // Rows lie further apart than they are long.
          const int64_t lda = (transA ? s.m : s.k) + 3;
          const int64_t ldb = (transB ? s.k : s.n) + 1;
          const int64_t ldc = s.n + 2;
          const std::vector<float> a = someFloats(lda * (transA ? s.k : s.m), 81);
          const std::vector<float> b = someFloats(ldb * (transB ? s.n : s.k), 82);
          std::vector<float> before = someFloats(ldc * s.m, 83);
          if (beta == 0) std::fill(before.begin(), before.end(), kNan);
          Guarded<float> c(before);
          CHECK(DIDR_LEVEL::gemm(transA, transB, s.m, s.n, s.k, 0.5f, a.data(), lda, b.data(), ldb,
                                 beta, c.data(), ldc));
          int64_t wrong = 0;
          for (int64_t i = 0; i < s.m; ++i)
            for (int64_t j = 0; j < ldc; ++j) {
              const auto at = static_cast<size_t>(i * ldc + j);
              const float got = c.data()[at];
              if (j >= s.n) {
                wrong += std::memcmp(&got, &before[at], sizeof got) != 0;
                continue;
              }
              double sum = 0;
              for (int64_t p = 0; p < s.k; ++p)
                sum += static_cast<double>(
                           a[static_cast<size_t>(transA ? p * lda + i : i * lda + p)]) *
                       b[static_cast<size_t>(transB ? j * ldb + p : p * ldb + j)];
              const double want =
                  0.5 * sum + (beta == 0 ? 0 : beta * static_cast<double>(before[at]));
              wrong += !(std::fabs(got - want) <=
                         0x1p-24 * (4 + 2 * std::sqrt(static_cast<double>(s.k))) *
                             (static_cast<double>(s.k) + 1));
            }
          CHECK(wrong == 0);
        }
}

}  // namespace
}  // namespace didr::test
