// One JavaScript thread's claim on a device's queue: whose work an op is, and where its failure waits to be told.
#pragma once

#include <atomic>
#include <mutex>
#include <utility>

#include "native/core/status.h"

namespace didr {

class Session {
 public:
  // Keeps the first failure since the last take(): what follows it usually fails because of it.
  void report(Status failure) {
    const std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = std::move(failure);
  }

  Status take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(failure_, Status());
  }

  // Work of an abandoned session is skipped: its JavaScript thread is gone.
  void abandon() { abandoned_.store(true); }
  bool abandoned() const { return abandoned_.load(); }

 private:
  std::mutex mutex_;
  Status failure_;
  std::atomic<bool> abandoned_{false};
};

}  // namespace didr
