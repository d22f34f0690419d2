#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

double valueOf(Activation activation, double x) {
  constexpr double kPi = 3.14159265358979323846;
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return x > 0.0 ? x : 0.0;
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / kPi) * (x + 0.044715 * x * x * x)));
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kSigmoid:
      return 1.0 / (1.0 + std::exp(-x));
  }
  return x;
}

template <class T>
void checkActivationBackward(Activation activation, const std::vector<T>& x,
                             const std::vector<T>& dy, bool inPlace) {
  const auto count = static_cast<int64_t>(x.size());
  CAPTURE(static_cast<int>(activation));
  CAPTURE(count);
  const Array<T> ax(x), ady(dy), other(count);
  const Array<T>& dx = inPlace ? ady : other;
  runEverywhere(Op::activationBackward, [&](Side side) {
    return ActivationBackwardArgs{ax.at(side), ady.at(side), dx.at(side),
                                  count,       activation,   DTypeOf<T>::value};
  });
  const std::vector<T> cuda = dx.cuda(), cpu = dx.cpu();
  requireEach(cuda.size(), [&](size_t i) {
    const float p = toFloat(cuda[i]), q = toFloat(cpu[i]);
    if (std::isnan(p) && std::isnan(q)) return true;
    if (bitsOf(p) != bitsOf(q)) return false;
    const double at = toFloat(x[i]), gradient = toFloat(dy[i]);
    // No central difference where the step is lost, or at the corner of relu.
    if (!(std::fabs(at) < 100.0) || (activation == Activation::kRelu && at == 0.0)) return true;
    constexpr double kStep = 1e-5;
    const double slope =
        (valueOf(activation, at + kStep) - valueOf(activation, at - kStep)) / (2.0 * kStep);
    return std::fabs(p - gradient * slope) <= std::fabs(gradient) * (2e-6 + 1.2 * kRounding<T>);
  });
}

TEST_CASE_TEMPLATE("activationBackward: the CPU's bits and central differences", T, float,
                   BFloat16) {
  for (int kind = 0; kind <= static_cast<int>(kLastActivation); ++kind)
    for (const int64_t count : {0, 1, 3, 4, 7, 8, 9, 65, 2051}) {
      std::vector<T> x = someValues<T>(count, 1);
      for (T& value : x) value = storeAs(T{}, 4.0f * toFloat(value));
      checkActivationBackward<T>(static_cast<Activation>(kind), x, someValues<T>(count, 2),
                                 count % 2 == 1);
    }
}

TEST_CASE_TEMPLATE("activationBackward: zeros, far out and non-finite", T, float, BFloat16) {
  std::vector<T> x, dy;
  for (const float value :
       {0.0f, -0.0f, 12.0f, -12.0f, 90.0f, -90.0f, 1e30f, -1e30f, INFINITY, -INFINITY, NAN}) {
    x.push_back(storeAs(T{}, value));
    dy.push_back(storeAs(T{}, 1.0f));
  }
  for (int kind = 0; kind <= static_cast<int>(kLastActivation); ++kind) {
    const auto activation = static_cast<Activation>(kind);
    checkActivationBackward<T>(activation, x, dy, false);
    const Array<T> ax(x), ady(dy), dx(static_cast<int64_t>(x.size()));
    runEverywhere(Op::activationBackward, [&](Side side) {
      return ActivationBackwardArgs{ax.at(side), ady.at(side),
                                    dx.at(side), static_cast<int64_t>(x.size()),
                                    activation,  DTypeOf<T>::value};
    });
    const std::vector<T> cuda = dx.cuda();
    const bool bounded = activation == Activation::kTanh || activation == Activation::kSigmoid;
    REQUIRE(toFloat(cuda[8]) == (bounded ? 0.0f : 1.0f));
    REQUIRE(toFloat(cuda[9]) == (activation == Activation::kNone ? 1.0f : 0.0f));
    REQUIRE(std::isnan(toFloat(cuda[10])) == (activation != Activation::kNone));
  }
}

}  // namespace
}  // namespace didr::test
