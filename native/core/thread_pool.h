// Parallel loops for the kernels of one op.
//
// The thread that calls parallelFor works too, so a pool of n threads owns n - 1 helpers. Helpers spin briefly
// after a loop, since the next op usually follows at once, then sleep. The pool decides which thread runs a
// range and in what order, never what a range computes: results must depend on the range's indices alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace didr {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // Calls body(begin, end) on disjoint ranges that cover [0, count). Every range starts at a multiple of
  // `grain`; `grain` is also the smallest amount of work worth a thread. Returns when all ranges are done.
  // One caller at a time; a nested call runs on the calling thread.
  template <class Body>
  void parallelFor(int64_t count, int64_t grain, const Body& body) {
    run(
        count, grain,
        [](const void* context, int64_t begin, int64_t end) {
          (*static_cast<const Body*>(context))(begin, end);
        },
        &body);
  }

 private:
  using RangeFunction = void (*)(const void* context, int64_t begin, int64_t end);

  void run(int64_t count, int64_t grain, RangeFunction body, const void* context);
  void helperLoop();
  void drain();

  struct Job {
    RangeFunction body = nullptr;
    const void* context = nullptr;
    int64_t count = 0;
    int64_t step = 0;
    std::atomic<int64_t> next{0};
  };

  Job job_;
  std::atomic<uint32_t> generation_{0};
  std::atomic<int> working_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> helpers_;
};

// DIDR_NUM_THREADS if it is a positive integer, else the number of physical cores this process may run on.
int defaultThreadCount();

}  // namespace didr
