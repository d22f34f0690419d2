#include "native/ops/optim/gradient_norm.h"

#include <cmath>
#include <limits>

#include "test/native/optim/lists.h"

namespace didr::test {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

struct Norm {
  float norm;
  float clip;
  Status failure;
};

// One run on two threads at the best level; the gradients' dtypes alternate.
Norm normOf(const std::vector<std::vector<float>>& gradients, double maxNorm) {
  GuardedList<float> floats;
  std::vector<GradientRow> rows;
  for (const auto& gradient : gradients)
    rows.push_back(
        {floats.add(gradient).data(), static_cast<int64_t>(gradient.size()), 0, DType::kFloat32});
  const int64_t blocks = numberBlocks(rows);
  Guarded<double> partials(blocks);
  Guarded<float> norm(1), clip(1);
  ThreadPool pool(2);
  CpuContext context{pool, "gradientNorm", {}};
  const GradientNormArgs arguments{rows.data(), static_cast<int64_t>(rows.size()),
                                   blocks,      partials.data(),
                                   norm.data(), clip.data(),
                                   maxNorm};
  cpuOps().kernels[static_cast<int>(Op::gradientNorm)](&arguments, context);
  return {*norm.data(), *clip.data(), context.failure};
}

TEST_CASE_TEMPLATE("gradientNorm is the root of the sum of squares over all tensors", T, float,
                   BFloat16) {
  for (const int64_t shift : {0, 1}) {
    GuardedList<T> gradients;
    long double sum = 0;
    std::vector<GradientRow> rows;
    for (size_t i = 0; i < kListSizes.size(); ++i) {
      const auto values = someValues<T>(kListSizes[i], static_cast<uint32_t>(i + 1), 3.0f);
      for (const T& value : values)
        sum += static_cast<long double>(toFloat(value)) * toFloat(value);
      rows.push_back({gradients.add(values, shift).data(), kListSizes[i], 0, DTypeOf<T>::value});
    }
    const int64_t blocks = numberBlocks(rows);
    const auto exact = static_cast<double>(std::sqrt(sum));
    for (const double maxNorm : {kNoLimit, 1.0, 1e6}) {
      atEveryLevel([&](const auto& launch) {
        Guarded<double> partials(blocks);
        Guarded<float> norm(1), clip(1);
        launch(Op::gradientNorm,
               GradientNormArgs{rows.data(), static_cast<int64_t>(rows.size()), blocks,
                                partials.data(), norm.data(), clip.data(), maxNorm});
        CHECK(std::fabs(*norm.data() - exact) <= 0x1.001p-24 * exact);
        const double expected = std::min(1.0, maxNorm / (exact + 1e-6));
        CHECK(std::fabs(*clip.data() - expected) <= 0x1.8p-23 * expected);
        Bytes bytes;
        bytes.add(norm.values());
        bytes.add(clip.values());
        bytes.add(partials.values());
        return bytes;
      });
    }
  }
}

TEST_CASE("gradientNorm keeps what float32 squares would lose") {
  CHECK(normOf({{1e-30f, 1e-30f}, {1e-30f, 1e-30f}}, kNoLimit).norm == doctest::Approx(2e-30));
  CHECK(normOf({{3e30f}, {4e30f}}, kNoLimit).norm == doctest::Approx(5e30));
  CHECK(normOf({{0x1p-149f}}, kNoLimit).norm == 0x1p-149f);
  // 2^24 ones after a large one: a float32 sum would stay where it is.
  std::vector<float> many(1 << 16, 1.0f);
  many[0] = 4096.0f;
  CHECK(normOf({many}, kNoLimit).norm == static_cast<float>(std::sqrt(4096.0 * 4096.0 + 65535.0)));
}

TEST_CASE("gradientNorm of nothing is zero and clips nothing") {
  for (const std::vector<std::vector<float>>& none :
       {std::vector<std::vector<float>>{}, {{}}, {{0.0f, -0.0f}}}) {
    const Norm result = normOf(none, 1.0);
    CHECK(result.norm == 0.0f);
    CHECK(result.clip == 1.0f);
    CHECK(result.failure.ok());
  }
}

TEST_CASE("gradientNorm refuses NaN and infinity, wherever they are, and says where") {
  for (const float hostile : {NAN, INFINITY, -INFINITY})
    for (const size_t at : {size_t{0}, size_t{8191}, size_t{8192}, size_t{20000}}) {
      CAPTURE(hostile);
      CAPTURE(at);
      std::vector<float> gradient = someFloats(20001, 5);
      gradient[at] = hostile;
      const Norm result = normOf({{1.0f}, {}, gradient, {2.0f}}, 1.0);
      CHECK(std::isnan(result.clip));
      CHECK(!std::isfinite(result.norm));
      CHECK(result.failure.code() == Code::kNonfinite);
      CHECK(result.failure.message() ==
            "gradient 2 of 4 has 1 NaN or infinite values; nothing was changed");
    }
}

TEST_CASE("gradientNorm refuses finite gradients whose norm is past float32") {
  const Norm result = normOf({{3e38f, 3e38f}}, 1.0);
  CHECK(std::isnan(result.clip));
  CHECK(result.failure.code() == Code::kNonfinite);
  CHECK(result.failure.message() ==
        "the gradients are finite but their norm is past the range of float32");
}

}  // namespace
}  // namespace didr::test
