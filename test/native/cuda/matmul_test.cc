// The products of both devices against float64, and the module's against the CPU's. A sum of k terms in any order is within
// (4 + 2 sqrt k) roundings of the sum of magnitudes; results in bfloat16 are rounded once more.
#include "native/ops/matmul/matmul.h"

#include "test/native/cuda/both_devices.h"
#include "test/native/elementwise/reference.h"

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
  int64_t offset = 0;  // of a, in elements: what its rows are not aligned by
};

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
  const std::vector<T> a = someValues<T>(s.m * s.k * (o.sharedA ? 1 : o.batch) + o.offset, 51);
  const std::vector<T> b = someValues<T>(s.k * s.n * (o.sharedB ? 1 : o.batch), 52);
  const std::vector<T> bias = someValues<T>(s.n, 53);
  const std::vector<T> before = someValues<T>(s.m * s.n * o.batch, 54);

  // Without beta y must not be read: it starts as NaN.
  const Array<T> left(a), right(b), added(bias), fresh(s.m * s.n * o.batch), updated(before);
  const Array<T>& y = o.beta == 0 ? fresh : updated;
  runEverywhere(Op::matmul, [&](Side side) {
    return MatmulArgs{left.at(side) + o.offset,
                      right.at(side),
                      o.bias ? added.at(side) : nullptr,
                      y.at(side),
                      s.m,
                      s.n,
                      s.k,
                      o.batch,
                      aStride,
                      bStride,
                      o.transA,
                      o.transB,
                      o.activation,
                      DTypeOf<T>::value,
                      o.alpha,
                      o.beta};
  });

  const std::vector<T> cpu = y.cpu(), cuda = y.cuda();
  const double rounding = sizeof(T) == 4 ? 0 : kRounding<T>;
  const double tolerance = 0x1p-24 * (4 + 2 * std::sqrt(static_cast<double>(s.k)));
  requireEach(before.size(), [&](size_t at) {
    const auto column = static_cast<int64_t>(at) % s.n;
    const int64_t row = static_cast<int64_t>(at) / s.n % s.m;
    const int64_t batch = static_cast<int64_t>(at) / s.n / s.m;
    const T* const fromA = a.data() + o.offset + batch * aStride;
    const T* const fromB = b.data() + batch * bStride;
    double sum = 0, magnitude = 0;
    for (int64_t p = 0; p < s.k; ++p) {
      const double term =
          static_cast<double>(toFloat(fromA[o.transA ? p * s.m + row : row * s.k + p])) *
          toFloat(fromB[o.transB ? column * s.k + p : p * s.n + column]);
      sum += term;
      magnitude += std::fabs(term);
    }
    double x = o.alpha * sum;
    if (o.beta != 0) x += o.beta * toFloat(before[at]);
    if (o.bias) x += toFloat(bias[static_cast<size_t>(column)]);
    const double want = activationOf(o.activation, x);
    const double bound = tolerance * (std::fabs(o.alpha) * magnitude + std::fabs(x) + 1) +
                         rounding * std::fabs(want);
    return std::fabs(toFloat(cuda[at]) - want) <= bound &&
           std::fabs(static_cast<double>(toFloat(cuda[at])) - toFloat(cpu[at])) <= 2 * bound;
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

// The harness has two multiprocessors: two tiles of a size, filled to more than the half, are enough for that size.
TEST_CASE_TEMPLATE("matmul: transposes at every tile's edges", T, float, BFloat16) {
  for (const Size& s : {Size{1, 1, 1}, Size{3, 5, 17}, Size{31, 33, 32}, Size{32, 32, 129},
                        Size{64, 8, 33}, Size{65, 63, 40}, Size{40, 72, 31}, Size{1, 300, 65},
                        Size{5, 1, 300}, Size{130, 70, 24}, Size{120, 136, 16}})
    checkTransposes<T>(s, {});
  if (!kRaceDetection) checkTransposes<T>({257, 129, 72}, {});
}

TEST_CASE_TEMPLATE("matmul: nothing to sum, nothing to write", T, float, BFloat16) {
  for (const Size& s : {Size{3, 5, 0}, Size{0, 5, 3}, Size{3, 0, 4}, Size{100, 100, 0}}) {
    checkProduct<T>(s, {});
    checkProduct<T>(s, {.bias = true, .activation = Activation::kTanh});
    checkProduct<T>(s, {.beta = 0.5f});
  }
  checkProduct<T>({3, 5, 4}, {.batch = 0});
}

TEST_CASE_TEMPLATE("matmul: bias and every activation", T, float, BFloat16) {
  for (const Size& s : {Size{7, 19, 11}, Size{66, 64, 9}, Size{130, 8, 5}})
    for (int kind = 0; kind <= static_cast<int>(kLastActivation); ++kind)
      for (const bool bias : {false, true})
        checkProduct<T>(s, {.bias = bias, .activation = static_cast<Activation>(kind)});
}

TEST_CASE_TEMPLATE("matmul: alpha and beta", T, float, BFloat16) {
  for (const Size& s : {Size{7, 19, 11}, Size{70, 72, 20}})
    for (const float beta : {1.0f, -0.5f}) {
      checkProduct<T>(s, {.alpha = 0.25f, .beta = beta});
      checkProduct<T>(s,
                      {.bias = true, .activation = Activation::kRelu, .alpha = -2, .beta = beta});
    }
}

TEST_CASE_TEMPLATE("matmul: batches, with either operand shared", T, float, BFloat16) {
  for (const Size& s : {Size{5, 7, 9}, Size{40, 48, 16}})
    for (const int shared : {0, 1, 2})
      checkTransposes<T>(
          s, {.batch = 3, .sharedA = shared == 1, .sharedB = shared == 2, .bias = true});
  // Batches of an odd number of elements are not aligned.
  checkProduct<T>({3, 9, 5}, {.batch = 40});
}

TEST_CASE("matmul: bands of tiles, the last one lower, in every batch") {
  checkProduct<float>({1100, 130, 3}, {.batch = 2});
  checkProduct<float>({300, 30, 5}, {.batch = 3});
}

TEST_CASE_TEMPLATE("matmul: operands that begin anywhere", T, float, BFloat16) {
  for (const int64_t offset : {1, 3, 8}) checkTransposes<T>({48, 40, 64}, {.offset = offset});
}

TEST_CASE_TEMPLATE("matmul: NaN and infinity reach what they multiply, and only that", T, float,
                   BFloat16) {
  for (const int64_t size : {9, 66, 130}) {
    if (kRaceDetection && size > 100) continue;
    std::vector<T> values = someValues<T>(size * size, 61);
    values[static_cast<size_t>(3 * size + 4)] = storeAs(T{}, NAN);
    values[static_cast<size_t>(5 * size + 8)] = storeAs(T{}, INFINITY);
    const Array<T> a(values), b(someValues<T>(size * size, 62)), y(size * size);
    runEverywhere(Op::matmul, [&](Side side) {
      MatmulArgs arguments{};
      arguments.a = a.at(side);
      arguments.b = b.at(side);
      arguments.y = y.at(side);
      arguments.m = arguments.n = arguments.k = size;
      arguments.batch = 1;
      arguments.dtype = DTypeOf<T>::value;
      arguments.alpha = 1;
      return arguments;
    });
    const std::vector<T> cuda = y.cuda();
    requireEach(cuda.size(), [&](size_t i) {
      const auto row = static_cast<int64_t>(i) / size;
      const float x = toFloat(cuda[i]);
      return row == 3 ? std::isnan(x) : row == 5 ? !std::isfinite(x) : std::isfinite(x);
    });
  }
}

}  // namespace
}  // namespace didr::test
