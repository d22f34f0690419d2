// The multi-tensor ops: adamw and ema have the CPU's bits, gradientNorm is near float64.
#include <array>
#include <deque>

#include "native/core/report_nonfinite.h"
#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

// Empty tensors first, last and in between; both sides of vectors and blocks; a tensor of many
// blocks.
const std::vector<int64_t> kSizes = {0,          1,
                                     3,          0,
                                     4,          5,
                                     17,         64,
                                     65,         kListBlock - 1,
                                     kListBlock, kListBlock + 1,
                                     0,          kRaceDetection ? 9001 : 50003,
                                     2,          0};

// One array per tensor of the list.
template <class T>
class List {
 public:
  void add(std::vector<T> values) { arrays_.emplace_back(std::move(values)); }
  T* at(size_t i, Side side) const { return arrays_[i].at(side); }
  void requireSameBitsOnBoth() const {
    for (size_t i = 0; i < arrays_.size(); ++i) {
      CAPTURE(i);
      REQUIRE(sameBits(arrays_[i].cuda(), arrays_[i].cpu()));
    }
  }

 private:
  std::deque<Array<T>> arrays_;
};

// A table whose rows hold each side's own pointers.
template <class Row>
class Table {
 public:
  template <class RowOf>
  Table(const std::vector<int64_t>& sizes, const RowOf& rowOf) {
    for (const Side side : kSides) {
      std::vector<Row> rows;
      blocks_ = 0;
      for (size_t i = 0; i < sizes.size(); ++i) {
        Row row = rowOf(i, side);
        row.count = sizes[i];
        row.firstBlock = blocks_;
        blocks_ += listBlocks(sizes[i]);
        rows.push_back(row);
      }
      tables_.emplace_back(std::move(rows));
    }
  }
  const Row* at(Side side) const { return tables_[static_cast<size_t>(side)].at(side); }
  int64_t blocks() const { return blocks_; }

 private:
  std::deque<Array<Row>> tables_;
  int64_t blocks_ = 0;
};

template <class T>
std::vector<T> scaledValues(int64_t count, uint32_t seed, float scale) {
  std::vector<T> values;
  for (const float x : someValues<float>(count, seed)) values.push_back(storeAs(T{}, x * scale));
  return values;
}

// --- adamw --------------------------------------------------------------------------------------

// Settings differ by row, so that a row that took its neighbour's would show.
struct Settings {
  double learningRate, beta1, beta2, eps, weightDecay;
};
constexpr Settings kSettings[] = {
    {1e-3, 0.9, 0.999, 1e-8, 0.01}, {0.1, 0.0, 0.99, 1e-6, 0.0}, {3e-2, 0.5, 0.9, 1e-3, 0.5}};

// bfloat16 parameters have a master copy.
template <class P, class G>
void checkAdamw(float clipFactor) {
  CAPTURE(clipFactor);
  List<P> parameters;
  List<G> gradients;
  List<float> firstMoments, secondMoments, masters;
  List<int32_t> steps;
  constexpr bool kMaster = sizeof(P) < sizeof(float);
  for (size_t i = 0; i < kSizes.size(); ++i) {
    const auto seed = static_cast<uint32_t>(10 * i);
    const std::vector<P> values = scaledValues<P>(kSizes[i], seed, 1.0f);
    std::vector<float> wide;
    for (const P value : values) wide.push_back(toFloat(value) * 1.001f);
    parameters.add(values);
    masters.add(kMaster ? wide : std::vector<float>());
    gradients.add(scaledValues<G>(kSizes[i], seed + 1, 0.3f));
    firstMoments.add(std::vector<float>(static_cast<size_t>(kSizes[i]), 0.0f));
    secondMoments.add(std::vector<float>(static_cast<size_t>(kSizes[i]), 0.0f));
    steps.add({static_cast<int32_t>(i % 4 == 3 ? 100000 : i)});
  }
  const Table<AdamwRow> rows(kSizes, [&](size_t i, Side side) {
    const Settings& s = kSettings[i % 3];
    return AdamwRow{parameters.at(i, side),
                    gradients.at(i, side),
                    firstMoments.at(i, side),
                    secondMoments.at(i, side),
                    kMaster ? masters.at(i, side) : nullptr,
                    steps.at(i, side),
                    0,
                    0,
                    s.learningRate,
                    s.beta1,
                    s.beta2,
                    s.eps,
                    s.weightDecay,
                    DTypeOf<P>::value,
                    DTypeOf<G>::value};
  });
  const Array<float> clip(std::vector<float>{clipFactor});
  for (int step = 0; step < 3; ++step)
    runEverywhere(Op::adamw, [&](Side side) {
      return AdamwArgs{rows.at(side), static_cast<int64_t>(kSizes.size()), rows.blocks(),
                       clip.at(side)};
    });
  parameters.requireSameBitsOnBoth();
  gradients.requireSameBitsOnBoth();
  firstMoments.requireSameBitsOnBoth();
  secondMoments.requireSameBitsOnBoth();
  masters.requireSameBitsOnBoth();
  steps.requireSameBitsOnBoth();
}

