#include "native/ops/elementwise/where.h"

#include "test/native/elementwise/broadcasts.h"
#include "test/native/every_level.h"

namespace didr::test {
namespace {

template <class Bits>
void checkWhere(DType dtype, uint32_t seed) {
  Random random(seed);
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    const std::vector<int64_t> shape = someShape(random);
    const Layout layoutC = someLayout(shape, random);
    const Layout layoutA = someLayout(shape, random);
    const Layout layoutB = someLayout(shape, random);
    const auto fill = [&](auto& values) {
      for (auto& value : values)
        value = static_cast<std::decay_t<decltype(value)>>(random.next() * 2654435761u);
    };
    std::vector<uint8_t> condition(static_cast<size_t>(layoutC.elements));
    std::vector<Bits> a(static_cast<size_t>(layoutA.elements)),
        b(static_cast<size_t>(layoutB.elements));
    fill(condition);
    fill(a);
    fill(b);
    for (uint8_t& value : condition) value = value < 128 ? 0 : value;
    std::vector<Bits> want(static_cast<size_t>(countOf(shape)));
    forEachIndex(shape, {&layoutC, &layoutA, &layoutB}, [&](int64_t position, const auto& offsets) {
      want[static_cast<size_t>(position)] = condition[static_cast<size_t>(offsets[0])] != 0
                                                ? a[static_cast<size_t>(offsets[1])]
                                                : b[static_cast<size_t>(offsets[2])];
    });
    atEveryLevel([&](const auto& launch) {
      Guarded<uint8_t> guardedC(condition);
      Guarded<Bits> guardedA(a), guardedB(b), y(countOf(shape));
      WhereArgs arguments{guardedC.data(),
                          guardedA.data(),
                          guardedB.data(),
                          y.data(),
                          dtype,
                          static_cast<int32_t>(shape.size()),
                          {},
                          {},
                          {},
                          {}};
      std::copy(shape.begin(), shape.end(), arguments.shape);
      std::copy(layoutC.strides.begin(), layoutC.strides.end(), arguments.cStrides);
      std::copy(layoutA.strides.begin(), layoutA.strides.end(), arguments.aStrides);
      std::copy(layoutB.strides.begin(), layoutB.strides.end(), arguments.bStrides);
      launch(Op::where, arguments);
      CHECK(y.values() == want);
      return Bytes();
    });
  }
}

TEST_CASE("where: every element size, broadcasts and strides") {
  checkWhere<uint32_t>(DType::kFloat32, 1);
  checkWhere<uint16_t>(DType::kBFloat16, 2);
  checkWhere<uint8_t>(DType::kUint8, 3);
}

TEST_CASE("where: in place over threads") {
  const int64_t count = 300007;
  const std::vector<float> a = someFloats(count, 1), b = someFloats(count, 2);
  std::vector<uint8_t> condition(static_cast<size_t>(count));
  for (size_t i = 0; i < condition.size(); ++i) condition[i] = i * 2654435761u >> 31 & 1u;
  atEveryLevel([&](const auto& launch) {
    Guarded<uint8_t> c(condition);
    Guarded<float> x(a), y(b);
    launch(Op::where,
           WhereArgs{
               c.data(), x.data(), y.data(), y.data(), DType::kFloat32, 1, {count}, {1}, {1}, {1}});
    int64_t wrong = 0;
    for (size_t i = 0; i < condition.size(); ++i)
      wrong += y.data()[i] != (condition[i] != 0 ? a[i] : b[i]);
    CHECK(wrong == 0);
    return Bytes();
  });
}

}  // namespace
}  // namespace didr::test
