// Cross entropy and mean square error against float64.
#include <limits>

#include "test/native/nn/gradients.h"

namespace didr::test {
namespace {

struct Logits {
  int64_t rows, classes;
};
constexpr Logits kLogits[] = {{1, 1}, {1, 5}, {3, 17}, {64, 65}, {1500, 10}, {2, 4099}};

TEST_CASE_TEMPLATE("crossEntropy and its gradient", T, float, BFloat16) {
  for (const Logits& shape : kLogits) {
    CAPTURE(shape.rows);
    CAPTURE(shape.classes);
    const auto classes = static_cast<size_t>(shape.classes);
    // Far from zero, where exponentials overflow unless the largest is taken out.
    std::vector<T> x = someValues<T>(shape.rows * shape.classes, 1, 4.0f);
    for (size_t i = 0; i < classes; ++i) x[i] = storeAs(T{}, toFloat(x[i]) + 200.0f);
    std::vector<int32_t> targets;
    for (int64_t row = 0; row < shape.rows; ++row)
      targets.push_back(static_cast<int32_t>(row * 7 % shape.classes));
    Values gradient = widen(x);
    double loss = 0;
    for (size_t row = 0; row < targets.size(); ++row) {
      double* logits = gradient.data() + row * classes;
      const double most = *std::max_element(logits, logits + classes);
      double sum = 0;
      for (size_t c = 0; c < classes; ++c) sum += std::exp(logits[c] - most);
      const auto target = static_cast<size_t>(targets[row]);
      loss += std::log(sum) + most - logits[target];
      for (size_t c = 0; c < classes; ++c)
        logits[c] = (std::exp(logits[c] - most) / sum - (c == target ? 1 : 0)) /
                    static_cast<double>(shape.rows);
    }
    loss /= static_cast<double>(shape.rows);
    atEveryLevel([&](const auto& launch) {
      Guarded<T> gx(x), dx(shape.rows * shape.classes);
      Guarded<int32_t> gtargets(targets);
      Guarded<float> value(1);
      launch(Op::crossEntropy,
             CrossEntropyArgs{gx.data(), gtargets.data(), value.data(), dx.data(), nullptr, nullptr,
                              shape.rows, shape.classes, DTypeOf<T>::value});
      checkClose(value.values(), {loss}, 3e-6);
      Values scaled = gradient;
      std::vector<T> actual = dx.values();
      // Compared per row's own scale: 1 / rows would hide below the comparison's floor.
      std::vector<float> wide;
      for (size_t i = 0; i < scaled.size(); ++i) {
        scaled[i] *= static_cast<double>(shape.rows);
        wide.push_back(toFloat(actual[i]) * static_cast<float>(shape.rows));
      }
      checkClose(wide, scaled, toleranceOf<T>(3e-6));
      // In place.
      launch(Op::crossEntropy,
             CrossEntropyArgs{gx.data(), gtargets.data(), value.data(), gx.data(), nullptr, nullptr,
                              shape.rows, shape.classes, DTypeOf<T>::value});
      Bytes bytes, inPlace;
      bytes.add(dx.values());
      inPlace.add(gx.values());
      CHECK(bytes == inPlace);
      bytes.add(value.values());
      return bytes;
    });
  }
}

TEST_CASE("crossEntropy refuses targets outside the classes") {
  for (const int32_t bad : {-1, 3, INT32_MAX}) {
    Guarded<float> x(someFloats(6, 1)), dx(6), loss(1);
    Guarded<int32_t> targets(std::vector<int32_t>{0, bad});
    checkRefused(Op::crossEntropy,
                 CrossEntropyArgs{x.data(), targets.data(), loss.data(), dx.data(), nullptr,
                                  nullptr, 2, 3, DType::kFloat32},
                 Code::kRange);
  }
}

TEST_CASE_TEMPLATE("mse and its gradient", T, float, BFloat16) {
  for (const int64_t count : {1, 3, 5, 17, 63, 64, 65, 4097, 1000003}) {
    CAPTURE(count);
    const std::vector<T> x = someValues<T>(count, 1);
    const std::vector<T> y = someValues<T>(count, 2);
    Values gradient;
    double loss = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double d = static_cast<double>(toFloat(x[i])) - static_cast<double>(toFloat(y[i]));
      loss += d * d;
      gradient.push_back(2 * d / static_cast<double>(count));
    }
    atEveryLevel([&](const auto& launch) {
      Guarded<T> gx(x), gy(y), dx(count);
      Guarded<float> value(1);
      launch(Op::mse, MseArgs{gx.data(), gy.data(), value.data(), dx.data(), nullptr, count,
                              DTypeOf<T>::value});
      checkClose(value.values(), {loss / static_cast<double>(count)}, 1e-6);
      int64_t wrong = 0;
      const std::vector<T> actual = dx.values();
      for (size_t i = 0; i < actual.size(); ++i)
        wrong +=
            !(std::fabs(static_cast<double>(toFloat(actual[i])) - gradient[i]) <=
              toleranceOf<T>(1e-6) * (std::fabs(gradient[i]) + 1.0 / static_cast<double>(count)));
      CHECK(wrong == 0);
      Bytes bytes;
      bytes.add(value.values());
      bytes.add(actual);
      return bytes;
    });
  }
}

TEST_CASE("losses of nothing are NaN, as is the loss of a NaN") {
  atEveryLevel([&](const auto& launch) {
    Guarded<float> none(0), one(std::vector<float>{std::nanf("")}), zero(std::vector<float>{0}),
        dx(1), loss(1);
    Guarded<int32_t> target(std::vector<int32_t>{0});
    launch(Op::mse, MseArgs{none.data(), none.data(), loss.data(), none.data(), nullptr, 0,
                            DType::kFloat32});
    CHECK(std::isnan(loss.data()[0]));
    launch(Op::mse,
           MseArgs{one.data(), zero.data(), loss.data(), dx.data(), nullptr, 1, DType::kFloat32});
    CHECK(std::isnan(loss.data()[0]));
    launch(Op::crossEntropy, CrossEntropyArgs{none.data(), target.data(), loss.data(), none.data(),
                                              nullptr, nullptr, 0, 3, DType::kFloat32});
    CHECK(std::isnan(loss.data()[0]));
    launch(Op::crossEntropy, CrossEntropyArgs{one.data(), target.data(), loss.data(), dx.data(),
                                              nullptr, nullptr, 1, 1, DType::kFloat32});
    CHECK(std::isnan(loss.data()[0]));
    return Bytes();
  });
}

}  // namespace
}  // namespace didr::test