TEST_CASE("adamw: the CPU's bits in every pair of dtypes") {
  for (const float clip : {1.0f, 0.25f}) {
    checkAdamw<float, float>(clip);
    checkAdamw<float, BFloat16>(clip);
    checkAdamw<BFloat16, float>(clip);
    checkAdamw<BFloat16, BFloat16>(clip);
  }
}

TEST_CASE("adamw: one step against the definition in float64; a NaN factor changes nothing") {
  constexpr int64_t kCount = 1003;
  const std::vector<float> before = scaledValues<float>(kCount, 1, 1.0f);
  const std::vector<float> gradient = scaledValues<float>(kCount, 2, 0.3f);
  const std::vector<float> m = scaledValues<float>(kCount, 3, 0.1f);
  std::vector<float> v = scaledValues<float>(kCount, 4, 0.1f);
  for (float& x : v) x *= x;
  const Array<float> p(before), g(gradient), first(m), second(v);
  const Array<int32_t> step(std::vector<int32_t>{6});
  const Settings& s = kSettings[0];
  const Table<AdamwRow> rows({kCount}, [&](size_t, Side side) {
    return AdamwRow{p.at(side),
                    g.at(side),
                    first.at(side),
                    second.at(side),
                    nullptr,
                    step.at(side),
                    0,
                    0,
                    s.learningRate,
                    s.beta1,
                    s.beta2,
                    s.eps,
                    s.weightDecay,
                    DType::kFloat32,
                    DType::kFloat32};
  });
  const auto run = [&](float factor) {
    const Array<float> clip(std::vector<float>{factor});
    runEverywhere(Op::adamw, [&](Side side) {
      return AdamwArgs{rows.at(side), 1, rows.blocks(), clip.at(side)};
    });
  };
  run(NAN);
  REQUIRE(sameBits(p.cuda(), before));
  REQUIRE(sameBits(first.cuda(), m));
  REQUIRE(sameBits(second.cuda(), v));
  REQUIRE(step.cuda() == std::vector<int32_t>{6});
  run(0.5f);
  REQUIRE(step.cuda() == std::vector<int32_t>{7});
  const std::vector<float> after = p.cuda();
  requireEach(after.size(), [&](size_t i) {
    const double scaled = 0.5 * gradient[i];
    const double first7 = s.beta1 * m[i] + (1 - s.beta1) * scaled;
    const double second7 = s.beta2 * v[i] + (1 - s.beta2) * scaled * scaled;
    const double move = first7 / (1 - std::pow(s.beta1, 7)) /
                        (std::sqrt(second7 / (1 - std::pow(s.beta2, 7))) + s.eps);
    const double expected = before[i] - s.learningRate * (s.weightDecay * before[i] + move);
    return std::fabs(after[i] - expected) <=
           0x1p-24 * std::fabs(expected) + 0x1p-20 * s.learningRate * (1 + std::fabs(move));
  });
}

TEST_CASE("adamw: no tensors, and tensors without elements") {
  const Array<float> clip(std::vector<float>{1.0f});
  runEverywhere(Op::adamw, [&](Side side) { return AdamwArgs{nullptr, 0, 0, clip.at(side)}; });
  const Array<int32_t> step(std::vector<int32_t>{4});
  const Table<AdamwRow> rows({0}, [&](size_t, Side side) {
    return AdamwRow{nullptr, nullptr, nullptr, nullptr, nullptr,         step.at(side),  0, 0, 1e-3,
                    0.9,     0.999,   1e-8,    0.0,     DType::kFloat32, DType::kFloat32};
  });
  runEverywhere(Op::adamw, [&](Side side) {
    return AdamwArgs{rows.at(side), 1, 0, clip.at(side)};
  });
  REQUIRE(step.cuda() == step.cpu());
}

// --- ema ----------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("ema: the CPU's bits", T, float, BFloat16) {
  for (const double decay : {0.0, 0.9, 0.9999, 1.0}) {
    CAPTURE(decay);
    List<float> averages;
    List<T> values;
    for (size_t i = 0; i < kSizes.size(); ++i) {
      averages.add(scaledValues<float>(kSizes[i], static_cast<uint32_t>(i), 1.0f));
      values.add(scaledValues<T>(kSizes[i], static_cast<uint32_t>(i + 50), 1.0f));
    }
    const Table<EmaRow> rows(kSizes, [&](size_t i, Side side) {
      return EmaRow{averages.at(i, side), values.at(i, side), 0, 0, DTypeOf<T>::value};
    });
    runEverywhere(Op::ema, [&](Side side) {
      return EmaArgs{rows.at(side), static_cast<int64_t>(kSizes.size()), rows.blocks(), decay};
    });
    averages.requireSameBitsOnBoth();
    values.requireSameBitsOnBoth();
  }
}

// --- gradientNorm -------------------------------------------------------------------------------

struct Norm {
  float norm, clip;
  GradientFault fault;
};

