#include "native/core/cuda_device.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "native/core/pause.h"
#include "native/core/report_nonfinite.h"
#include "native/ops/didr/report_nonfinite.h"
#include "native/ops/nn/embedding.h"
#include "native/ops/nn/losses.h"
#include "native/ops/optim/gradient_norm.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

namespace didr {
namespace {

Status statusOf(const CudaFailure& failure) { return {failure.code, failure.message}; }

std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// What an op says that was given indices outside its operand: `staged` is their number.
Status outsideStatus(const void* staged, const char* op, const char* message) {
  if (*static_cast<const int32_t*>(staged) == 0) return {};
  return {Code::kRange, std::string(op) + ": " + message};
}

}  // namespace

const CudaLibrary* CudaLibrary::get(Status& status) {
  struct Opened {
    CudaLibrary library;
    Status status = library.open();
  };
  static const Opened* const opened = new Opened;
  status = opened->status;
  return status.ok() ? &opened->library : nullptr;
}

#if defined(_WIN32)
Status CudaLibrary::open() { return {Code::kBackend, "module missing: there is none for Windows"}; }
#else
Status CudaLibrary::open() {
  if (const char* path = std::getenv("DIDR_CUDA_MODULE")) {
    file_ = path;
  } else {
    Dl_info self;
    static const char anchor = 0;
    if (dladdr(&anchor, &self) == 0 || self.dli_fname == nullptr)
      return {Code::kBackend, "module missing: the addon's own folder is unknown"};
    const std::string addon = self.dli_fname;
    file_ = addon.substr(0, addon.find_last_of('/') + 1) + "didr_cuda.so";
  }
  void* handle = dlopen(file_.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    return {Code::kBackend,
            std::string("module missing: ") + (reason != nullptr ? reason : file_.c_str())};
  }
  const auto entry = reinterpret_cast<DidrCudaModule>(dlsym(handle, kDidrCudaModuleSymbol));
  module_ = entry == nullptr ? nullptr : entry(kCudaModuleVersion);
  if (module_ == nullptr)
    return {Code::kBackend, "module: " + file_ + " is not of this version of the package"};
  for (int op = 0; op < kOpCount; ++op)
    if (module_->opCount != kOpCount ||
        std::strcmp(module_->ops[op].name, nameOf(static_cast<Op>(op))) != 0)
      return {Code::kBackend, "module: " + file_ + " was built from other sources than the addon"};
  CudaFailure failure;
  if (!module_->probe(versions_, devices_, failure)) return statusOf(failure);
  return {};
}
#endif

std::unique_ptr<CudaDevice> CudaDevice::open(int index, Status& status) {
  const CudaLibrary* library = CudaLibrary::get(status);
  if (library == nullptr) return nullptr;
  CudaFailure failure;
  CudaDeviceInfo info;
  CudaQueue* queue = nullptr;
  if (index >= library->devices()) {
    status = {Code::kBackend, "device missing: there are " + std::to_string(library->devices()) +
                                  ", counted from 0"};
    return nullptr;
  }
  if (!library->module().deviceInfo(index, info, failure) ||
      !library->module().createQueue(index, queue, failure)) {
    status = statusOf(failure);
    return nullptr;
  }
  return std::unique_ptr<CudaDevice>(new CudaDevice(*library, index, queue, info));
}

CudaDevice::CudaDevice(const CudaLibrary& library, int index, CudaQueue* queue,
                       const CudaDeviceInfo& info)
    : library_(library),
      module_(library.module()),
      name_("cuda:" + std::to_string(index)),
      queue_(queue),
      info_(info) {
  const SignalsBlocked blocked;
  completionThread_ = std::thread([this] { completionLoop(); });
}

CudaDevice::~CudaDevice() {
  stop();
  for (CudaEvent* event : freeEvents_) module_.destroyEvent(event);
  for (const auto& [bytes, memory] : freeStaging_) module_.releaseHost(memory);
  module_.destroyQueue(queue_);
}

void CudaDevice::stop() {
  {
    const std::lock_guard lock(completionMutex_);
    if (std::exchange(stopping_, true)) return;
  }
  completionChanged_.notify_all();
  completionThread_.join();
}

DeviceInfo CudaDevice::info() const {
  return {
      {"name", name_},
      {"product", info_.name},
      {"computeCapability", std::to_string(info_.major) + "." + std::to_string(info_.minor)},
      {"multiprocessors", std::to_string(info_.multiprocessors)},
      {"memoryTotalBytes", std::to_string(info_.totalBytes)},
      {"driverRunsCuda", versionText(library_.versions().driver)},
      {"builtWithCuda", versionText(library_.versions().runtime)},
      {"matrixProducts", module_.matrixProducts(queue_)},
      {"module", library_.file()},
  };
}

Status CudaDevice::allocate(size_t bytes, Block& block) {
  // Every tensor has memory of its own, so that no two have the same address.
  const size_t capacity = std::max<size_t>(bytes, 1);
  CudaFailure failure;
  {
    const std::lock_guard lock(queueMutex_);
    if (!module_.allocate(queue_, capacity, block.data, failure)) return statusOf(failure);
  }
  block.capacity = capacity;
  block.requested = bytes;
  const std::lock_guard lock(countersMutex_);
  counters_.liveBytes += bytes;
  counters_.peakBytes = std::max(counters_.peakBytes, counters_.liveBytes);
  return {};
}

void CudaDevice::release(const Block& block) {
  CudaFailure ignored;  // a device that cannot free memory fails its next op as well
  {
    const std::lock_guard lock(queueMutex_);
    module_.release(queue_, block.data, ignored);
  }
  const std::lock_guard lock(countersMutex_);
  counters_.liveBytes -= block.requested;
}

MemoryCounters CudaDevice::counters() const {
  const std::lock_guard lock(countersMutex_);
  return counters_;
}

void CudaDevice::resetPeak() {
  const std::lock_guard lock(countersMutex_);
  counters_.peakBytes = counters_.liveBytes;
}

size_t CudaDevice::trim() {
  {
    CudaFailure ignored;
    const std::lock_guard lock(queueMutex_);
    module_.trim(queue_, ignored);
  }
  std::multimap<size_t, void*> staging;
  {
    const std::lock_guard lock(completionMutex_);
    staging.swap(freeStaging_);
  }
  // Pinned memory alone: CUDA's pool does not say how much it gave back.
  size_t bytes = 0;
  for (const auto& [size, memory] : staging) {
    module_.releaseHost(memory);
    bytes += size;
  }
  return bytes;
}

Status CudaDevice::takeStaging(size_t bytes, Completion& completion) {
  {
    const std::lock_guard lock(completionMutex_);
    const auto found = freeStaging_.lower_bound(bytes);
    if (found != freeStaging_.end() && found->first / 4 <= bytes) {
      completion.stagingBytes = found->first;
      completion.staging = found->second;
      freeStaging_.erase(found);
      return {};
    }
  }
  CudaFailure failure;
  completion.stagingBytes = std::bit_ceil(std::max<size_t>(bytes, 4096));
  if (!module_.allocateHost(completion.stagingBytes, completion.staging, failure))
    return statusOf(failure);
  return {};
}

Status CudaDevice::upload(const void* source, size_t bytes, Session& session, Block& block) {
  Status status = allocate(bytes, block);
  if (!status.ok() || bytes == 0) return status;
  Completion completion;
  completion.session = &session;
  status = takeStaging(bytes, completion);
  if (status.ok()) {
    std::memcpy(completion.staging, source, bytes);
    const std::lock_guard lock(queueMutex_);
    CudaFailure failure;
    if (!module_.upload(queue_, block.data, completion.staging, bytes, failure))
      status = statusOf(failure);
    complete(std::move(completion));
  }
  if (!status.ok()) release(block);
  return status;
}

// Called with queueMutex_ held.
Status CudaDevice::stageDownload(const void* source, size_t bytes, Completion& completion) {
  if (bytes == 0) return {};
  Status status = takeStaging(bytes, completion);
  if (!status.ok()) return status;
  CudaFailure failure;
  completion.bytes = bytes;
  if (!module_.download(queue_, completion.staging, source, bytes, failure))
    return statusOf(failure);
  return {};
}

// Called with queueMutex_ held.
Status CudaDevice::stageJudgement(const void* source, size_t bytes, const char* op,
                                  Status (*judge)(const void* staged, size_t bytes, const char* op),
                                  Session& session) {
  Completion completion;
  completion.session = &session;
  completion.judge = judge;
  completion.judged = op;
  Status status = stageDownload(source, bytes, completion);
  complete(std::move(completion));
  return status;
}

Status CudaDevice::submit(Op op, const void* arguments, size_t, Session& session) {
  const std::lock_guard lock(queueMutex_);
  CudaFailure failure;
  if (!module_.launch(queue_, static_cast<int>(op), arguments, failure)) return statusOf(failure);
  // Kernels cannot fail an op: these leave what is needed to tell.
  if (op == Op::reportNonFinite) {
    const auto& report = *static_cast<const ReportNonFiniteArgs*>(arguments);
    return stageJudgement(
        report.counts, static_cast<size_t>(report.batch) * sizeof(int32_t), report.name,
        [](const void* staged, size_t bytes, const char* name) {
          return nonFiniteStatus(name, static_cast<const int32_t*>(staged),
                                 static_cast<int64_t>(bytes / sizeof(int32_t)));
        },
        session);
  }
  if (op == Op::embedding)
    return stageJudgement(
        static_cast<const EmbeddingArgs*>(arguments)->outside, sizeof(int32_t), nameOf(op),
        [](const void* staged, size_t, const char* name) {
          return outsideStatus(staged, name, kIdOutside);
        },
        session);
  if (op == Op::crossEntropy)
    return stageJudgement(
        static_cast<const CrossEntropyArgs*>(arguments)->outside, sizeof(int32_t), nameOf(op),
        [](const void* staged, size_t, const char* name) {
          return outsideStatus(staged, name, kTargetOutside);
        },
        session);
  if (op == Op::gradientNorm) {
    const auto& norm = *static_cast<const GradientNormArgs*>(arguments);
    return stageJudgement(
        norm.fault, sizeof(GradientFault), nameOf(op),
        [](const void* staged, size_t, const char*) {
          const auto& fault = *static_cast<const GradientFault*>(staged);
          return fault.tensors == 0 ? Status()
                                    : gradientStatus(fault.tensors, fault.first, fault.count);
        },
        session);
  }
  return {};
}

void CudaDevice::download(const void* source, void* target, size_t bytes, Session& session,
                          Notify notify, void* context) {
  Completion completion;
  completion.session = &session;
  completion.target = target;
  completion.notify = notify;
  completion.context = context;
  const std::lock_guard lock(queueMutex_);
  if (Status status = stageDownload(source, bytes, completion); !status.ok()) {
    completion.bytes = 0;
    session.report(std::move(status));
  }
  complete(std::move(completion));
}

// Called with queueMutex_ held, so that completions are in the queue's order.
void CudaDevice::complete(Completion completion) {
  {
    const std::lock_guard lock(completionMutex_);
    if (!freeEvents_.empty()) {
      completion.event = freeEvents_.back();
      freeEvents_.pop_back();
    }
  }
  CudaFailure failure;
  if ((completion.event == nullptr && !module_.createEvent(queue_, completion.event, failure)) ||
      !module_.record(completion.event, queue_, failure)) {
    if (completion.session != nullptr) completion.session->report(statusOf(failure));
    completion.bytes = 0;
  }
  {
    const std::lock_guard lock(completionMutex_);
    completions_.push_back(std::move(completion));
    ++posted_;
  }
  completionChanged_.notify_all();
}

void CudaDevice::finish(Completion& completion) {
  CudaFailure failure;
  const bool reached = completion.event == nullptr || module_.wait(completion.event, failure);
  Session* session = completion.session;
  if (session == nullptr || session->abandoned()) return;
  if (!reached) {
    session->report(statusOf(failure));
  } else if (completion.bytes > 0 && completion.judge != nullptr) {
    Status status = completion.judge(completion.staging, completion.bytes, completion.judged);
    if (!status.ok()) session->report(std::move(status));
  } else if (completion.bytes > 0 && completion.target != nullptr) {
    std::memcpy(completion.target, completion.staging, completion.bytes);
  }
  if (completion.notify != nullptr) completion.notify(completion.context);
}

void CudaDevice::completionLoop() {
  std::unique_lock lock(completionMutex_);
  for (;;) {
    completionChanged_.wait(lock, [&] { return stopping_ || !completions_.empty(); });
    if (stopping_) return;
    Completion completion = std::move(completions_.front());
    completions_.pop_front();
    lock.unlock();
    finish(completion);
    completion.ended.reset();
    lock.lock();
    if (completion.event != nullptr) freeEvents_.push_back(completion.event);
    if (completion.staging != nullptr)
      freeStaging_.emplace(completion.stagingBytes, completion.staging);
    ++finished_;
    completionChanged_.notify_all();
  }
}

void CudaDevice::wait() {
  // A completion after everything submitted so far; those before it are told first.
  {
    const std::lock_guard lock(queueMutex_);
    complete({});
  }
  std::unique_lock lock(completionMutex_);
  const uint64_t last = posted_;
  completionChanged_.wait(lock, [&] { return stopping_ || finished_ >= last; });
}

void CudaDevice::abandon(std::unique_ptr<Session> session) {
  session->abandon();
  Completion completion;
  completion.ended = std::move(session);
  {
    const std::lock_guard lock(queueMutex_);
    complete(std::move(completion));
  }
  // The one being finished may be of the session; when the next is done, it is not any more.
  std::unique_lock lock(completionMutex_);
  const uint64_t running = std::min(finished_ + 1, posted_);
  completionChanged_.wait(lock, [&] { return stopping_ || finished_ >= running; });
}

}  // namespace didr
