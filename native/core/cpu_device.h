// The CPU as a device: the caching pool, the in-order queue and the op table of this machine's instruction level.
#pragma once

#include "native/core/cpu_stream.h"
#include "native/core/device.h"

namespace didr {

class CpuDevice final : public Device {
 public:
  CpuDevice(const OpTable& ops, int threads);

  const std::string& name() const override { return name_; }
  DeviceInfo info() const override;

  Status allocate(size_t bytes, Block& block) override;
  Status upload(const void* source, size_t bytes, Session& session, Block& block) override;
  void release(const Block& block) override;
  MemoryCounters counters() const override { return memory_.counters(); }
  void resetPeak() override { memory_.resetPeak(); }
  size_t trim() override { return memory_.trim(stream_.completed()); }

  Status submit(Op op, const void* arguments, size_t argumentBytes, Session& session) override;
  using Device::submit;
  void download(const void* source, void* target, size_t bytes, Session& session, Notify notify,
                void* context) override;
  void wait() override;
  void abandon(std::unique_ptr<Session> session) override;

  // For the end of the process; see CpuStream::stop.
  void stop() { stream_.stop(); }

 private:
  Status allocateFrom(size_t bytes, const uint64_t* idleAt, Block& block);

  const std::string name_ = "cpu";
  const OpTable& ops_;
  ThreadPool threads_;
  MemoryPool memory_;
  CpuStream stream_;
};

}  // namespace didr
