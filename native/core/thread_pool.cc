#include "native/core/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <cstdio>
#include <set>
#include <utility>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "native/core/pause.h"

namespace didr {
namespace {

// A loop cut into more ranges than threads evens out threads that the system slows down.
constexpr int64_t kRangesPerThread = 4;
// How long a helper waits for the next loop before it sleeps: waking a sleeping thread costs about as much.
constexpr auto kSpin = std::chrono::microseconds(30);

thread_local bool insideLoop = false;

}  // namespace

ThreadPool::ThreadPool(int threads) {
  const SignalsBlocked blocked;
  for (int i = 1; i < threads; ++i) helpers_.emplace_back([this] { helperLoop(); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (auto& helper : helpers_) helper.join();
}

void ThreadPool::drain() {
  insideLoop = true;
  for (;;) {
    const int64_t begin = job_.next.fetch_add(job_.step, std::memory_order_relaxed);
    if (begin >= job_.count) break;
    job_.body(job_.context, begin, std::min(begin + job_.step, job_.count));
  }
  insideLoop = false;
}

void ThreadPool::run(int64_t count, int64_t grain, RangeFunction body, const void* context) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (helpers_.empty() || insideLoop || count <= grain) {
    body(context, 0, count);
    return;
  }
  const int64_t grains = (count + grain - 1) / grain;
  const int64_t ranges = std::min<int64_t>(grains, kRangesPerThread * threads());
  job_.body = body;
  job_.context = context;
  job_.count = count;
  job_.step = (grains + ranges - 1) / ranges * grain;
  job_.next.store(0, std::memory_order_relaxed);
  working_.store(static_cast<int>(helpers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  drain();
  // Every helper checks in, even one that found no range left: job_ may not change under a late reader.
  for (int left; (left = working_.load(std::memory_order_acquire)) != 0;) {
    if (!spinUntil(kSpin, [&] { return working_.load(std::memory_order_acquire) != left; }))
      working_.wait(left);
  }
}

void ThreadPool::helperLoop() {
  uint32_t seen = 0;
  for (;;) {
    if (!spinUntil(kSpin, [&] { return generation_.load(std::memory_order_acquire) != seen; }))
      generation_.wait(seen, std::memory_order_acquire);
    const uint32_t now = generation_.load(std::memory_order_acquire);
    if (now == seen) continue;
    if (stopping_.load()) return;
    seen = now;
    drain();
    if (working_.fetch_sub(1, std::memory_order_acq_rel) == 1) working_.notify_all();
  }
}

#if defined(__linux__)
namespace {

bool readTopology(int cpu, const char* field, int& value) {
  const std::string path =
      "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/" + field;
  FILE* file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return false;
  const bool read = std::fscanf(file, "%d", &value) == 1;
  std::fclose(file);
  return read;
}

// Distinct (package, core) pairs among the CPUs of our affinity mask; 0 when the system does not say.
int physicalCores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
  std::set<std::pair<int, int>> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    int package = 0;
    int core = 0;
    if (!readTopology(cpu, "physical_package_id", package) || !readTopology(cpu, "core_id", core))
      return CPU_COUNT(&allowed);
    cores.emplace(package, core);
  }
  return static_cast<int>(cores.size());
}

}  // namespace
#elif defined(__APPLE__)
static int physicalCores() {
  int cores = 0;
  size_t bytes = sizeof cores;
  return sysctlbyname("hw.physicalcpu", &cores, &bytes, nullptr, 0) == 0 ? cores : 0;
}
#else
static int physicalCores() { return 0; }
#endif

int defaultThreadCount() {
  constexpr int kMost = 1024;
  if (const char* text = std::getenv("DIDR_NUM_THREADS")) {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (end != text && *end == '\0' && value >= 1 && value <= kMost) return static_cast<int>(value);
  }
  const int cores = physicalCores();
  if (cores > 0) return cores;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace didr
