// Activations' derivatives, SwiGLU, gated residuals, rotary embedding, embedding rows, upsampling.
#include <limits>

#include "test/native/nn/gradients.h"

namespace didr::test {
namespace {

constexpr int64_t kCounts[] = {0, 1, 3, 5, 17, 63, 64, 65, 70003};

double activationOf(Activation activation, double x) {
  const double sigmoid = 1 / (1 + std::exp(-x));
  const double sqrt2OverPi = std::sqrt(2 / std::acos(-1.0));
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return x > 0 ? x : 0;
    case Activation::kGelu:
      return x / 2 * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return x / 2 * (1 + std::tanh(sqrt2OverPi * (x + 0.044715 * x * x * x)));
    case Activation::kSilu:
      return x * sigmoid;
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kSigmoid:
      return sigmoid;
  }
  return 0;
}

constexpr Activation kActivations[] = {Activation::kNone,     Activation::kRelu, Activation::kGelu,
                                       Activation::kGeluTanh, Activation::kSilu, Activation::kTanh,
                                       Activation::kSigmoid};

TEST_CASE_TEMPLATE("activationBackward is dy times the derivative", T, float, BFloat16) {
  for (const Activation activation : kActivations)
    for (const int64_t count : kCounts) {
      CAPTURE(static_cast<int>(activation));
      CAPTURE(count);
      const std::vector<T> x = someValues<T>(count, 1, 3.0f);
      const std::vector<T> dy = someValues<T>(count, 2);
      const Values wide = widen(x);
      Values expected = widen(dy);
      for (size_t i = 0; i < wide.size(); ++i) {
        constexpr double kStep = 1e-5;
        expected[i] *= (activationOf(activation, wide[i] + kStep) -
                        activationOf(activation, wide[i] - kStep)) /
                       (2 * kStep);
      }
      // A difference across the corner of relu says nothing.
      if (activation == Activation::kRelu)
        for (size_t i = 0; i < wide.size(); ++i) expected[i] = wide[i] > 0 ? widen(dy)[i] : 0.0;
      atEveryLevel([&](const auto& launch) {
        Guarded<T> gx(x), gdy(dy), dx(count);
        launch(Op::activationBackward,
               ActivationBackwardArgs{gx.data(), gdy.data(), dx.data(), count, activation,
                                      DTypeOf<T>::value});
        checkClose(dx.values(), expected, toleranceOf<T>(1e-6));
        Bytes bytes;
        bytes.add(dx.values());
        return bytes;
      });
      if (activation == Activation::kRelu && count > 100) break;
    }
}

TEST_CASE("activationBackward has the limits of the derivative at infinity, and NaN at NaN") {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {infinity, -infinity, 3e38f, -3e38f, std::nanf("")};
  for (const Activation activation : kActivations) {
    CAPTURE(static_cast<int>(activation));
    const bool saturates = activation == Activation::kTanh || activation == Activation::kSigmoid;
    const float above = saturates ? 0.0f : 1.0f;
    const float below = activation == Activation::kNone ? 1.0f : 0.0f;
    atEveryLevel([&](const auto& launch) {
      Guarded<float> gx(x), dy(std::vector<float>(5, 1.0f)), dx(5);
      launch(Op::activationBackward, ActivationBackwardArgs{gx.data(), dy.data(), dx.data(), 5,
                                                            activation, DType::kFloat32});
      const std::vector<float> values = dx.values();
      CHECK(values[0] == above);
      CHECK(std::fabs(values[1]) == below);
      CHECK(values[2] == above);
      CHECK(std::fabs(values[3]) == below);
      CHECK((std::isnan(values[4]) || activation == Activation::kNone));
      return Bytes();
    });
  }
}

TEST_CASE_TEMPLATE("swiGlu and its backward pass", T, float, BFloat16) {
  for (const int64_t count : kCounts) {
    CAPTURE(count);
    const std::vector<T> a = someValues<T>(count, 1, 3.0f);
    const std::vector<T> b = someValues<T>(count, 2);
    const std::vector<T> dy = someValues<T>(count, 3);
    Values y, da, db;
    for (size_t i = 0; i < a.size(); ++i) {
      const double x = static_cast<double>(toFloat(a[i]));
      const double other = static_cast<double>(toFloat(b[i]));
      const double gradient = static_cast<double>(toFloat(dy[i]));
      const double s = 1 / (1 + std::exp(-x));
      y.push_back(x * s * other);
      da.push_back(gradient * other * (s + x * s * (1 - s)));
      db.push_back(gradient * x * s);
    }
    atEveryLevel([&](const auto& launch) {
      Guarded<T> ga(a), gb(b), gdy(dy), gy(count), gda(count), gdb(count);
      launch(Op::swiGlu, SwiGluArgs{ga.data(), gb.data(), gy.data(), count, DTypeOf<T>::value});
      launch(Op::swiGluBackward, SwiGluBackwardArgs{ga.data(), gb.data(), gdy.data(), gda.data(),
                                                    gdb.data(), count, DTypeOf<T>::value});
      checkClose(gy.values(), y, toleranceOf<T>(1e-6));
      checkClose(gda.values(), da, toleranceOf<T>(1e-6));
      checkClose(gdb.values(), db, toleranceOf<T>(1e-6));
      Bytes bytes;
      bytes.add(gy.values());
      bytes.add(gda.values());
      bytes.add(gdb.values());
      return bytes;
    });
  }
}

struct Rows {
  int64_t samples, perSample, size;
};
constexpr Rows kRows[] = {{0, 1, 5}, {1, 1, 1}, {2, 3, 17}, {3, 65, 5}, {1, 130, 64}, {5, 77, 33}};

TEST_CASE_TEMPLATE("gatedResidual and its backward pass", T, float, BFloat16) {
  for (const Rows& shape : kRows)
    for (const bool tanh : {false, true}) {
      CAPTURE(shape.samples);
      CAPTURE(shape.perSample);
      CAPTURE(shape.size);
      const int64_t rows = shape.samples * shape.perSample;
      const int64_t count = rows * shape.size;
      const int64_t gates = shape.samples * shape.size;
      const std::vector<T> x = someValues<T>(count, 1);
      const std::vector<T> h = someValues<T>(count, 2);
      const std::vector<T> dy = someValues<T>(count, 3);
      const std::vector<T> gate = someValues<T>(gates, 4);
      Values y = widen(x), dh = widen(dy), dgate(static_cast<size_t>(gates));
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t at = i / static_cast<size_t>(shape.perSample * shape.size) *
                              static_cast<size_t>(shape.size) +
                          i % static_cast<size_t>(shape.size);
        const double g = static_cast<double>(toFloat(gate[at]));
        const double value = tanh ? std::tanh(g) : g;
        const double slope = tanh ? 1 - value * value : 1;
        const double other = static_cast<double>(toFloat(h[i]));
        dgate[at] += dh[i] * other * slope;
        y[i] += value * other;
        dh[i] *= value;
      }
      atEveryLevel([&](const auto& launch) {
        Guarded<T> gx(x), gh(h), gdy(dy), gg(gate), gy(count), gdh(count);
        Guarded<float> gdgate(gates), partials(rowBlocks(rows, shape.perSample) * shape.size);
        launch(Op::gatedResidual,
               GatedResidualArgs{gx.data(), gh.data(), gg.data(), gy.data(), rows, shape.size,
                                 shape.perSample, tanh, DTypeOf<T>::value});
        launch(Op::gatedResidualBackward,
               GatedResidualBackwardArgs{gh.data(), gg.data(), gdy.data(), gdh.data(),
                                         gdgate.data(), partials.data(), rows, shape.size,
                                         shape.perSample, tanh, DTypeOf<T>::value});
        checkClose(gy.values(), y, toleranceOf<T>(1e-6));
        checkClose(gdh.values(), dh, toleranceOf<T>(1e-6));
        checkClose(gdgate.values(), dgate, 2e-6);
        Bytes bytes;
        bytes.add(gy.values());
        bytes.add(gdh.values());
        bytes.add(gdgate.values());
        return bytes;
      });
    }
}

