// The CPU's in-order queue: callers on any thread submit, one worker thread runs the ops one after another, each
// spread over the thread pool.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "native/core/op.h"
#include "native/core/session.h"

namespace didr {

class CpuStream {
 public:
  explicit CpuStream(ThreadPool& pool);
  ~CpuStream();
  CpuStream(const CpuStream&) = delete;
  CpuStream& operator=(const CpuStream&) = delete;

  // Copies `arguments` and returns the ticket of the call. `name` must outlive it.
  uint64_t submit(const char* name, CpuKernel kernel, const void* arguments, size_t argumentBytes,
                  Session& session);

  uint64_t submitted() const { return submitted_.load(std::memory_order_acquire); }
  uint64_t completed() const { return completed_.load(std::memory_order_acquire); }
  // Blocks until the op with this ticket, and so all before it, are done (or the stream has stopped).
  void wait(uint64_t ticket) const;

  // Marks the session abandoned and waits until none of its ops is running. Those still queued will be skipped; the
  // stream deletes the session after the last of them.
  void abandon(std::unique_ptr<Session> session);

  // Lets the running op finish, drops the rest and ends the worker thread. For the end of the process.
  void stop();

 private:
  struct Task {
    const char* name;
    CpuKernel kernel;
    Session* session;
    alignas(std::max_align_t) std::byte arguments[kMaxArgumentBytes];
  };
  static constexpr size_t kTasksPerChunk = 64;
  struct Chunk {
    Task tasks[kTasksPerChunk];
    Chunk* next = nullptr;
  };

  void workerLoop();
  bool awaitWork(uint64_t done);

  ThreadPool& pool_;
  Session nobody_;          // for the stream's own tasks, which are never skipped
  std::mutex submitMutex_;  // guards tail_, spare_ and the order of submitted_
  Chunk* tail_;
  Chunk* spare_ = nullptr;  // finished chunks, kept for the next ones
  Chunk* head_;             // the worker's
  std::atomic<uint64_t> submitted_{0};
  std::atomic<uint64_t> completed_{0};
  std::atomic<bool> stopping_{false};
  std::thread worker_;
};

}  // namespace didr
