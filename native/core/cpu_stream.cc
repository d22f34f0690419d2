#include "native/core/cpu_stream.h"

#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "native/core/pause.h"

namespace didr {
namespace {

// How long the worker waits for the next op before it sleeps, and a caller for the worker: calls come in bursts, and
// waking a thread costs the caller several microseconds.
constexpr auto kSpin = std::chrono::microseconds(30);

struct DeleteSessionArgs {
  Session* session;
};

void deleteSession(const void* arguments, CpuContext&) {
  delete static_cast<const DeleteSessionArgs*>(arguments)->session;
}

}  // namespace

CpuStream::CpuStream(ThreadPool& pool) : pool_(pool), tail_(new Chunk), head_(tail_) {
  const SignalsBlocked blocked;
  worker_ = std::thread([this] { workerLoop(); });
}

CpuStream::~CpuStream() {
  stop();
  while (head_ != nullptr) delete std::exchange(head_, head_->next);
  while (spare_ != nullptr) delete std::exchange(spare_, spare_->next);
}

uint64_t CpuStream::submit(const char* name, CpuKernel kernel, const void* arguments,
                           size_t argumentBytes, Session& session) {
  uint64_t ticket;
  {
    const std::lock_guard lock(submitMutex_);
    ticket = submitted_.load(std::memory_order_relaxed) + 1;
    const size_t slot = (ticket - 1) % kTasksPerChunk;
    if (slot == 0 && ticket > 1) {
      Chunk* chunk = spare_ != nullptr ? std::exchange(spare_, spare_->next) : new Chunk;
      chunk->next = nullptr;
      tail_->next = chunk;
      tail_ = chunk;
    }
    Task& task = tail_->tasks[slot];
    task.name = name;
    task.kernel = kernel;
    task.session = &session;
    std::memcpy(task.arguments, arguments, argumentBytes);
    submitted_.store(ticket, std::memory_order_release);
  }
  submitted_.notify_one();
  return ticket;
}

void CpuStream::wait(uint64_t ticket) const {
  if (spinUntil(kSpin, [&] { return completed() >= ticket; })) return;
  for (uint64_t now; (now = completed()) < ticket;) completed_.wait(now);
}

void CpuStream::abandon(std::unique_ptr<Session> session) {
  session->abandon();
  // An op of another session may be running now; one of ours can only be the one after `completed`.
  if (const uint64_t done = completed_.load(); done < submitted()) wait(done + 1);
  Session* abandoned = session.release();
  const DeleteSessionArgs arguments{abandoned};
  submit("deleteSession", deleteSession, &arguments, sizeof arguments, nobody_);
}

void CpuStream::stop() {
  if (stopping_.exchange(true)) return;
  // An empty task wakes the worker; it sees stopping_ before it would run it.
  const char nothing = 0;
  submit(
      "stop", [](const void*, CpuContext&) {}, &nothing, sizeof nothing, nobody_);
  worker_.join();
  // Nothing runs any more, so nobody has anything left to wait for.
  completed_.store(UINT64_MAX);
  completed_.notify_all();
}

bool CpuStream::awaitWork(uint64_t done) {
  const auto ready = [&] { return submitted() != done; };
  if (!spinUntil(kSpin, ready)) submitted_.wait(done, std::memory_order_acquire);
  return !stopping_.load(std::memory_order_relaxed);
}

void CpuStream::workerLoop() {
  CpuContext context{pool_, nullptr, {}};
  for (uint64_t done = 0;;) {
    if (!awaitWork(done)) return;
    const size_t slot = done % kTasksPerChunk;
    if (slot == 0 && done > 0) {
      const std::lock_guard lock(submitMutex_);
      Chunk* finished = std::exchange(head_, head_->next);
      finished->next = spare_;
      spare_ = finished;
    }
    Task& task = head_->tasks[slot];
    if (!task.session->abandoned()) {
      context.op = task.name;
      task.kernel(task.arguments, context);
      if (!context.failure.ok()) {
        const Status failure = std::exchange(context.failure, Status());
        task.session->report({failure.code(), std::string(context.op) + ": " + failure.message()});
      }
    }
    // Sequentially consistent, like the flag's accesses: either abandon() sees this op done, or the next op sees the
    // flag that abandon() has set.
    completed_.store(++done);
    completed_.notify_all();
  }
}

}  // namespace didr
