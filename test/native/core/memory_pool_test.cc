#include "native/core/memory_pool.h"

#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace didr {
namespace {

Block take(MemoryPool& pool, size_t bytes, const uint64_t* idleAt = nullptr) {
  Block block;
  REQUIRE(pool.allocate(bytes, idleAt, block).ok());
  return block;
}

TEST_CASE("blocks are aligned, large enough and their own") {
  MemoryPool pool(0);
  std::vector<Block> blocks;
  for (size_t bytes : {0, 1, 63, 64, 65, 1000, 1025, 4095, 1 << 20, (4 << 20) + 1, 9000001}) {
    blocks.push_back(take(pool, bytes));
    CHECK(reinterpret_cast<uintptr_t>(blocks.back().data) % kAlignment == 0);
    CHECK(blocks.back().capacity >= bytes);
    std::memset(blocks.back().data, static_cast<int>(blocks.size()), blocks.back().capacity);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto* bytes = static_cast<const unsigned char*>(blocks[i].data);
    CHECK(bytes[0] == i + 1);
    CHECK(bytes[blocks[i].capacity - 1] == i + 1);
    pool.release(blocks[i], 0);
  }
  CHECK(pool.counters().liveBytes == 0);
}

TEST_CASE("a released block is taken again, with idle ones alone for uploads") {
  MemoryPool pool(0);
  const Block first = take(pool, 5000);
  pool.release(first, 7);
  uint64_t completed = 6;
  const Block other = take(pool, 5000, &completed);
  CHECK(other.data != first.data);  // the stream may still use the first
  completed = 7;
  const Block again = take(pool, 5000, &completed);
  CHECK(again.data == first.data);
  pool.release(again, 9);
  const Block queued = take(pool, 4999);  // an op's output may take it at once
  CHECK(queued.data == first.data);
  pool.release(queued, 9);
  pool.release(other, 9);
}

TEST_CASE("counters follow requests, peak and cache") {
  MemoryPool pool(0);
  const Block a = take(pool, 1000);
  const Block b = take(pool, 3000);
  CHECK(pool.counters().liveBytes == 4000);
  pool.release(a, 0);
  CHECK(pool.counters().liveBytes == 3000);
  CHECK(pool.counters().peakBytes == 4000);
  CHECK(pool.counters().pooledBytes == a.capacity);
  pool.resetPeak();
  CHECK(pool.counters().peakBytes == 3000);
  pool.release(b, 5);
  CHECK(pool.trim(4) == a.capacity);  // b may still be in use
  CHECK(pool.trim(5) == b.capacity);
  CHECK(pool.counters().pooledBytes == 0);
}

TEST_CASE("requests past the limit or the machine are refused and change nothing") {
  MemoryPool pool(1 << 20);
  const Block block = take(pool, 1 << 19);
  Block refused;
  CHECK(pool.allocate((1 << 19) + 1, nullptr, refused).code() == Code::kOutOfMemory);
  CHECK(pool.allocate(SIZE_MAX, nullptr, refused).code() == Code::kOutOfMemory);
  CHECK(pool.counters().liveBytes == 1 << 19);
  pool.release(block, 0);

  MemoryPool unlimited(0);
  CHECK(unlimited.allocate(size_t{1} << 46, nullptr, refused).code() == Code::kOutOfMemory);
  CHECK(unlimited.counters().liveBytes == 0);
  CHECK(processMemoryLimit() > (size_t{64} << 20));
}

TEST_CASE("threads may take and release at once") {
  MemoryPool pool(0);
  std::vector<std::thread> threads;
  std::atomic<int> clashes{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < 2000; ++i) {
        Block block;
        const size_t bytes = random() % 20000 + sizeof t;
        if (!pool.allocate(bytes, nullptr, block).ok()) continue;
        std::memcpy(block.data, &t, sizeof t);
        std::this_thread::yield();
        if (std::memcmp(block.data, &t, sizeof t) != 0) ++clashes;
        pool.release(block, 0);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(clashes == 0);
  CHECK(pool.counters().liveBytes == 0);
}

}  // namespace
}  // namespace didr
