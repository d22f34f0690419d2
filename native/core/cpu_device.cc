#include "native/core/cpu_device.h"

#include <cstring>

#include "native/core/blas.h"

namespace didr {
namespace {

struct DownloadArgs {
  const void* source;
  void* target;
  size_t bytes;
  Notify notify;
  void* context;
};

void runDownload(const void* arguments, CpuContext&) {
  const auto& download = *static_cast<const DownloadArgs*>(arguments);
  if (download.bytes > 0) std::memcpy(download.target, download.source, download.bytes);
  download.notify(download.context);
}

}  // namespace

CpuDevice::CpuDevice(const OpTable& ops, int threads)
    : ops_(ops), threads_(threads), memory_(processMemoryLimit()), stream_(threads_) {}

DeviceInfo CpuDevice::info() const {
  return {
      {"name", name_},
      {"instructionLevel", ops_.level},
      {"threads", std::to_string(threads_.threads())},
      {"blas", blasName()},
      {"memoryLimitBytes", std::to_string(processMemoryLimit())},
  };
}

Status CpuDevice::allocateFrom(size_t bytes, const uint64_t* idleAt, Block& block) {
  Status status = memory_.allocate(bytes, idleAt, block);
  if (status.ok()) return status;
  // What the pool keeps may be what is missing. Queued ops still use some of it, so they have to finish first.
  stream_.wait(stream_.submitted());
  if (memory_.trim(stream_.completed()) == 0) return status;
  return memory_.allocate(bytes, idleAt, block);
}

Status CpuDevice::allocate(size_t bytes, Block& block) {
  return allocateFrom(bytes, nullptr, block);
}

Status CpuDevice::upload(const void* source, size_t bytes, Session&, Block& block) {
  const uint64_t completed = stream_.completed();
  Status status = allocateFrom(bytes, &completed, block);
  if (status.ok() && bytes > 0) std::memcpy(block.data, source, bytes);
  return status;
}

void CpuDevice::release(const Block& block) { memory_.release(block, stream_.submitted()); }

Status CpuDevice::submit(Op op, const void* arguments, size_t argumentBytes, Session& session) {
  stream_.submit(nameOf(op), ops_.kernels[static_cast<int>(op)], arguments, argumentBytes, session);
  return {};
}

void CpuDevice::download(const void* source, void* target, size_t bytes, Session& session,
                         Notify notify, void* context) {
  const DownloadArgs arguments{source, target, bytes, notify, context};
  stream_.submit("download", runDownload, &arguments, sizeof arguments, session);
}

void CpuDevice::wait() { stream_.wait(stream_.submitted()); }

void CpuDevice::abandon(std::unique_ptr<Session> session) { stream_.abandon(std::move(session)); }

}  // namespace didr
