#include "native/ops/didr/perturb.h"

#include <cmath>

#include "native/ops/random/normal.h"
#include "test/native/didr/schedules.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

constexpr uint64_t kSeed = 0x9e3779b97f4a7c15ull;
constexpr uint64_t kOffset = 3;

float noiseElement(int64_t i) {
  return normalDraw(kSeed, kOffset, static_cast<uint64_t>(i / 4)).value[i % 4];
}

template <class T>
void checkPerturb(const Shape& shape, Schedule schedule, bool wantsNoise, int64_t shift) {
  CAPTURE(shape.batch);
  CAPTURE(shape.sampleSize);
  const int64_t count = shape.batch * shape.sampleSize;
  const std::vector<T> clean = someValues<T>(count, 1);
  const std::vector<float> coefficients = coefficientsOf(schedule, shape.batch);
  atEveryLevel([&](const auto& launch) {
    Guarded<T> x0(clean, shift), xt(count, shift), noise(wantsNoise ? count : 0, shift);
    Guarded<float> alphaSigma(coefficients);
    Guarded<int32_t> nonFinite(shape.batch);
    launch(Op::perturb, PerturbArgs{x0.data(), xt.data(), wantsNoise ? noise.data() : nullptr,
                                    alphaSigma.data(), nonFinite.data(), shape.batch,
                                    shape.sampleSize, kSeed, kOffset, DTypeOf<T>::value});
    int64_t wrong = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = i / shape.sampleSize;
      const float alpha = coefficients[static_cast<size_t>(2 * b)];
      const float sigma = coefficients[static_cast<size_t>(2 * b + 1)];
      const float eps = noiseElement(i);
      const float x = toFloat(clean[static_cast<size_t>(i)]);
      const float exact = std::fmaf(sigma, eps, alpha * x);
      wrong += toFloat(xt.data()[i]) != toFloat(storeAs(T{}, exact));
      if (wantsNoise) wrong += toFloat(noise.data()[i]) != toFloat(storeAs(T{}, eps));
      // And against float64: one rounding of the product and one of the sum.
      const double reference = static_cast<double>(alpha) * x + static_cast<double>(sigma) * eps;
      const double size =
          std::fabs(static_cast<double>(alpha) * x) + std::fabs(static_cast<double>(sigma) * eps);
      wrong += !(std::fabs(exact - reference) <= 0x1.01p-23 * size);
    }
    CHECK(wrong == 0);
    CHECK(nonFinite.values() == std::vector<int32_t>(static_cast<size_t>(shape.batch), 0));
    Bytes bytes;
    bytes.add(xt.values());
    bytes.add(noise.values());
    return bytes;
  });
}

TEST_CASE_TEMPLATE("perturb is one fused step of the normal draw", T, float, BFloat16) {
  for (const Schedule schedule : kSchedules)
    for (const Shape& shape : kShapes) checkPerturb<T>(shape, schedule, true, 0);
}

TEST_CASE_TEMPLATE("perturb without noise output, a million elements, unaligned", T, float,
                   BFloat16) {
  checkPerturb<T>({1, 1000003}, Schedule::kFlow, false, 0);
  checkPerturb<T>({3, 1003}, Schedule::kVp, true, 1);
}

TEST_CASE_TEMPLATE("perturb in place", T, float, BFloat16) {
  const std::vector<T> clean = someValues<T>(5000, 2);
  const std::vector<float> coefficients = coefficientsOf(Schedule::kFlow, 5);
  ThreadPool pool(2);
  CpuContext context{pool, "perturb", {}};
  Guarded<T> apart(clean), result(5000), inPlace(clean);
  Guarded<float> alphaSigma(coefficients);
  Guarded<int32_t> nonFinite(5);
  for (Guarded<T>* target : {&result, &inPlace}) {
    const PerturbArgs arguments{target == &inPlace ? inPlace.data() : apart.data(),
                                target->data(),
                                nullptr,
                                alphaSigma.data(),
                                nonFinite.data(),
                                5,
                                1000,
                                kSeed,
                                kOffset,
                                DTypeOf<T>::value};
    cpuOps().kernels[static_cast<int>(Op::perturb)](&arguments, context);
  }
  CHECK(std::memcmp(result.data(), inPlace.data(), 5000 * sizeof(T)) == 0);
}

TEST_CASE_TEMPLATE("perturb counts infinities and NaNs by sample", T, float, BFloat16) {
  for (const int64_t sampleSize : {1, 3, 64, 1000, 20000}) {
    CAPTURE(sampleSize);
    const int64_t batch = 6;
    std::vector<T> clean = someValues<T>(batch * sampleSize, 4);
    std::vector<int32_t> expected(static_cast<size_t>(batch));
    const auto spoil = [&](int64_t b, int64_t j, float value) {
      T& x = clean[static_cast<size_t>(b * sampleSize + j)];
      if (std::isfinite(toFloat(x))) ++expected[static_cast<size_t>(b)];
      x = storeAs(T{}, value);
    };
    spoil(1, 0, NAN);
    spoil(1, sampleSize - 1, INFINITY);
    spoil(3, sampleSize / 2, -INFINITY);
    spoil(3, sampleSize / 3, INFINITY);
    spoil(5, sampleSize - 1, NAN);
    clean[0] = storeAs(T{}, 3e38f);  // huge, subnormal: finite
    clean[static_cast<size_t>(sampleSize)] =
        sampleSize > 1 ? clean[static_cast<size_t>(sampleSize)] : clean[1];
    clean[static_cast<size_t>(4 * sampleSize)] = storeAs(T{}, 1e-41f);
    const std::vector<float> coefficients = coefficientsOf(Schedule::kFlow, batch);
    atEveryLevel([&](const auto& launch) {
      Guarded<T> x0(clean), xt(batch * sampleSize);
      Guarded<float> alphaSigma(coefficients);
      Guarded<int32_t> nonFinite(batch);
      launch(Op::perturb,
             PerturbArgs{x0.data(), xt.data(), nullptr, alphaSigma.data(), nonFinite.data(), batch,
                         sampleSize, kSeed, kOffset, DTypeOf<T>::value});
      CHECK(nonFinite.values() == expected);
      return Bytes();
    });
  }
}

}  // namespace
}  // namespace didr::test
