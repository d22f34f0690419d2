#include "test/native/cuda/both_devices.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "test/native/cuda/execution.h"
#include "test/native/cuda/sanitizers.h"

extern "C" const didr::CudaModule* didr_cuda_module(int version);  // the one on the host

namespace didr::test {
namespace {

constexpr size_t kGuardBytes = 256;  // keeps the data's alignment
constexpr unsigned char kGuard = 0xa5;

[[noreturn]] void giveUp(const char* what, const char* why) {
  std::fprintf(stderr, "%s: %s\n", what, why);
  std::exit(1);
}

void require(bool done, const CudaFailure& failure) {
  if (!done) giveUp("the CUDA module", failure.message);
}

}  // namespace

Cuda& Cuda::get() {
  static Cuda* const cuda = new Cuda;  // lives as long as the process, like the driver
  return *cuda;
}

Cuda::Cuda() {
  CudaFailure failure = {};
  if (const char* const path = std::getenv("DIDR_CUDA_MODULE")) {
    onHost_ = false;
    void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) giveUp(path, dlerror());
    const auto entry = reinterpret_cast<DidrCudaModule>(dlsym(library, kDidrCudaModuleSymbol));
    if (entry == nullptr) giveUp(path, dlerror());
    module_ = entry(kCudaModuleVersion);
  } else {
    module_ = didr_cuda_module(kCudaModuleVersion);
  }
  if (module_ == nullptr) giveUp("the CUDA module", "another version of the interface");
  CudaVersions versions;
  int devices = 0;
  require(module_->probe(versions, devices, failure), failure);
  require(module_->createQueue(0, queue_, failure), failure);
  CudaDeviceInfo info;
  require(module_->deviceInfo(0, info, failure), failure);
  std::fprintf(stderr, "CUDA kernels run on: %s (%s)\n", info.name, module_->description);
}

void* Cuda::allocate(size_t bytes) {
  void* memory = nullptr;
  CudaFailure failure = {};
  require(module_->allocate(queue_, bytes, memory, failure), failure);
  return memory;
}

void Cuda::release(void* memory) {
  CudaFailure failure = {};
  require(module_->release(queue_, memory, failure), failure);
}

void Cuda::upload(void* device, const void* host, size_t bytes) {
  CudaFailure failure = {};
  require(module_->upload(queue_, device, host, bytes, failure), failure);
  require(module_->synchronize(queue_, failure), failure);
}

void Cuda::download(void* host, const void* device, size_t bytes) {
  CudaFailure failure = {};
  require(module_->download(queue_, host, device, bytes, failure), failure);
  require(module_->synchronize(queue_, failure), failure);
}

Storage::Storage(size_t bytes) : bytes_(bytes) {
  const std::vector<unsigned char> guards(bytes + 2 * kGuardBytes, kGuard);
  for (const Side side : kSides) {
    void*& block = blocks_[static_cast<int>(side)];
    if (side == Side::kCpu) {
      if (posix_memalign(&block, kGuardBytes, guards.size()) != 0) giveUp("memory", "none left");
      std::memcpy(block, guards.data(), guards.size());
    } else {
      block = Cuda::get().allocate(guards.size());
      Cuda::get().upload(block, guards.data(), guards.size());
    }
  }
}

Storage::~Storage() {
  for (const Side side : kSides) {
    void* const block = blocks_[static_cast<int>(side)];
    if (side == Side::kCpu)
      std::free(block);
    else
      Cuda::get().release(block);
  }
}

void* Storage::at(Side side) const {
  return static_cast<unsigned char*>(blocks_[static_cast<int>(side)]) + kGuardBytes;
}

void Storage::write(const void* source) {
  for (const Side side : kSides) {
    if (bytes_ == 0) continue;
    if (side == Side::kCpu)
      std::memcpy(at(side), source, bytes_);
    else
      Cuda::get().upload(at(side), source, bytes_);
    // Under ASan a touch of a guard is caught in the act.
    if (side == Side::kCpu || Cuda::get().onHost()) {
      cuda_on_host::poison(blocks_[static_cast<int>(side)], kGuardBytes);
      cuda_on_host::poison(static_cast<unsigned char*>(at(side)) + (bytes_ + 7) / 8 * 8,
                           kGuardBytes - 8);
    }
  }
}

void Storage::read(Side side, void* target) const {
  void* const block = blocks_[static_cast<int>(side)];
  std::vector<unsigned char> bytes(bytes_ + 2 * kGuardBytes);
  if (side == Side::kCpu || Cuda::get().onHost()) cuda_on_host::unpoison(block, bytes.size());
  if (side == Side::kCpu)
    std::memcpy(bytes.data(), block, bytes.size());
  else
    Cuda::get().download(bytes.data(), block, bytes.size());
  requireEach(kGuardBytes, [&](size_t i) {
    return bytes[i] == kGuard && bytes[kGuardBytes + bytes_ + i] == kGuard;
  });
  if (bytes_ > 0) std::memcpy(target, bytes.data() + kGuardBytes, bytes_);
}

void runOn(Side side, Op op, const void* arguments) {
  if (side == Side::kCpu) {
    static ThreadPool* const pool = new ThreadPool(1);  // its own tests are elsewhere
    CpuContext context = {*pool, nameOf(op), Status()};
    cpuOps().kernels[static_cast<int>(op)](arguments, context);
    REQUIRE(context.failure.ok());
    return;
  }
  Cuda& cuda = Cuda::get();
  cuda_on_host::setOrder(side == Side::kCuda ? cuda_on_host::Order::kForward
                                             : cuda_on_host::Order::kReverse);
  CudaFailure failure = {};
  const bool launched =
      cuda.module().launch(cuda.queue(), static_cast<int>(op), arguments, failure);
  REQUIRE_MESSAGE(launched, failure.message);
  const bool done = cuda.module().synchronize(cuda.queue(), failure);
  REQUIRE_MESSAGE(done, failure.message);
}

std::vector<float> someCoefficients(int64_t batch) {
  std::vector<float> coefficients;
  for (int64_t b = 0; b < batch; ++b) {
    const double t = 0.05 + 0.9 * static_cast<double>(b % 11) / 10.0;
    switch (b % 3) {
      case 0:
        coefficients.push_back(static_cast<float>(std::cos(1.5 * t)));
        coefficients.push_back(static_cast<float>(std::sin(1.5 * t)));
        break;
      case 1:
        coefficients.push_back(static_cast<float>(1.0 - t));
        coefficients.push_back(static_cast<float>(t));
        break;
      default:
        coefficients.push_back(1.0f);
        coefficients.push_back(static_cast<float>(80.0 * t));
    }
  }
  return coefficients;
}

}  // namespace didr::test
