// A CUDA device through didr_cuda.so (native/cuda/module.h), which is opened when a device is first asked for.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "native/core/device.h"
#include "native/cuda/module.h"

namespace didr {

// The module, opened once per process. Looked for at DIDR_CUDA_MODULE, else beside the addon.
class CudaLibrary {
 public:
  // Null with the reason in `status` when the module, the driver, a device or a fitting version is missing.
  static const CudaLibrary* get(Status& status);

  const CudaModule& module() const { return *module_; }
  const std::string& file() const { return file_; }
  const CudaVersions& versions() const { return versions_; }
  int devices() const { return devices_; }

 private:
  Status open();

  std::string file_;
  const CudaModule* module_ = nullptr;
  CudaVersions versions_{};
  int devices_ = 0;
};

class CudaDevice final : public Device {
 public:
  static std::unique_ptr<CudaDevice> open(int index, Status& status);
  ~CudaDevice() override;

  const std::string& name() const override { return name_; }
  DeviceInfo info() const override;

  Status allocate(size_t bytes, Block& block) override;
  Status upload(const void* source, size_t bytes, Session& session, Block& block) override;
  void release(const Block& block) override;
  MemoryCounters counters() const override;
  void resetPeak() override;
  size_t trim() override;

  Status submit(Op op, const void* arguments, size_t argumentBytes, Session& session) override;
  using Device::submit;
  void download(const void* source, void* target, size_t bytes, Session& session, Notify notify,
                void* context) override;
  void wait() override;
  void abandon(std::unique_ptr<Session> session) override;

  // Ends the thread that waits for the device. For the end of the process.
  void stop();

 private:
  // What is to happen on the host when the queue has come as far as `event`.
  struct Completion {
    CudaEvent* event = nullptr;
    void* staging = nullptr;  // pinned memory to give back, or null
    size_t stagingBytes = 0;
    void* target = nullptr;  // where staged bytes go, or null
    size_t bytes = 0;
    // Makes of the staged bytes whether the op of that name failed, or is null.
    Status (*judge)(const void* staged, size_t bytes, const char* op) = nullptr;
    const char* judged = nullptr;
    Session* session = nullptr;
    Notify notify = nullptr;
    void* context = nullptr;
    std::unique_ptr<Session> ended;  // deleted with the completion
  };

  CudaDevice(const CudaLibrary& library, int index, CudaQueue* queue, const CudaDeviceInfo& info);

  Status takeStaging(size_t bytes, Completion& completion);
  Status stageDownload(const void* source, size_t bytes, Completion& completion);
  // Reads back what a kernel left for `judge`, whose verdict the session gets.
  Status stageJudgement(const void* source, size_t bytes, const char* op,
                        Status (*judge)(const void* staged, size_t bytes, const char* op),
                        Session& session);
  void complete(Completion completion);
  void finish(Completion& completion);
  void completionLoop();

  const CudaLibrary& library_;
  const CudaModule& module_;
  const std::string name_;
  CudaQueue* const queue_;
  const CudaDeviceInfo info_;

  std::mutex queueMutex_;  // one call on the queue at a time, and completions in its order

  mutable std::mutex countersMutex_;
  MemoryCounters counters_;

  std::mutex completionMutex_;  // guards what follows
  std::condition_variable completionChanged_;
  std::deque<Completion> completions_;
  std::multimap<size_t, void*> freeStaging_;
  std::vector<CudaEvent*> freeEvents_;
  uint64_t posted_ = 0;
  uint64_t finished_ = 0;
  bool stopping_ = false;
  std::thread completionThread_;
};

}  // namespace didr
