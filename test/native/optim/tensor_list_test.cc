#include "native/ops/optim/tensor_list.h"

#include "test/native/optim/lists.h"

namespace didr::test {
namespace {

struct Row {
  int64_t count;
  int64_t firstBlock;
};

std::vector<Row> rowsOf(const std::vector<int64_t>& sizes, int64_t& blocks) {
  std::vector<Row> rows;
  for (const int64_t size : sizes) rows.push_back({size, 0});
  blocks = numberBlocks(rows);
  return rows;
}

TEST_CASE("every element of a list is visited once, whatever ranges of blocks it is cut into") {
  int64_t blocks = 0;
  const std::vector<Row> rows = rowsOf(kListSizes, blocks);
  for (const int64_t step : {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{7}, blocks}) {
    CAPTURE(step);
    std::vector<std::vector<int>> visits;
    for (const int64_t size : kListSizes) visits.emplace_back(size, 0);
    int64_t expectedBlock = 0;
    for (int64_t first = 0; first < blocks; first += step)
      forEachListBlock(rows.data(), static_cast<int64_t>(rows.size()), first,
                       std::min(first + step, blocks),
                       [&](const Row& row, int64_t begin, int64_t end, int64_t block) {
                         CHECK(block == expectedBlock++);
                         CHECK(begin < end);
                         CHECK(end - begin <= kListBlock);
                         auto& visited = visits[static_cast<size_t>(&row - rows.data())];
                         for (int64_t i = begin; i < end; ++i) ++visited[static_cast<size_t>(i)];
                       });
    CHECK(expectedBlock == blocks);
    for (const auto& visited : visits) CHECK(visited == std::vector<int>(visited.size(), 1));
  }
}

TEST_CASE("a list without elements has no blocks") {
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{}, {0}, {0, 0, 0}}) {
    int64_t blocks = -1;
    const std::vector<Row> rows = rowsOf(sizes, blocks);
    CHECK(blocks == 0);
    forEachListBlock(rows.data(), static_cast<int64_t>(rows.size()), 0, 0,
                     [](const Row&, int64_t, int64_t, int64_t) { FAIL("no block to visit"); });
  }
}

}  // namespace
}  // namespace didr::test
