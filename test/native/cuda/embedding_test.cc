#include "test/native/cuda/both_devices.h"

namespace didr::test {
namespace {

struct Table {
  int64_t count, vocabulary, size;
};
constexpr Table kTables[] = {{0, 3, 4},  {3, 2, 0},    {1, 1, 1},     {5, 3, 7},    {33, 5, 8},
                             {64, 1, 5}, {70, 40, 64}, {100, 9, 516}, {3, 11, 1031}};

std::vector<int32_t> someIds(const Table& shape) {
  std::vector<int32_t> ids;
  uint32_t state = 7;
  for (int64_t i = 0; i < shape.count; ++i) {
    state = state * 1664525u + 1013904223u;
    ids.push_back(static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(shape.vocabulary)));
  }
  return ids;
}

template <class T>
void checkEmbedding(const Table& shape) {
  CAPTURE(shape.count);
  CAPTURE(shape.vocabulary);
  CAPTURE(shape.size);
  const std::vector<T> rows = someValues<T>(shape.vocabulary * shape.size, 1);
  const std::vector<int32_t> names = someIds(shape);
  const Array<T> table(rows), y(shape.count * shape.size);
  const Array<int32_t> ids(names), outside(int64_t{1});
  runEverywhere(Op::embedding, [&](Side side) {
    return EmbeddingArgs{table.at(side), ids.at(side),     y.at(side), outside.at(side),
                         shape.count,    shape.vocabulary, shape.size, DTypeOf<T>::value};
  });
  REQUIRE(outside.cuda()[0] == 0);
  const std::vector<T> cuda = y.cuda();
  REQUIRE(sameBits(cuda, y.cpu()));
  const auto size = static_cast<size_t>(shape.size);
  requireEach(cuda.size(), [&](size_t i) {
    const auto id = static_cast<size_t>(names[i / size]);
    return toFloat(cuda[i]) == toFloat(rows[id * size + i % size]);
  });
}

TEST_CASE_TEMPLATE("embedding: rows of the table", T, float, BFloat16) {
  for (const Table& shape : kTables) checkEmbedding<T>(shape);
}

TEST_CASE("embeddingBackward: the CPU's bits and float64") {
  for (const Table& shape : kTables) {
    CAPTURE(shape.count);
    CAPTURE(shape.vocabulary);
    CAPTURE(shape.size);
    const std::vector<float> gradients = someValues<float>(shape.count * shape.size, 2);
    const std::vector<int32_t> names = someIds(shape);
    const Array<float> dy(gradients), dTable(shape.vocabulary * shape.size);
    const Array<int32_t> ids(names);
    runEverywhere(Op::embeddingBackward, [&](Side side) {
      return EmbeddingBackwardArgs{dy.at(side), ids.at(side),     dTable.at(side),
                                   shape.count, shape.vocabulary, shape.size};
    });
    const std::vector<float> cuda = dTable.cuda();
    REQUIRE(sameBits(cuda, dTable.cpu()));
    std::vector<double> expected(cuda.size(), 0.0);
    const auto size = static_cast<size_t>(shape.size);
    for (size_t i = 0; i < gradients.size(); ++i)
      expected[static_cast<size_t>(names[i / size]) * size + i % size] += gradients[i];
    requireClose(asDoubles(cuda), expected, 2e-6);
  }
}

TEST_CASE_TEMPLATE("embedding: ids outside the table are counted, give NaN and have no gradient", T,
                   float, BFloat16) {
  constexpr int64_t kVocabulary = 3, kSize = 12, kCount = 5;
  const std::vector<int32_t> names = {0, -1, 2, kVocabulary, INT32_MAX};
  const std::vector<T> rows = someValues<T>(kVocabulary * kSize, 1);
  const std::vector<float> gradients = someValues<float>(kCount * kSize, 2);
  const Array<T> table(rows), y(kCount * kSize);
  const Array<int32_t> ids(names), outside(int64_t{1});
  const Array<float> dy(gradients), dTable(kVocabulary * kSize);
  for (const Side side : {Side::kCuda, Side::kCudaAgain}) {
    const EmbeddingArgs forward = {table.at(side), ids.at(side), y.at(side), outside.at(side),
                                   kCount,         kVocabulary,  kSize,      DTypeOf<T>::value};
    runOn(side, Op::embedding, &forward);
    const EmbeddingBackwardArgs backward = {dy.at(side), ids.at(side), dTable.at(side),
                                            kCount,      kVocabulary,  kSize};
    runOn(side, Op::embeddingBackward, &backward);
  }
  REQUIRE(outside.cuda()[0] == 3);
  const std::vector<T> cuda = y.cuda();
  requireEach(cuda.size(), [&](size_t i) {
    const int32_t id = names[i / kSize];
    if (id < 0 || id >= kVocabulary) return std::isnan(toFloat(cuda[i]));
    return toFloat(cuda[i]) == toFloat(rows[static_cast<size_t>(id) * kSize + i % kSize]);
  });
  const std::vector<float> gradient = dTable.cuda();
  requireEach(gradient.size(), [&](size_t i) {
    const size_t row = i / kSize;
    return gradient[i] == (row == 1 ? 0.0f : gradients[row * kSize + i % kSize]);
  });
}

}  // namespace
}  // namespace didr::test
