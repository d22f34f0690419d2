#include "test/native/cuda/execution.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>

#include "test/native/cuda/fiber.h"
#include "test/native/cuda/sanitizers.h"

namespace didr::cuda_on_host {
namespace {

constexpr size_t kGap = 64;  // of poisoned bytes around every shared array
constexpr int kMaxSharedArrays = 32;
constexpr size_t kArenaAlignment = 128;
constexpr size_t kArenaBytes = kMaxSharedBytes + (kMaxSharedArrays + 1) * 2 * kGap;
constexpr unsigned kMaxWarps = kMaxThreadsPerBlock / kWarpSize;

// Where a thread waits; plain data, for it is written on fibers.
struct Site {
  const char* operation = nullptr;
  const char* file = nullptr;
  unsigned line = 0;

  bool operator==(const Site& other) const {
    return operation == other.operation && file == other.file && line == other.line;
  }
};

struct Block;
struct Warp;

struct Thread {
  Extent index;
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned lane = 0;
  bool done = false;
  Site waitsAt;
  Fiber* fiber = nullptr;
  void* raceContext = nullptr;
};

// Threads that meet: a block in __syncthreads, a warp in its warp-wide operations.
struct Meeting {
  unsigned members = 0;
  unsigned arrived = 0;
  unsigned generation = 0;
  Site site;
  // Two of each, used in turn: a thread that is one meeting ahead must not disturb (or order itself before) those
  // that have yet to leave the last one.
  char order[2];
};

struct Warp {
  Meeting meeting;
  unsigned firstThread = 0;
  uint64_t values[2][kWarpSize];
};

struct SharedArray {
  const void* key;
  void* data;
  size_t bytes;
};

struct Block {
  Thread threads[kMaxThreadsPerBlock];
  Warp warps[kMaxWarps];
  Meeting meeting;
  unsigned threadCount = 0;
  unsigned doneCount = 0;

  uint16_t ready[kMaxThreadsPerBlock];  // a ring
  unsigned readyHead = 0;
  unsigned readyCount = 0;

  SharedArray arrays[kMaxSharedArrays];
  int arrayCount = 0;
  size_t arenaUsed = 0;
  size_t sharedBytes = 0;
  void* dynamicShared = nullptr;
  alignas(kArenaAlignment) unsigned char arena[kArenaBytes];

  // The order from one use of this structure to the next, where block n + 2 takes the memory of block n.
  unsigned uses = 0;
  char endOfUse[2];