// On the device; on the CPU as well unless the op is to fail there.
template <class T>
Norm normOf(const std::vector<std::vector<T>>& gradients, double maxNorm, bool fails = false) {
  List<T> list;
  std::vector<int64_t> sizes;
  for (const std::vector<T>& gradient : gradients) {
    list.add(gradient);
    sizes.push_back(static_cast<int64_t>(gradient.size()));
  }
  const Table<GradientRow> rows(sizes, [&](size_t i, Side side) {
    return GradientRow{list.at(i, side), 0, 0, DTypeOf<T>::value};
  });
  const Array<double> partials(rows.blocks());
  const Array<float> norm(int64_t{1}), clip(int64_t{1});
  const Array<GradientFault> fault(int64_t{1});
  for (const Side side : kSides) {
    if (fails && side == Side::kCpu) continue;
    const GradientNormArgs arguments = {rows.at(side), static_cast<int64_t>(sizes.size()),
                                        rows.blocks(), partials.at(side),
                                        norm.at(side), clip.at(side),
                                        maxNorm,       fault.at(side)};
    runOn(side, Op::gradientNorm, &arguments);
  }
  const Norm result = {norm.cuda()[0], clip.cuda()[0], fault.cuda()[0]};
  if (!fails) {
    // Both are the same float64 sum in another order.
    REQUIRE(std::fabs(result.norm - norm.cpu()[0]) <= 0x1p-23 * std::fabs(norm.cpu()[0]));
    REQUIRE(std::fabs(result.clip - clip.cpu()[0]) <= 0x1p-22 * std::fabs(clip.cpu()[0]));
  }
  return result;
}

template <class T>
std::vector<std::vector<T>> someGradients(float scale) {
  std::vector<std::vector<T>> gradients;
  for (size_t i = 0; i < kSizes.size(); ++i)
    gradients.push_back(scaledValues<T>(kSizes[i], static_cast<uint32_t>(i + 7), scale));
  return gradients;
}

TEST_CASE_TEMPLATE("gradientNorm: float64, clipped and not", T, float, BFloat16) {
  for (const float scale : {1e-20f, 1.0f, 1e18f}) {
    const std::vector<std::vector<T>> gradients = someGradients<T>(scale);
    double squares = 0;
    for (const std::vector<T>& gradient : gradients)
      for (const T x : gradient) squares += static_cast<double>(toFloat(x)) * toFloat(x);
    const double exact = std::sqrt(squares);
    for (const double maxNorm : {exact / 3, exact * 3, static_cast<double>(INFINITY)}) {
      CAPTURE(scale);
      CAPTURE(maxNorm);
      const Norm result = normOf<T>(gradients, maxNorm);
      REQUIRE(std::fabs(result.norm - exact) <= 0x1p-23 * exact);
      const double clip = std::fmin(1.0, maxNorm / (exact + 1e-6));
      REQUIRE(std::fabs(result.clip - clip) <= 0x1p-22 * clip);
      REQUIRE(result.fault.tensors == 0);
    }
  }
}

TEST_CASE("gradientNorm: of nothing") {
  for (const std::vector<std::vector<float>>& gradients :
       {std::vector<std::vector<float>>{}, {{}}, {{}, {}}, {{0.0f, -0.0f}}}) {
    const Norm result = normOf<float>(gradients, 1.0);
    REQUIRE(result.norm == 0.0f);
    REQUIRE(result.clip == 1.0f);
    REQUIRE(result.fault.tensors == 0);
  }
}

TEST_CASE_TEMPLATE("gradientNorm: the first tensor that is not finite, and how much of it", T,
                   float, BFloat16) {
  std::vector<std::vector<T>> gradients = someGradients<T>(1.0f);
  gradients[11][8191] = storeAs(T{}, NAN);
  gradients[11][8192] = storeAs(T{}, INFINITY);
  gradients[11][3] = storeAs(T{}, -INFINITY);
  gradients[13][0] = storeAs(T{}, NAN);
  const Norm result = normOf<T>(gradients, 1.0, true);
  REQUIRE(!std::isfinite(result.norm));
  REQUIRE(std::isnan(result.clip));
  REQUIRE(result.fault.tensors == static_cast<int64_t>(kSizes.size()));
  REQUIRE(result.fault.first == 11);
  REQUIRE(result.fault.count == 3);
  REQUIRE(gradientStatus(16, 11, 3).message() ==
          "gradientNorm: gradient 11 of 16 has 3 NaN or infinite values; nothing was changed");
}

TEST_CASE("gradientNorm: finite gradients with a norm past float32") {
  const Norm result = normOf<float>({{3e38f, 1.0f}, {-3e38f}}, 1.0, true);
  REQUIRE(result.norm == INFINITY);
  REQUIRE(std::isnan(result.clip));
  REQUIRE(result.fault.tensors == 2);
  REQUIRE(result.fault.first == -1);
  // A square alone is past float32, the norm is not.
  REQUIRE(normOf<float>({{3e38f}}, 1.0).norm == 3e38f);
}

}  // namespace
}  // namespace didr::test
