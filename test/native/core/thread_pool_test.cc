#include "native/core/thread_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace didr {
namespace {

TEST_CASE("every index is visited once, in ranges that start at multiples of the grain") {
  for (int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (int64_t count : {0, 1, 2, 63, 64, 65, 1000, 100003}) {
      for (int64_t grain : {1, 7, 64, 100000}) {
        std::vector<int> visits(static_cast<size_t>(count));
        std::atomic<bool> aligned{true};
        pool.parallelFor(count, grain, [&](int64_t begin, int64_t end) {
          if (begin % grain != 0 || end > count || begin >= end) aligned = false;
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        CHECK(aligned);
        CHECK(std::count(visits.begin(), visits.end(), 1) == count);
      }
    }
  }
}

TEST_CASE("a nested loop runs on its thread, and many short loops follow each other") {
  ThreadPool pool(3);
  std::vector<int64_t> sums(64);
  for (int round = 0; round < 2000; ++round) {
    pool.parallelFor(64, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        pool.parallelFor(
            3, 1, [&, i](int64_t from, int64_t to) { sums[static_cast<size_t>(i)] += to - from; });
    });
  }
  for (int64_t sum : sums) CHECK(sum == 6000);
}

TEST_CASE("DIDR_NUM_THREADS counts when it is a positive integer") {
  unsetenv("DIDR_NUM_THREADS");
  const int cores = defaultThreadCount();
  CHECK(cores >= 1);
  setenv("DIDR_NUM_THREADS", "3", 1);
  CHECK(defaultThreadCount() == 3);
  for (const char* wrong : {"0", "-1", "two", "3x", "", "99999999999999999999"}) {
    setenv("DIDR_NUM_THREADS", wrong, 1);
    CHECK(defaultThreadCount() == cores);
  }
  unsetenv("DIDR_NUM_THREADS");
}

}  // namespace
}  // namespace didr