  enum class Fault { kNone, kDivergence, kPartialMask, kSharedMemory } fault = Fault::kNone;
  Site faultSite;
  Site otherSite;
};

// One launch at a time; what belongs to it lives here.
struct Launch {
  void (*body)(const void*) = nullptr;
  const void* closure = nullptr;
  void* raceContext = nullptr;  // of the launching thread
  char start = 0, end = 0;
};

std::mutex launchMutex;
Launch launch;
Order order = Order::kForward;
thread_local Thread* running = nullptr;

// Two blocks in turn, so that under TSan neighbouring blocks are unordered.
Block& blockInTurn(uint64_t turn) {
  static const std::unique_ptr<Block> blocks[2] = {std::make_unique<Block>(),
                                                   std::make_unique<Block>()};
  return *blocks[raceDetection() ? turn % 2 : 0];
}

// Fibers whose threads are done. Under TSan every thread keeps its own, since two of them on one stack would race.
struct IdleFibers {
  Fiber* fibers[kMaxThreadsPerBlock];
  unsigned count = 0;
} idleFibers;

void fill(void* data, size_t bytes) {
  auto* const words = static_cast<unsigned char*>(data);
  for (size_t i = 0; i < bytes; ++i) {
    words[i] = 0xff;
    asm volatile(
        "" ::
            : "memory");  // stays a loop: TSan would take a memset for a write of this thread
  }
}

void makeReady(Block& block, unsigned thread) {
  block.ready[(block.readyHead + block.readyCount) % kMaxThreadsPerBlock] =
      static_cast<uint16_t>(thread);
  ++block.readyCount;
}

// All of [first, first + count) but `except`, in the launch's order.
void makeOthersReady(Block& block, unsigned first, unsigned count, unsigned except) {
  for (unsigned i = 0; i < count; ++i) {
    const unsigned thread = first + (order == Order::kForward ? i : count - 1 - i);
    if (thread != except) makeReady(block, thread);
  }
}

void giveWay() {
  releaseOrder(&launch.end);  // in case the launch fails and this thread never gets to its end
  switchRaceContext(launch.raceContext);
  Fiber::suspend();
}

[[noreturn]] void fail(Block& block, Block::Fault fault, const Site& site, const Site& other = {}) {
  block.fault = fault;
  block.faultSite = site;
  block.otherSite = other;
  for (;;) giveWay();
}

// Returns when all members have arrived.
void meet(Thread& thread, Meeting& meeting, unsigned firstThread, const Site& site,
          bool ordersMemory) {
  Block& block = *thread.block;
  if (meeting.arrived == 0)
    meeting.site = site;
  else if (!(meeting.site == site))
    fail(block, Block::Fault::kDivergence, site, meeting.site);
  char* const memoryOrder = &meeting.order[meeting.generation % 2];
  if (ordersMemory) releaseOrder(memoryOrder);
  if (++meeting.arrived == meeting.members) {
    meeting.arrived = 0;
    ++meeting.generation;
    makeOthersReady(block, firstThread, meeting.members,
                    static_cast<unsigned>(&thread - block.threads));
  } else {
    thread.waitsAt = site;
    giveWay();
  }
  if (ordersMemory) acquireOrder(memoryOrder);
}

void runThread(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  Block& block = *thread.block;
  acquireOrder(&launch.start);
  acquireOrder(&block.endOfUse[(block.uses + 1) % 2]);
  launch.body(launch.closure);
  releaseOrder(&block.endOfUse[block.uses % 2]);
  releaseOrder(&launch.end);
  thread.done = true;
  switchRaceContext(launch.raceContext);
}

void* takeShared(Block& block, size_t bytes, size_t alignment) {
  block.sharedBytes += bytes;
  const size_t begin = (block.arenaUsed + kGap + alignment - 1) / alignment * alignment;
  if (block.sharedBytes > kMaxSharedBytes || alignment > kArenaAlignment ||
      begin + bytes + kGap > kArenaBytes)
    return nullptr;
  block.arenaUsed = begin + bytes;
  void* const data = block.arena + begin;
  fill(data, bytes);
  unpoison(data, bytes);
  return data;
}

void prepare(Block& block, const Grid& grid, uint64_t blockNumber) {
  ++block.uses;
  block.threadCount = static_cast<unsigned>(grid.threads.volume());
  block.doneCount = 0;
  block.readyHead = block.readyCount = 0;
  block.fault = Block::Fault::kNone;
  block.arrayCount = 0;
  block.arenaUsed = block.sharedBytes = 0;
  poison(block.arena, kArenaBytes);
  block.dynamicShared = takeShared(block, grid.dynamicSharedBytes, 16);
  block.meeting.members = block.threadCount;
  block.meeting.arrived = 0;

  blockIdx = {static_cast<unsigned>(blockNumber % grid.blocks.x),
              static_cast<unsigned>(blockNumber / grid.blocks.x % grid.blocks.y),
              static_cast<unsigned>(blockNumber / grid.blocks.x / grid.blocks.y)};
  for (unsigned i = 0; i < block.threadCount; ++i) {
    Thread& thread = block.threads[i];
    thread.index = {i % grid.threads.x, i / grid.threads.x % grid.threads.y,
                    i / grid.threads.x / grid.threads.y};
    thread.block = &block;
    thread.warp = &block.warps[i / kWarpSize];
    thread.lane = i % kWarpSize;
    thread.done = false;
    if (raceDetection() && thread.raceContext == nullptr)
      thread.raceContext = __tsan_create_fiber(0);
    if (thread.lane == 0) {
      const unsigned left = block.threadCount - i;
      thread.warp->firstThread = i;
      thread.warp->meeting.members = left < kWarpSize ? left : kWarpSize;
      thread.warp->meeting.arrived = 0;
    }
  }
  makeOthersReady(block, 0, block.threadCount, kMaxThreadsPerBlock);
}

Fiber* takeFiber(Thread& thread) {
  if (thread.fiber != nullptr) return thread.fiber;
  return idleFibers.count > 0 ? idleFibers.fibers[--idleFibers.count] : new Fiber;
}

// True when every thread ran to its end.
bool runBlock(Block& block) {
  while (block.readyCount > 0 && block.fault == Block::Fault::kNone) {
    Thread& thread = block.threads[block.ready[block.readyHead]];
    block.readyHead = (block.readyHead + 1) % kMaxThreadsPerBlock;
    --block.readyCount;
    thread.fiber = takeFiber(thread);
    running = &thread;
    threadIdx = thread.index;
    switchRaceContext(thread.raceContext);
    thread.fiber->resume(runThread, &thread);
    if (!thread.done) continue;
    ++block.doneCount;
    if (!raceDetection()) {
      idleFibers.fibers[idleFibers.count++] = thread.fiber;
      thread.fiber = nullptr;
    }
  }
  running = nullptr;
  return block.doneCount == block.threadCount;
}

// After a failure: threads that wait will never go on.
void discard(Block& block) {
  for (unsigned i = 0; i < block.threadCount; ++i) {
    Thread& thread = block.threads[i];
    if (thread.done || thread.fiber == nullptr) continue;
    thread.fiber->reset();
    if (raceDetection()) {
      __tsan_destroy_fiber(thread.raceContext);
      thread.raceContext = nullptr;
    } else {
      idleFibers.fibers[idleFibers.count++] = thread.fiber;
      thread.fiber = nullptr;
    }
  }
}

std::string text(const Extent& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
         std::to_string(index.z) + ")";
}

std::string text(const Site& site) {
  return std::string(site.operation) + " at " + site.file + ":" + std::to_string(site.line);
}

std::string describe(const Block& block) {
  const std::string where = "block " + text(blockIdx) + ": ";
  switch (block.fault) {
    case Block::Fault::kDivergence:
      return "divergent barrier in " + where + "threads wait in " + text(block.faultSite) +
             " and in " + text(block.otherSite);
    case Block::Fault::kPartialMask:
      return "partial mask in " + where + text(block.faultSite) +
             " must name every thread of its warp";
    case Block::Fault::kSharedMemory:
      return "shared memory of " + where + "more than " + std::to_string(kMaxSharedBytes) +
             " bytes, or too many arrays";
    case Block::Fault::kNone:
      break;
  }
  unsigned waiting = 0;
  const Site* site = nullptr;
  for (unsigned i = 0; i < block.threadCount; ++i) {
    if (block.threads[i].done) continue;
    if (site == nullptr) site = &block.threads[i].waitsAt;
    waiting += *site == block.threads[i].waitsAt ? 1 : 0;
  }
  return "divergent barrier in " + where + std::to_string(waiting) + " of " +
         std::to_string(block.threadCount) + " threads wait in " + text(*site) + ", " +
         std::to_string(block.doneCount) + " have returned";
}

std::string refuse(const Grid& grid) {
  const Extent& blocks = grid.blocks;
  const Extent& threads = grid.threads;
  if (threads.x > kMaxThreadsPerBlock || threads.y > kMaxThreadsPerBlock || threads.z > 64 ||
      threads.volume() == 0 || threads.volume() > kMaxThreadsPerBlock)
    return "block of " + text(threads) + " threads";
  if (blocks.x > 0x7fffffffu || blocks.y > 65535 || blocks.z > 65535 || blocks.volume() == 0)
    return "grid of " + text(blocks) + " blocks";
  if (grid.dynamicSharedBytes > kMaxSharedBytes)
    return std::to_string(grid.dynamicSharedBytes) + " bytes of dynamic shared memory";
  return {};
}

}  // namespace

constinit thread_local Extent threadIdx, blockIdx, blockDim, gridDim;

unsigned lane() { return running->lane; }

void setOrder(Order wanted) {
  const std::lock_guard lock(launchMutex);
  order = wanted;
}

Failure execute(const Grid& grid, void (*body)(const void* closure), const void* closure,
                std::string& diagnostic) {
  diagnostic = refuse(grid);
  if (!diagnostic.empty()) return Failure::kConfiguration;

  const std::lock_guard lock(launchMutex);
  launch.body = body;
  launch.closure = closure;
  if (raceDetection()) launch.raceContext = __tsan_get_current_fiber();
  releaseOrder(&launch.start);
  blockDim = grid.threads;
  gridDim = grid.blocks;
  const uint64_t count = grid.blocks.volume();
  Failure failure = Failure::kNone;
  for (uint64_t i = 0; i < count && failure == Failure::kNone; ++i) {
    Block& block = blockInTurn(i);
    prepare(block, grid, order == Order::kForward ? i : count - 1 - i);
    if (runBlock(block)) continue;
    failure = Failure::kExecution;
    diagnostic = describe(block);
    discard(block);
  }
  acquireOrder(&launch.end);
  return failure;
}

void syncBlock(std::source_location where) {
  Thread& thread = *running;
  meet(thread, thread.block->meeting, 0, {"__syncthreads", where.file_name(), where.line()}, true);
}

const uint64_t* gatherWarp(unsigned mask, uint64_t value, bool ordersMemory,
                           std::source_location where) {
  Thread& thread = *running;
  Warp& warp = *thread.warp;
  const Site site = {ordersMemory ? "__syncwarp" : "a warp-wide operation", where.file_name(),
                     where.line()};
  const unsigned everyone =
      warp.meeting.members == kWarpSize ? ~0u : (1u << warp.meeting.members) - 1;
  if ((mask & everyone) != everyone) fail(*thread.block, Block::Fault::kPartialMask, site);
  uint64_t* const values = warp.values[warp.meeting.generation % 2];
  values[thread.lane] = value;
  meet(thread, warp.meeting, warp.firstThread, site, ordersMemory);
  return values;
}

void* sharedArray(const void* key, size_t bytes, size_t alignment) {
  Block& block = *running->block;
  for (int i = 0; i < block.arrayCount; ++i)
    if (block.arrays[i].key == key) return block.arrays[i].data;
  void* const data =
      block.arrayCount < kMaxSharedArrays ? takeShared(block, bytes, alignment) : nullptr;
  if (data == nullptr) fail(block, Block::Fault::kSharedMemory, {});
  block.arrays[block.arrayCount++] = {key, data, bytes};
  return data;
}

void* dynamicShared() { return running->block->dynamicShared; }

}  // namespace didr::cuda_on_host
