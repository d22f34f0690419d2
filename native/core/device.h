// A device: memory and one in-order queue. Every call returns at once unless its name says wait.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "native/core/memory_pool.h"
#include "native/core/session.h"
#include "native/core/status.h"
#include "native/ops/op_table.h"

namespace didr {

// What `device(...).info` and `npx didr inspect` show: (name, value) pairs in display order.
using DeviceInfo = std::vector<std::pair<std::string, std::string>>;

// Called on a thread of the device when the work before it is done.
using Notify = void (*)(void* context);

class Device {
 public:
  virtual ~Device() = default;

  virtual const std::string& name() const = 0;  // "cpu", "cuda:0"
  virtual DeviceInfo info() const = 0;

  // Memory for an op's output.
  virtual Status allocate(size_t bytes, Block& block) = 0;
  // Memory that holds a copy of `bytes` bytes at `source`, which may be reused when the call returns.
  virtual Status upload(const void* source, size_t bytes, Session& session, Block& block) = 0;
  virtual void release(const Block& block) = 0;
  virtual MemoryCounters counters() const = 0;
  virtual void resetPeak() = 0;
  virtual size_t trim() = 0;

  // Enqueues the op. `arguments` is copied.
  virtual Status submit(Op op, const void* arguments, size_t argumentBytes, Session& session) = 0;
  // Enqueues a copy to host memory, which must stay valid until `notify` is called with `context`.
  virtual void download(const void* source, void* target, size_t bytes, Session& session,
                        Notify notify, void* context) = 0;
  // Blocks the caller until everything submitted so far is done.
  virtual void wait() = 0;
  // Ends a session: its queued work is dropped, and none of it runs after the call.
  virtual void abandon(std::unique_ptr<Session> session) = 0;

  template <class Arguments>
  Status submit(Op op, const Arguments& arguments, Session& session) {
    return submit(op, &arguments, sizeof arguments, session);
  }
};

}  // namespace didr
