#include "native/ops/optim/adamw.h"

#include <cmath>

#include "test/native/optim/lists.h"

namespace didr::test {
namespace {

struct Settings {
  double learningRate, beta1, beta2, eps, weightDecay;
};

// Settings differ by row, so that a row that took its neighbour's would show.
Settings settingsOf(size_t row) {
  constexpr Settings kChoices[] = {
      {1e-3, 0.9, 0.999, 1e-8, 0.01}, {0.1, 0, 0.99, 1e-6, 0}, {3e-2, 0.5, 0.9, 1e-3, 0.5}};
  return kChoices[row % 3];
}

// One element in float64, from the definition.
struct Element {
  double p, m = 0, v = 0;

  void step(const Settings& s, double gradient, int t) {
    m = s.beta1 * m + (1 - s.beta1) * gradient;
    v = s.beta2 * v + (1 - s.beta2) * gradient * gradient;
    const double mHat = m / (1 - std::pow(s.beta1, t));
    const double vHat = v / (1 - std::pow(s.beta2, t));
    p = p - s.learningRate * s.weightDecay * p - s.learningRate * mHat / (std::sqrt(vHat) + s.eps);
  }
};

template <class P, class G>
void checkSteps(int steps, float clip, int64_t shift) {
  const bool rounded = sizeof(P) < sizeof(float);
  const size_t tensors = kListSizes.size();
  std::vector<std::vector<Element>> exact(tensors);
  for (size_t i = 0; i < tensors; ++i)
    for (const P& value : someValues<P>(kListSizes[i], static_cast<uint32_t>(i + 1)))
      exact[i].push_back({toFloat(value)});
  const auto gradientOf = [&](size_t i, int step) {
    return someValues<G>(kListSizes[i],
                         static_cast<uint32_t>(1000 * step) + static_cast<uint32_t>(i), 0.5f);
  };
  for (int step = 1; step <= steps; ++step)
    for (size_t i = 0; i < tensors; ++i) {
      const auto gradient = gradientOf(i, step);
      for (size_t j = 0; j < gradient.size(); ++j)
        exact[i][j].step(settingsOf(i), static_cast<double>(clip) * toFloat(gradient[j]), step);
    }

  atEveryLevel([&](const auto& launch) {
    GuardedList<P> parameters;
    GuardedList<float> firstMoments, secondMoments, masters;
    GuardedList<int32_t> counts;
    Guarded<float> factor(std::vector<float>{clip});
    std::vector<AdamwRow> rows;
    for (size_t i = 0; i < tensors; ++i) {
      const auto size = static_cast<size_t>(kListSizes[i]);
      const auto values = someValues<P>(kListSizes[i], static_cast<uint32_t>(i + 1));
      const Settings s = settingsOf(i);
      std::vector<float> wide;
      for (const P& value : values) wide.push_back(toFloat(value));
      rows.push_back({parameters.add(values, shift).data(), nullptr,
                      firstMoments.add(std::vector<float>(size, 0.0f), shift).data(),
                      secondMoments.add(std::vector<float>(size, 0.0f), shift).data(),
                      rounded ? masters.add(wide, shift).data() : nullptr, counts.add({0}).data(),
                      kListSizes[i], 0, s.learningRate, s.beta1, s.beta2, s.eps, s.weightDecay,
                      DTypeOf<P>::value, DTypeOf<G>::value});
    }
    const int64_t blocks = numberBlocks(rows);
    for (int step = 1; step <= steps; ++step) {
      GuardedList<G> gradients;
      for (size_t i = 0; i < tensors; ++i)
        rows[i].gradient = gradients.add(gradientOf(i, step), shift).data();
      launch(Op::adamw,
             AdamwArgs{rows.data(), static_cast<int64_t>(tensors), blocks, factor.data()});
    }

    int64_t wrong = 0;
    for (size_t i = 0; i < tensors; ++i)
      for (size_t j = 0; j < exact[i].size(); ++j) {
        const double p = rounded ? masters[i].data()[j] : toFloat(parameters[i].data()[j]);
        // A step rounds the parameter once, and gets what it moves it by, about a learning rate, wrong by some units in
        // the last place.
        const double allowed = steps * (0x1p-24 * std::fmax(std::fabs(exact[i][j].p), 2.0) +
                                        0x1p-20 * settingsOf(i).learningRate);
        wrong += !(std::fabs(p - exact[i][j].p) <= allowed);
        wrong += !(std::fabs(firstMoments[i].data()[j] - exact[i][j].m) <= 1e-6);
        wrong += !(std::fabs(secondMoments[i].data()[j] - exact[i][j].v) <= 1e-6);
        if (rounded)
          wrong += toFloat(parameters[i].data()[j]) != toFloat(storeAs(P{}, masters[i].data()[j]));
      }
    CHECK(wrong == 0);
    CHECK(counts.all() == std::vector<int32_t>(tensors, steps));
    Bytes bytes;
    bytes.add(parameters.all());
    bytes.add(firstMoments.all());
    bytes.add(secondMoments.all());
    bytes.add(masters.all());
    return bytes;
  });
}

TEST_CASE("adamw follows the definition in float64 for a list of odd sizes") {
  checkSteps<float, float>(20, 1.0f, 0);
  checkSteps<float, float>(3, 0.125f, 1);
}

TEST_CASE("adamw keeps bfloat16 parameters in float32 and takes gradients of either dtype") {
  checkSteps<BFloat16, BFloat16>(20, 1.0f, 0);
  checkSteps<BFloat16, float>(3, 0.3f, 1);
  checkSteps<float, BFloat16>(3, 1.0f, 0);
}

TEST_CASE("adamw changes nothing where the clip factor is NaN") {
  const std::vector<float> values = someFloats(10000, 1);
  Guarded<float> parameter(values), gradient(std::vector<float>(10000, NAN)), first(values),
      second(values), clip(std::vector<float>{NAN});
  Guarded<int32_t> step(std::vector<int32_t>{4});
  std::vector<AdamwRow> rows = {{parameter.data(), gradient.data(), first.data(), second.data(),
                                 nullptr, step.data(), 10000, 0, 0.1, 0.9, 0.999, 1e-8, 0.1,
                                 DType::kFloat32, DType::kFloat32}};
  const int64_t blocks = numberBlocks(rows);
  atEveryLevel([&](const auto& launch) {
    launch(Op::adamw, AdamwArgs{rows.data(), 1, blocks, clip.data()});
    CHECK(parameter.values() == values);
    CHECK(first.values() == values);
    CHECK(second.values() == values);
    CHECK(*step.data() == 4);
    return Bytes();
  });
}

TEST_CASE("adamw counts the steps of each parameter apart, to high counts") {
  Guarded<float> parameters(std::vector<float>{1.0f, 1.0f, 1.0f}),
      gradients(std::vector<float>{0.5f, 0.5f, 0.5f}), clip(std::vector<float>{1.0f});
  const std::vector<int32_t> before = {0, 9, 1000000};
  for (int i = 0; i < 3; ++i) {
    CAPTURE(i);
    Guarded<float> first(std::vector<float>{0.2f}), second(std::vector<float>{0.1f});
    Guarded<int32_t> step(std::vector<int32_t>{before[static_cast<size_t>(i)]});
    std::vector<AdamwRow> rows = {{parameters.data() + i, gradients.data() + i, first.data(),
                                   second.data(), nullptr, step.data(), 1, 0, 0.1, 0.9, 0.999, 1e-8,
                                   0, DType::kFloat32, DType::kFloat32}};
    ThreadPool pool(1);
    CpuContext context{pool, "adamw", {}};
    const AdamwArgs arguments{rows.data(), 1, numberBlocks(rows), clip.data()};
    cpuOps().kernels[static_cast<int>(Op::adamw)](&arguments, context);
    Element exact{1.0, static_cast<double>(0.2f), static_cast<double>(0.1f)};
    exact.step({0.1, 0.9, 0.999, 1e-8, 0}, 0.5, before[static_cast<size_t>(i)] + 1);
    CHECK(parameters.data()[i] == doctest::Approx(exact.p).epsilon(1e-6));
    CHECK(*step.data() == before[static_cast<size_t>(i)] + 1);
  }
}

TEST_CASE("adamw moves a parameter without gradient by weight decay alone") {
  Guarded<float> parameter(std::vector<float>{2.0f}), gradient(std::vector<float>{0.0f}),
      first(std::vector<float>{0.0f}), second(std::vector<float>{0.0f}),
      clip(std::vector<float>{1.0f});
  Guarded<int32_t> step(std::vector<int32_t>{0});
  std::vector<AdamwRow> rows = {{parameter.data(), gradient.data(), first.data(), second.data(),
                                 nullptr, step.data(), 1, 0, 0.5, 0.9, 0.999, 1e-8, 0.5,
                                 DType::kFloat32, DType::kFloat32}};
  ThreadPool pool(1);
  CpuContext context{pool, "adamw", {}};
  const AdamwArgs arguments{rows.data(), 1, numberBlocks(rows), clip.data()};
  cpuOps().kernels[static_cast<int>(Op::adamw)](&arguments, context);
  CHECK(*parameter.data() == 1.5f);
}

}  // namespace
}  // namespace didr::test
