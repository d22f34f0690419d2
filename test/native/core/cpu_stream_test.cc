#include "native/core/cpu_stream.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace didr {
namespace {

struct Append {
  std::vector<int>* list;
  int value;
};
void append(const void* arguments, CpuContext&) {
  const auto& a = *static_cast<const Append*>(arguments);
  a.list->push_back(a.value);
}

struct Gate {
  std::atomic<bool>* open;
  std::atomic<bool>* entered;
};
void waitForGate(const void* arguments, CpuContext&) {
  const auto& gate = *static_cast<const Gate*>(arguments);
  gate.entered->store(true);
  while (!gate.open->load()) std::this_thread::yield();
}

void refuse(const void*, CpuContext& context) { context.failure = {Code::kNonfinite, "3 of them"}; }

template <class Arguments>
uint64_t submit(CpuStream& stream, CpuKernel kernel, const Arguments& arguments, Session& session) {
  return stream.submit("test", kernel, &arguments, sizeof arguments, session);
}

TEST_CASE("ops run in order, past any number of chunks") {
  ThreadPool pool(2);
  CpuStream stream(pool);
  Session session;
  std::vector<int> list;
  for (int i = 0; i < 10000; ++i) submit(stream, append, Append{&list, i}, session);
  stream.wait(stream.submitted());
  REQUIRE(list.size() == 10000);
  for (int i = 0; i < 10000; ++i) CHECK(list[static_cast<size_t>(i)] == i);
  CHECK(stream.completed() == stream.submitted());
}

TEST_CASE("threads may submit at once") {
  ThreadPool pool(1);
  CpuStream stream(pool);
  Session session;
  std::vector<int> list;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 1000; ++i) submit(stream, append, Append{&list, t * 1000 + i}, session);
    });
  for (auto& thread : threads) thread.join();
  stream.wait(stream.submitted());
  CHECK(list.size() == 4000);
  // Each thread's own ops keep their order.
  int last[4] = {-1, -1, -1, -1};
  bool ordered = true;
  for (int value : list) {
    ordered = ordered && value % 1000 == last[value / 1000] + 1;
    last[value / 1000] = value % 1000;
  }
  CHECK(ordered);
}

TEST_CASE("the first failure waits in its session, named, and is told once") {
  ThreadPool pool(1);
  CpuStream stream(pool);
  Session mine;
  Session other;
  std::vector<int> list;
  submit(stream, refuse, 0, mine);
  submit(stream, refuse, 0, mine);
  submit(stream, append, Append{&list, 1}, other);
  stream.wait(stream.submitted());
  CHECK(other.take().ok());
  const Status failure = mine.take();
  CHECK(failure.code() == Code::kNonfinite);
  CHECK(failure.message() == "test: 3 of them");
  CHECK(mine.take().ok());
  CHECK(list.size() == 1);
}

TEST_CASE("an abandoned session's queued work is skipped, others' is not") {
  ThreadPool pool(1);
  CpuStream stream(pool);
  Session other;
  auto gone = std::make_unique<Session>();
  std::atomic<bool> open{false};
  std::atomic<bool> entered{false};
  std::vector<int> list;
  submit(stream, waitForGate, Gate{&open, &entered}, *gone);
  while (!entered) std::this_thread::yield();
  for (int i = 0; i < 200; ++i) {
    submit(stream, append, Append{&list, -1}, *gone);
    submit(stream, append, Append{&list, i}, other);
  }
  std::thread opener([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    open = true;
  });
  stream.abandon(std::move(gone));
  CHECK(open);  // it waited for the op that was running
  opener.join();
  stream.wait(stream.submitted());
  REQUIRE(list.size() == 200);
  for (int i = 0; i < 200; ++i) CHECK(list[static_cast<size_t>(i)] == i);
}

TEST_CASE("stopping finishes the running op, drops the rest and frees those who wait") {
  ThreadPool pool(2);
  CpuStream stream(pool);
  Session session;
  std::atomic<bool> open{false};
  std::atomic<bool> entered{false};
  std::vector<int> list;
  submit(stream, waitForGate, Gate{&open, &entered}, session);
  while (!entered) std::this_thread::yield();
  for (int i = 0; i < 200; ++i) submit(stream, append, Append{&list, i}, session);
  const uint64_t last = stream.submitted();
  std::thread waiter([&] { stream.wait(last); });
  std::thread opener([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    open = true;
  });
  stream.stop();
  waiter.join();
  opener.join();
  CHECK(list.empty());
}

}  // namespace
}  // namespace didr
