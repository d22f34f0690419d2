#include "native/ops/optim/ema.h"

#include <cmath>

#include "test/native/optim/lists.h"

namespace didr::test {
namespace {

template <class T>
void checkUpdates(double decay, int updates, int64_t shift) {
  CAPTURE(decay);
  const size_t tensors = kListSizes.size();
  const auto valueOf = [&](size_t i, int update) {
    return someValues<T>(kListSizes[i],
                         static_cast<uint32_t>(100 * update) + static_cast<uint32_t>(i));
  };
  atEveryLevel([&](const auto& launch) {
    GuardedList<float> averages;
    std::vector<std::vector<double>> exact(tensors);
    std::vector<EmaRow> rows;
    for (size_t i = 0; i < tensors; ++i) {
      std::vector<float> start;
      for (const T& value : valueOf(i, 0)) start.push_back(toFloat(value));
      exact[i].assign(start.begin(), start.end());
      rows.push_back(
          {averages.add(start, shift).data(), nullptr, kListSizes[i], 0, DTypeOf<T>::value});
    }
    const int64_t blocks = numberBlocks(rows);
    for (int update = 1; update <= updates; ++update) {
      GuardedList<T> values;
      for (size_t i = 0; i < tensors; ++i) {
        const auto now = valueOf(i, update);
        rows[i].value = values.add(now, shift).data();
        for (size_t j = 0; j < now.size(); ++j)
          exact[i][j] = decay * exact[i][j] + (1 - decay) * toFloat(now[j]);
      }
      launch(Op::ema, EmaArgs{rows.data(), static_cast<int64_t>(tensors), blocks, decay});
    }
    int64_t wrong = 0;
    for (size_t i = 0; i < tensors; ++i)
      for (size_t j = 0; j < exact[i].size(); ++j)
        wrong += !(std::fabs(averages[i].data()[j] - exact[i][j]) <= updates * 2.5 * 0x1p-23);
    CHECK(wrong == 0);
    Bytes bytes;
    bytes.add(averages.all());
    return bytes;
  });
}

TEST_CASE_TEMPLATE("ema follows the definition in float64", T, float, BFloat16) {
  checkUpdates<T>(0.999, 10, 0);
  checkUpdates<T>(0.5, 3, 1);
  checkUpdates<T>(1, 2, 0);
}

TEST_CASE("ema of decay 0 is the value, of decay 1 the start") {
  Guarded<float> average(std::vector<float>{1.0f, -2.0f, 0.5f}),
      value(std::vector<float>{4.0f, 8.0f, -0.25f});
  std::vector<EmaRow> rows = {{average.data(), value.data(), 3, 0, DType::kFloat32}};
  ThreadPool pool(1);
  CpuContext context{pool, "ema", {}};
  EmaArgs arguments{rows.data(), 1, numberBlocks(rows), 1.0};
  cpuOps().kernels[static_cast<int>(Op::ema)](&arguments, context);
  CHECK(average.values() == std::vector<float>{1.0f, -2.0f, 0.5f});
  arguments.decay = 0.0;
  cpuOps().kernels[static_cast<int>(Op::ema)](&arguments, context);
  CHECK(average.values() == std::vector<float>{4.0f, 8.0f, -0.25f});
}

}  // namespace
}  // namespace didr::test