TEST_CASE_TEMPLATE("rope turns pairs, and its inverse turns them back", T, float, BFloat16) {
  for (const int64_t size : {2, 6, 32, 40, 128})
    for (const int64_t heads : {1, 3})
      for (const int64_t tableRows : {7, 14}) {
        CAPTURE(size);
        CAPTURE(heads);
        const int64_t rows = 14;
        const int64_t count = rows * heads * size;
        const std::vector<T> x = someValues<T>(count, 1);
        const std::vector<float> angle = someFloats(tableRows * size / 2, 2, 3.0f);
        std::vector<float> cos, sin;
        for (const float a : angle) {
          cos.push_back(std::cos(a));
          sin.push_back(std::sin(a));
        }
        Values expected = widen(x);
        for (int64_t i = 0; i < count; i += 2) {
          const int64_t row = i / (heads * size);
          const auto at = static_cast<size_t>(row % tableRows * (size / 2) + i % size / 2);
          const auto e = static_cast<size_t>(i);
          const double even = expected[e], odd = expected[e + 1];
          const double c = static_cast<double>(cos[at]), s = static_cast<double>(sin[at]);
          expected[e] = even * c - odd * s;
          expected[e + 1] = even * s + odd * c;
        }
        atEveryLevel([&](const auto& launch) {
          Guarded<T> gx(x), y(count), back(count);
          Guarded<float> gcos(cos), gsin(sin);
          RopeArgs arguments{gx.data(), gcos.data(), gsin.data(), y.data(), rows,
                             heads,     size,        tableRows,   false,    DTypeOf<T>::value};
          launch(Op::rope, arguments);
          checkClose(y.values(), expected, toleranceOf<T>(1e-6));
          arguments.x = y.data();
          arguments.y = back.data();
          arguments.inverse = true;
          launch(Op::rope, arguments);
          checkClose(back.values(), widen(x), 2 * toleranceOf<T>(1e-6));
          Bytes bytes;
          bytes.add(y.values());
          bytes.add(back.values());
          return bytes;
        });
      }
}

