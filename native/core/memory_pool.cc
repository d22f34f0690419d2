#include "native/core/memory_pool.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <string>

#if defined(_WIN32)
#define NOMINMAX
#include <malloc.h>
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace didr {
namespace {

// From here on blocks are mapped directly, aligned for huge pages.
constexpr size_t kMapFrom = size_t{4} << 20;
constexpr size_t kHugePage = size_t{2} << 20;
// Requests of this size on are checked against the memory that is free right now: systems that overcommit hand out
// addresses gladly and kill the process later.
constexpr size_t kCheckFrom = size_t{64} << 20;

size_t roundUp(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

// Size classes: multiples of 64 bytes up to 1 KiB, then eight per power of two (at most 12.5% larger than asked).
size_t sizeClass(size_t bytes) {
  bytes = roundUp(std::max<size_t>(bytes, 1), kAlignment);
  if (bytes > 1024) bytes = roundUp(bytes, std::bit_floor(bytes) / 8);
  return bytes >= kMapFrom ? roundUp(bytes, kHugePage) : bytes;
}

#if defined(_WIN32)
void* systemAllocate(size_t bytes) { return _aligned_malloc(bytes, kAlignment); }
void systemFree(void* data, size_t) { _aligned_free(data); }
size_t availableBytes() {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  return GlobalMemoryStatusEx(&status) ? static_cast<size_t>(status.ullAvailPhys) : 0;
}
#else
void* systemAllocate(size_t bytes) {
  if (bytes < kMapFrom) return std::aligned_alloc(kAlignment, bytes);
  // Map one huge page more than asked, then cut the ends off.
  const size_t mapped = bytes + kHugePage;
  void* base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(base);
  const uintptr_t aligned = roundUp(start, kHugePage);
  if (aligned > start) munmap(base, aligned - start);
  if (const size_t tail = start + mapped - (aligned + bytes); tail > 0)
    munmap(reinterpret_cast<void*>(aligned + bytes), tail);
  void* data = reinterpret_cast<void*>(aligned);
#if defined(MADV_HUGEPAGE)
  madvise(data, bytes, MADV_HUGEPAGE);
#endif
  return data;
}

void systemFree(void* data, size_t bytes) {
  if (bytes < kMapFrom)
    std::free(data);
  else
    munmap(data, bytes);
}

// The number after `field` in a file of "name value" lines, or the file's only number; 0 if there is none.
size_t readNumber(const char* path, const char* field) {
  FILE* file = std::fopen(path, "r");
  if (file == nullptr) return 0;
  char line[256];
  unsigned long long value = 0;
  const std::string format = std::string(field) + "%llu";
  while (value == 0 && std::fgets(line, sizeof line, file) != nullptr)
    if (std::sscanf(line, format.c_str(), &value) != 1) value = 0;
  std::fclose(file);
  return static_cast<size_t>(value);
}

size_t availableBytes() { return readNumber("/proc/meminfo", "MemAvailable: ") * 1024; }
#endif

std::string mebibytes(size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

}  // namespace

size_t processMemoryLimit() {
#if defined(_WIN32)
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  return GlobalMemoryStatusEx(&status) ? static_cast<size_t>(status.ullTotalPhys) : 0;
#else
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long pageBytes = sysconf(_SC_PAGESIZE);
  size_t limit =
      pages > 0 && pageBytes > 0 ? static_cast<size_t>(pages) * static_cast<size_t>(pageBytes) : 0;
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"})
    if (const size_t group = readNumber(path, ""); group > 0 && (limit == 0 || group < limit))
      limit = group;
  return limit;
#endif
}

MemoryPool::MemoryPool(size_t limitBytes) : limitBytes_(limitBytes) {}

MemoryPool::~MemoryPool() { trim(UINT64_MAX); }

bool MemoryPool::takeCached(size_t bytes, const uint64_t* idleAt, Block& block) {
  const size_t wanted = sizeClass(bytes);
  // A class or two larger is better than a trip to the system.
  const size_t largest = wanted + wanted / 4;
  for (auto it = cached_.lower_bound(wanted); it != cached_.end() && it->first <= largest; ++it) {
    auto& blocks = it->second;
    if (blocks.empty()) continue;
    if (idleAt != nullptr) {
      if (blocks.front().lastUse > *idleAt) continue;
      block.data = blocks.front().data;
      blocks.pop_front();
    } else {
      block.data = blocks.back().data;
      blocks.pop_back();
    }
    block.capacity = it->first;
    counters_.pooledBytes -= block.capacity;
    return true;
  }
  return false;
}

Status MemoryPool::allocate(size_t bytes, const uint64_t* idleAt, Block& block) {
  block.requested = bytes;
  std::unique_lock lock(mutex_);
  if (limitBytes_ != 0 && (bytes > limitBytes_ || counters_.liveBytes > limitBytes_ - bytes))
    return {Code::kOutOfMemory, mebibytes(bytes) + " asked for while " +
                                    mebibytes(counters_.liveBytes) +
                                    " are in use; this process may have " + mebibytes(limitBytes_)};
  if (!takeCached(bytes, idleAt, block)) {
    const size_t capacity = sizeClass(bytes);
    if (bytes >= kCheckFrom) {
      const size_t available = availableBytes();
      if (available != 0 && capacity > available)
        return {Code::kOutOfMemory,
                mebibytes(bytes) + " asked for, " + mebibytes(available) + " available"};
    }
    block.data = systemAllocate(capacity);
    if (block.data == nullptr)
      return {Code::kOutOfMemory, "the system refused " + mebibytes(bytes)};
    block.capacity = capacity;
  }
  counters_.liveBytes += bytes;
  counters_.peakBytes = std::max(counters_.peakBytes, counters_.liveBytes);
  return {};
}

void MemoryPool::release(const Block& block, uint64_t lastUse) {
  const std::lock_guard lock(mutex_);
  cached_[block.capacity].push_back({block.data, lastUse});
  counters_.liveBytes -= block.requested;
  counters_.pooledBytes += block.capacity;
}

size_t MemoryPool::trim(uint64_t completed) {
  const std::lock_guard lock(mutex_);
  size_t freed = 0;
  for (auto& [capacity, blocks] : cached_) {
    // Oldest first: once one is still in use, so are those behind it.
    while (!blocks.empty() && blocks.front().lastUse <= completed) {
      systemFree(blocks.front().data, capacity);
      blocks.pop_front();
      freed += capacity;
    }
  }
  std::erase_if(cached_, [](const auto& entry) { return entry.second.empty(); });
  counters_.pooledBytes -= freed;
  return freed;
}

MemoryCounters MemoryPool::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

void MemoryPool::resetPeak() {
  const std::lock_guard lock(mutex_);
  counters_.peakBytes = counters_.liveBytes;
}

}  // namespace didr
