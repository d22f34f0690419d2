// The module's interface, on the module that runs on the host.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>

#include "test/native/cuda/both_devices.h"

extern "C" const didr::CudaModule* didr_cuda_module(int version);

namespace didr::test {
namespace {

TEST_CASE("the module gives its table for its own version alone") {
  REQUIRE(didr_cuda_module(kCudaModuleVersion) != nullptr);
  CHECK(didr_cuda_module(kCudaModuleVersion)->version == kCudaModuleVersion);
  CHECK(didr_cuda_module(kCudaModuleVersion + 1) == nullptr);
}

TEST_CASE("the module's ops are the addon's") {
  const CudaModule& module = Cuda::get().module();
  REQUIRE(module.opCount == kOpCount);
  for (int i = 0; i < kOpCount; ++i)
    CHECK(std::string(module.ops[i].name) == nameOf(static_cast<Op>(i)));
  CHECK(module.ops[static_cast<int>(Op::integralKL)].argumentBytes == sizeof(IntegralKLArgs));
  CHECK(module.ops[static_cast<int>(Op::integralKL)].present);
}

TEST_CASE("what is not there is refused by name") {
  const CudaModule& module = Cuda::get().module();
  CudaFailure failure = {};
  CudaDeviceInfo info;
  CHECK_FALSE(module.deviceInfo(1000, info, failure));
  CHECK(failure.code == Code::kDevice);
  CHECK(std::string(failure.message).find("cuda:1000") != std::string::npos);
  CudaQueue* queue = nullptr;
  CHECK_FALSE(module.createQueue(1000, queue, failure));
  CHECK(queue == nullptr);

  unsigned char arguments[kMaxArgumentBytes] = {};
  CHECK_FALSE(module.launch(Cuda::get().queue(), kOpCount, arguments, failure));
  CHECK(failure.code == Code::kBackend);
  for (int i = 0; i < kOpCount; ++i) {
    if (module.ops[i].present) continue;
    CHECK_FALSE(module.launch(Cuda::get().queue(), i, arguments, failure));
    CHECK(std::string(failure.message).find(module.ops[i].name) == 0);
  }
}

TEST_CASE("memory that the device does not have is ERR_OUT_OF_MEMORY") {
  CudaFailure failure = {};
  void* memory = nullptr;
  CHECK_FALSE(Cuda::get().module().allocate(Cuda::get().queue(), SIZE_MAX / 4, memory, failure));
  CHECK(failure.code == Code::kOutOfMemory);
  CHECK(memory == nullptr);
}

TEST_CASE("copies, events and callbacks are in order on their queue") {
  const CudaModule& module = Cuda::get().module();
  CudaFailure failure = {};
  CudaQueue* queue = nullptr;
  REQUIRE(module.createQueue(0, queue, failure));
  constexpr int64_t kCount = 100000;
  constexpr size_t kBytes = kCount * sizeof(float);
  void *device = nullptr, *host = nullptr;
  REQUIRE(module.allocate(queue, kBytes, device, failure));
  REQUIRE(module.allocateHost(kBytes, host, failure));
  CHECK(reinterpret_cast<uintptr_t>(device) % 256 == 0);
  std::memset(host, 0, kBytes);

  std::atomic<bool> called{false};
  REQUIRE(module.upload(queue, device, host, kBytes, failure));
  const NormalArgs arguments = {device, kCount, 1, 2, 5.0f, 0.0f, DType::kFloat32};
  REQUIRE(module.launch(queue, static_cast<int>(Op::normal), &arguments, failure));
  REQUIRE(module.download(queue, host, device, kBytes, failure));
  REQUIRE(module.notify(
      queue, [](void* flag) { static_cast<std::atomic<bool>*>(flag)->store(true); }, &called,
      failure));
  CudaEvent* event = nullptr;
  REQUIRE(module.createEvent(queue, event, failure));
  REQUIRE(module.record(event, queue, failure));
  REQUIRE(module.release(queue, device, failure));
  REQUIRE(module.wait(event, failure));
  CHECK(called.load());
  bool done = false;
  REQUIRE(module.query(event, done, failure));
  CHECK(done);
  const auto* const values = static_cast<const float*>(host);
  for (int64_t i = 0; i < kCount; ++i) REQUIRE(values[i] == 5.0f);

  REQUIRE(module.synchronize(queue, failure));
  REQUIRE(module.trim(queue, failure));
  module.destroyEvent(event);
  module.releaseHost(host);
  module.destroyQueue(queue);
}

}  // namespace
}  // namespace didr::test