TEST_CASE_TEMPLATE("embedding gathers rows", T, float, BFloat16) {
  for (const int64_t size : {0, 1, 5, 64, 65}) {
    const int64_t vocabulary = 11;
    const std::vector<T> table = someValues<T>(vocabulary * size, 1);
    const std::vector<int32_t> ids = {3, 0, 10, 3, 7};
    Values expected;
    for (const int32_t id : ids)
      for (int64_t c = 0; c < size; ++c)
        expected.push_back(static_cast<double>(toFloat(table[static_cast<size_t>(id * size + c)])));
    atEveryLevel([&](const auto& launch) {
      Guarded<T> gtable(table), y(5 * size);
      Guarded<int32_t> gids(ids);
      launch(Op::embedding, EmbeddingArgs{gtable.data(), gids.data(), y.data(), nullptr, 5,
                                          vocabulary, size, DTypeOf<T>::value});
      checkClose(y.values(), expected, 0);
      Bytes bytes;
      bytes.add(y.values());
      return bytes;
    });
  }
}

TEST_CASE("embeddingBackward adds the rows of an id, and clears those of none") {
  for (const int64_t size : {0, 1, 5, 64, 65}) {
    const int64_t vocabulary = 4001;
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 300; ++i) ids.push_back(i * i % 97 * 41);
    const std::vector<float> dy = someFloats(300 * size, 1);
    Values expected(static_cast<size_t>(vocabulary * size));
    for (size_t i = 0; i < dy.size(); ++i)
      expected[static_cast<size_t>(ids[i / static_cast<size_t>(size)]) * static_cast<size_t>(size) +
               i % static_cast<size_t>(size)] += static_cast<double>(dy[i]);
    atEveryLevel([&](const auto& launch) {
      Guarded<float> gdy(dy), dTable(vocabulary * size);
      Guarded<int32_t> gids(ids);
      launch(Op::embeddingBackward,
             EmbeddingBackwardArgs{gdy.data(), gids.data(), dTable.data(), 300, vocabulary, size});
      checkClose(dTable.values(), expected, 1e-6);
      Bytes bytes;
      bytes.add(dTable.values());
      return bytes;
    });
  }
}

TEST_CASE("embedding refuses ids outside the vocabulary") {
  for (const int32_t bad : {-1, 3, INT32_MAX, INT32_MIN}) {
    Guarded<float> table(someFloats(12, 1)), y(8);
    Guarded<int32_t> ids(std::vector<int32_t>{1, bad});
    checkRefused(
        Op::embedding,
        EmbeddingArgs{table.data(), ids.data(), y.data(), nullptr, 2, 3, 4, DType::kFloat32},
        Code::kRange);
    checkRefused(Op::embeddingBackward,
                 EmbeddingBackwardArgs{y.data(), ids.data(), table.data(), 2, 3, 4}, Code::kRange);
  }
}

TEST_CASE_TEMPLATE("upsampleNearest2x repeats, its backward pass adds", T, float, BFloat16) {
  for (const int64_t height : {1, 3, 8})
    for (const int64_t width : {0, 1, 3, 5, 8, 17, 64}) {
      CAPTURE(height);
      CAPTURE(width);
      const int64_t planes = 3;
      const int64_t small = planes * height * width;
      const std::vector<T> x = someValues<T>(small, 1);
      const std::vector<T> dy = someValues<T>(4 * small, 2);
      Values y(static_cast<size_t>(4 * small)), dx(static_cast<size_t>(small));
      for (int64_t i = 0; i < 4 * small; ++i) {
        const int64_t row = i / (2 * width);
        const auto from = static_cast<size_t>(row / 2 * width + i % (2 * width) / 2);
        y[static_cast<size_t>(i)] = static_cast<double>(toFloat(x[from]));
        dx[from] += static_cast<double>(toFloat(dy[static_cast<size_t>(i)]));
      }
      atEveryLevel([&](const auto& launch) {
        Guarded<T> gx(x), gy(4 * small), gdy(dy), gdx(small);
        launch(Op::upsampleNearest2x,
               UpsampleArgs{gx.data(), gy.data(), planes, height, width, DTypeOf<T>::value});
        launch(
            Op::upsampleNearest2xBackward,
            UpsampleBackwardArgs{gdy.data(), gdx.data(), planes, height, width, DTypeOf<T>::value});
        checkClose(gy.values(), y, 0);
        checkClose(gdx.values(), dx, toleranceOf<T>(1e-6));
        Bytes bytes;
        bytes.add(gy.values());
        bytes.add(gdx.values());
        return bytes;
      });
    }
}

}  // namespace
}  // namespace didr::test
