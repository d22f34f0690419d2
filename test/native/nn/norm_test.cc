// RMSNorm, LayerNorm and GroupNorm against float64 formulas; gradients against central differences
// of those.
#include "test/native/nn/gradients.h"

namespace didr::test {
namespace {

struct NormCase {
  int64_t samples, perSample, size;
};
constexpr NormCase kNormCases[] = {{0, 1, 5},   {1, 1, 1},    {2, 3, 17},  {3, 65, 5},
                                   {1, 77, 32}, {2, 130, 40}, {1, 3, 1025}};
constexpr double kEpsilon = 1e-5;

struct NormOperands {
  Values x, weight, bias, scale, shift;  // empty where absent, but x
};

Values normOf(NormKind kind, const NormCase& shape, const NormOperands& of) {
  const auto size = static_cast<size_t>(shape.size);
  const auto at = [](const Values& row, size_t i, double absent) {
    return row.empty() ? absent : row[i];
  };
  Values y = of.x;
  for (size_t row = 0; row * size < y.size(); ++row) {
    double mean = 0, square = 0;
    for (size_t i = 0; i < size; ++i) mean += y[row * size + i];
    mean = kind == NormKind::kLayer ? mean / static_cast<double>(size) : 0.0;
    for (size_t i = 0; i < size; ++i) square += std::pow(y[row * size + i] - mean, 2);
    const double rstd = 1 / std::sqrt(square / static_cast<double>(size) + kEpsilon);
    const size_t sample = row / static_cast<size_t>(shape.perSample) * size;
    for (size_t i = 0; i < size; ++i) {
      const double xhat = (y[row * size + i] - mean) * rstd;
      y[row * size + i] =
          (xhat * at(of.weight, i, 1) + at(of.bias, i, 0)) * (1 + at(of.scale, sample + i, 0)) +
          at(of.shift, sample + i, 0);
    }
  }
  return y;
}

// The size of the terms that cancel in dx where a row or group has few elements.
double termOf(Guarded<float>& rstd, const Values& dy) {
  return largest(widen(rstd.values())) * largest(dy);
}

template <class T>
void checkNorm(NormKind kind, const NormCase& shape, bool affine, bool modulated) {
  CAPTURE(shape.samples);
  CAPTURE(shape.perSample);
  CAPTURE(shape.size);
  CAPTURE(affine);
  CAPTURE(modulated);
  const bool layer = kind == NormKind::kLayer;
  const int64_t rows = shape.samples * shape.perSample;
  const int64_t count = rows * shape.size;
  const int64_t modulation = shape.samples * shape.size;
  const std::vector<T> x = someValues<T>(count, 1);
  const std::vector<T> dy = someValues<T>(count, 2);
  const std::vector<T> weight = someValues<T>(affine ? shape.size : 0, 3);
  const std::vector<T> bias = someValues<T>(affine && layer ? shape.size : 0, 4);
  const std::vector<T> scale = someValues<T>(modulated ? modulation : 0, 5);
  const std::vector<T> shift = someValues<T>(modulated && layer ? modulation : 0, 6);
  const NormOperands of{widen(x), widen(weight), widen(bias), widen(scale), widen(shift)};
  const Values expected = normOf(kind, shape, of);
  const Values cotangent = widen(dy);
  // An average over few elements amplifies rounding of the statistics.
  const double gradientTolerance = toleranceOf<T>(2e-5);
  const int64_t rowsPerSample = modulated ? shape.perSample : rows;
  bool checked = false;
  atEveryLevel([&](const auto& launch) {
    Guarded<T> gx(x), gdy(dy), gweight(weight), gbias(bias), gscale(scale), gshift(shift), y(count),
        dx(count);
    Guarded<float> mean(layer ? rows : 0), rstd(rows), dweight(static_cast<int64_t>(weight.size())),
        dbias(static_cast<int64_t>(bias.size())), dscale(static_cast<int64_t>(scale.size())),
        dshift(static_cast<int64_t>(shift.size())),
        partials(normPartials(rows, rowsPerSample, shape.size));
    const auto orNull = [](auto& array, bool present) { return present ? array.data() : nullptr; };
    NormArgs forward{};
    forward.x = gx.data();
    forward.weight = orNull(gweight, affine);
    forward.bias = orNull(gbias, affine && layer);
    forward.scale = orNull(gscale, modulated);
    forward.shift = orNull(gshift, modulated && layer);
    forward.y = y.data();
    forward.mean = orNull(mean, layer);
    forward.rstd = rstd.data();
    forward.rows = rows;
    forward.size = shape.size;
    forward.rowsPerSample = rowsPerSample;
    forward.epsilon = static_cast<float>(kEpsilon);
    forward.kind = kind;
    forward.dtype = DTypeOf<T>::value;
    launch(Op::norm, forward);
    NormBackwardArgs backward{};
    backward.x = gx.data();
    backward.dy = gdy.data();
    backward.weight = forward.weight;
    backward.bias = forward.bias;
    backward.scale = forward.scale;
    backward.mean = forward.mean;
    backward.rstd = rstd.data();
    backward.dx = dx.data();
    backward.dweight = orNull(dweight, affine);
    backward.dbias = orNull(dbias, affine && layer);
    backward.dscale = orNull(dscale, modulated);
    backward.dshift = orNull(dshift, modulated && layer);
    backward.partials = partials.data();
    backward.rows = rows;
    backward.size = shape.size;
    backward.rowsPerSample = rowsPerSample;
    backward.kind = kind;
    backward.dtype = DTypeOf<T>::value;
    launch(Op::normBackward, backward);
    Bytes bytes;
    bytes.add(y.values());
    bytes.add(dx.values());
    bytes.add(rstd.values());
    for (Guarded<float>* gradient : {&dweight, &dbias, &dscale, &dshift})
      bytes.add(gradient->values());
    if (checked) return bytes;  // the same bits, so the same errors
    checked = true;
    checkClose(y.values(), expected, toleranceOf<T>(2e-6));
    const auto lossOf = [&](Values NormOperands::*operand) {
      return [&, operand](const Values& values) {
        NormOperands changed = of;
        changed.*operand = values;
        return dot(cotangent, normOf(kind, shape, changed));
      };
    };
    checkGradient(dx.values(), of.x, lossOf(&NormOperands::x), gradientTolerance,
                  termOf(rstd, cotangent));
    checkGradient(dweight.values(), of.weight, lossOf(&NormOperands::weight), 1e-5);
    checkGradient(dbias.values(), of.bias, lossOf(&NormOperands::bias), 1e-5);
    checkGradient(dscale.values(), of.scale, lossOf(&NormOperands::scale), 1e-5);
    checkGradient(dshift.values(), of.shift, lossOf(&NormOperands::shift), 1e-5);
    return bytes;
  });
}

TEST_CASE_TEMPLATE("norm and its backward pass", T, float, BFloat16) {
  for (const NormKind kind : {NormKind::kRms, NormKind::kLayer})
    for (const NormCase& shape : kNormCases)
      for (const bool affine : {false, true})
        for (const bool modulated : {false, true}) checkNorm<T>(kind, shape, affine, modulated);
}

TEST_CASE("norm keeps a large common offset out of the variance") {
  std::vector<float> x = someFloats(64, 1);
  for (float& value : x) value += 4096.0f;
  const Values expected =
      normOf(NormKind::kLayer, {1, 1, 64}, NormOperands{widen(x), {}, {}, {}, {}});
  atEveryLevel([&](const auto& launch) {
    Guarded<float> gx(x), y(64), mean(1), rstd(1);
    NormArgs arguments{};
    arguments.x = gx.data();
    arguments.y = y.data();
    arguments.mean = mean.data();
    arguments.rstd = rstd.data();
    arguments.rows = arguments.rowsPerSample = 1;
    arguments.size = 64;
    arguments.epsilon = static_cast<float>(kEpsilon);
    arguments.kind = NormKind::kLayer;
    arguments.dtype = DType::kFloat32;
    launch(Op::norm, arguments);
    // The mean's own rounding, 2^-12 of its spacing, is what is left.
    checkClose(y.values(), expected, 5e-4);
    return Bytes();
  });
}

struct GroupCase {
  int64_t batch, channels, pixels, groups;
};
constexpr GroupCase kGroupCases[] = {{0, 4, 9, 2},  {1, 1, 1, 1},  {2, 6, 1, 3},   {2, 6, 17, 2},
                                     {3, 4, 64, 4}, {1, 5, 65, 1}, {2, 2, 5000, 1}};

Values groupNormOf(const GroupCase& shape, bool silu, const Values& x, const Values& weight,
                   const Values& bias) {
  Values y = x;
  const auto pixels = static_cast<size_t>(shape.pixels);
  const auto count = static_cast<size_t>(shape.channels / shape.groups) * pixels;
  for (size_t start = 0; start < y.size(); start += count) {
    double mean = 0, square = 0;
    for (size_t i = 0; i < count; ++i) mean += x[start + i] / static_cast<double>(count);
    for (size_t i = 0; i < count; ++i) square += std::pow(x[start + i] - mean, 2);
    const double rstd = 1 / std::sqrt(square / static_cast<double>(count) + kEpsilon);
    for (size_t i = start; i < start + count; ++i) {
      const size_t channel = i / pixels % static_cast<size_t>(shape.channels);
      const double z = (x[i] - mean) * rstd * (weight.empty() ? 1 : weight[channel]) +
                       (bias.empty() ? 0 : bias[channel]);
      y[i] = silu ? z / (1 + std::exp(-z)) : z;
    }
  }
  return y;
}

template <class T>
void checkGroupNorm(const GroupCase& shape, bool affine, bool silu) {
  CAPTURE(shape.batch);
  CAPTURE(shape.channels);
  CAPTURE(shape.pixels);
  CAPTURE(shape.groups);
  CAPTURE(affine);
  CAPTURE(silu);
  const int64_t count = shape.batch * shape.channels * shape.pixels;
  const int64_t parameters = affine ? shape.channels : 0;
  const int64_t statistics = shape.batch * shape.groups;
  const std::vector<T> x = someValues<T>(count, 1);
  const std::vector<T> dy = someValues<T>(count, 2);
  const std::vector<T> weight = someValues<T>(parameters, 3);
  const std::vector<T> bias = someValues<T>(parameters, 4);
  const Values wx = widen(x), ww = widen(weight), wb = widen(bias), cotangent = widen(dy);
  const Values expected = groupNormOf(shape, silu, wx, ww, wb);
  bool checked = false;
  atEveryLevel([&](const auto& launch) {
    Guarded<T> gx(x), gdy(dy), gweight(weight), gbias(bias), y(count), dx(count);
    Guarded<float> mean(statistics), rstd(statistics), dweight(parameters), dbias(parameters),
        partials(2 * shape.batch * shape.channels);
    launch(
        Op::groupNorm,
        GroupNormArgs{gx.data(), affine ? gweight.data() : nullptr, affine ? gbias.data() : nullptr,
                      y.data(), mean.data(), rstd.data(), shape.batch, shape.channels, shape.pixels,
                      shape.groups, static_cast<float>(kEpsilon), silu, DTypeOf<T>::value});
    launch(Op::groupNormBackward,
           GroupNormBackwardArgs{
               gx.data(), gdy.data(), affine ? gweight.data() : nullptr,
               affine ? gbias.data() : nullptr, mean.data(), rstd.data(), dx.data(),
               affine ? dweight.data() : nullptr, affine ? dbias.data() : nullptr, partials.data(),
               shape.batch, shape.channels, shape.pixels, shape.groups, silu, DTypeOf<T>::value});
    Bytes bytes;
    bytes.add(y.values());
    bytes.add(dx.values());
    bytes.add(dweight.values());
    bytes.add(dbias.values());
    if (checked) return bytes;
    checked = true;
    checkClose(y.values(), expected, toleranceOf<T>(3e-6));
    checkGradient(
        dx.values(), wx,
        [&](const Values& v) { return dot(cotangent, groupNormOf(shape, silu, v, ww, wb)); },
        toleranceOf<T>(2e-5), termOf(rstd, cotangent));
    checkGradient(
        dweight.values(), ww,
        [&](const Values& v) { return dot(cotangent, groupNormOf(shape, silu, wx, v, wb)); }, 1e-5);
    checkGradient(
        dbias.values(), wb,
        [&](const Values& v) { return dot(cotangent, groupNormOf(shape, silu, wx, ww, v)); }, 1e-5);
    return bytes;
  });
}

TEST_CASE_TEMPLATE("groupNorm and its backward pass", T, float, BFloat16) {
  for (const GroupCase& shape : kGroupCases)
    for (const bool affine : {false, true})
      for (const bool silu : {false, true}) checkGroupNorm<T>(shape, affine, silu);
}

}  // namespace
}  // namespace didr::test
