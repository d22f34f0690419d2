// The caching allocator of host memory.
//
// Freeing is ordered by the stream, not by time: a block goes back to the pool when the caller lets go of it, even
// while queued ops still use it, because whatever op gets it next runs after them. The exception is memory that the
// calling thread itself is about to write (an upload): such a request takes only blocks whose last user has run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>

#include "native/core/status.h"

namespace didr {

inline constexpr size_t kAlignment = 64;

struct MemoryCounters {
  size_t liveBytes = 0;    // requested by tensors that are alive
  size_t pooledBytes = 0;  // held for reuse
  size_t peakBytes = 0;    // the most liveBytes has been
};

struct Block {
  void* data = nullptr;
  size_t capacity = 0;   // bytes owned, a size class
  size_t requested = 0;  // bytes asked for
};

class MemoryPool {
 public:
  // `limitBytes`: requests that would take live bytes past this are refused (0: no limit).
  explicit MemoryPool(size_t limitBytes);
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // A 64-byte aligned block of at least `bytes`. With `idleAt`, only memory whose last use the stream had
  // completed by that ticket.
  Status allocate(size_t bytes, const uint64_t* idleAt, Block& block);
  // `lastUse`: the ticket of the last op submitted so far, the latest that can touch the block.
  void release(const Block& block, uint64_t lastUse);
  // Gives pooled blocks that are idle at `completed` back to the system; returns the bytes freed.
  size_t trim(uint64_t completed);

  MemoryCounters counters() const;
  void resetPeak();

 private:
  struct Cached {
    void* data;
    uint64_t lastUse;
  };

  bool takeCached(size_t bytes, const uint64_t* idleAt, Block& block);

  mutable std::mutex mutex_;
  std::map<size_t, std::deque<Cached>> cached_;  // by capacity; newest at the back
  MemoryCounters counters_;
  const size_t limitBytes_;
};

// The memory this process may use: the smaller of the machine's and its control group's; 0 if unknown.
size_t processMemoryLimit();

}  // namespace didr
