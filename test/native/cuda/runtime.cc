// The CUDA runtime of the harness: streams, events, memory and one device.
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "cuda_runtime.h"

// An in-order queue with a thread of its own.
struct HostStream {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  uint64_t submitted = 0;
  uint64_t completed = 0;
  bool stopping = false;
  cudaError_t failure = cudaSuccess;
  std::thread worker;

  HostStream() : worker([this] { work(); }) {}
  ~HostStream() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    worker.join();
  }

  uint64_t submit(std::function<void()> task) {
    const std::lock_guard lock(mutex);
    queue.push_back(std::move(task));
    changed.notify_all();
    return ++submitted;
  }

  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return stopping || !queue.empty(); });
      if (queue.empty()) return;
      std::function<void()> task = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      task();
      task = nullptr;
      lock.lock();
      ++completed;
      changed.notify_all();
    }
  }

  cudaError_t wait(uint64_t ticket) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return completed >= ticket; });
    return std::exchange(failure, cudaSuccess);
  }
};

struct HostEvent {
  HostStream* stream = nullptr;
  uint64_t ticket = 0;
};

namespace {

constexpr size_t kDeviceAlignment = 256;  // what cudaMalloc promises at least
constexpr int kVersion = 13000;

thread_local cudaError_t lastError = cudaSuccess;

cudaError_t keep(cudaError_t error) {
  if (error != cudaSuccess) lastError = error;
  return error;
}

cudaError_t allocate(void** memory, size_t bytes) {
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  if (bytes > total) return keep(cudaErrorMemoryAllocation);
  // Exactly `bytes`, so that ASan's red zone begins where the allocation ends.
  if (posix_memalign(memory, kDeviceAlignment, bytes) != 0) return keep(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xff, bytes);
  return cudaSuccess;
}

// In order on the stream; at once on the null stream.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> task) {
  if (stream == nullptr)
    task();
  else
    stream->submit(std::move(task));
  return cudaSuccess;
}

}  // namespace

namespace didr::cuda_on_host {

cudaError_t launchOn(cudaStream_t stream, const Grid& grid, std::function<void()> body) {
  const auto run = [grid, body = std::move(body)]() -> cudaError_t {
    std::string diagnostic;
    const Failure failure = execute(
        grid, [](const void* closure) { (*static_cast<const std::function<void()>*>(closure))(); },
        &body, diagnostic);
    if (failure == Failure::kNone) return cudaSuccess;
    std::fprintf(stderr, "CUDA on host: %s\n", diagnostic.c_str());
    return failure == Failure::kConfiguration ? cudaErrorInvalidConfiguration
                                              : cudaErrorLaunchFailure;
  };
  if (stream == nullptr) return keep(run());
  stream->submit([stream, run] {
    const cudaError_t error = run();
    const std::lock_guard lock(stream->mutex);
    if (stream->failure == cudaSuccess) stream->failure = error;
  });
  return cudaSuccess;
}

}  // namespace didr::cuda_on_host

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorLaunchFailure:
      return "the kernel broke a rule of the execution model; standard error says which";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "no device accepts this grid";
    default:
      return cudaGetErrorName(error);
  }
}

cudaError_t cudaGetLastError() { return std::exchange(lastError, cudaSuccess); }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return keep(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "CUDA on host");
  size_t free = 0;
  properties->multiProcessorCount = 2;
  return cudaMemGetInfo(&free, &properties->totalGlobalMem);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return keep(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 2;
      return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
  }
  return keep(cudaErrorInvalidValue);
}

cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : keep(cudaErrorInvalidDevice);
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  *total = page * static_cast<size_t>(sysconf(_SC_PHYS_PAGES));
  *free = page * static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES));
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) { return allocate(memory, bytes); }

cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t) {
  return allocate(memory, bytes);
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  return enqueue(stream, [memory] { std::free(memory); });
}

// There is nothing to keep: memory goes back to the host's allocator.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = nullptr;
  return device == 0 ? cudaSuccess : keep(cudaErrorInvalidDevice);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }

cudaError_t cudaMallocHost(void** memory, size_t bytes) { return allocate(memory, bytes); }

cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }

cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  return enqueue(stream, [=] { std::memcpy(target, source, bytes); });
}

cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] { std::memset(target, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new HostStream;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream == nullptr) return cudaSuccess;
  uint64_t ticket;
  {
    const std::lock_guard lock(stream->mutex);
    ticket = stream->submitted;
  }
  return keep(stream->wait(ticket));
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  return enqueue(stream, [=] { function(argument); });
}

// For a stand-in of a CUDA library, which is a shared object of its own (fake_cublas.cc): work of its in order on a stream.
extern "C" __attribute__((visibility("default"))) void didr_cuda_on_host_enqueue(
    cudaStream_t stream, cudaHostFn_t function, void* argument) {
  cudaLaunchHostFunc(stream, function, argument);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new HostEvent;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  if (stream != nullptr) {
    const std::lock_guard lock(stream->mutex);
    event->ticket = stream->submitted;
  }
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->stream == nullptr) return cudaSuccess;
  const std::lock_guard lock(event->stream->mutex);
  return event->stream->completed >= event->ticket ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event->stream == nullptr ? cudaSuccess : keep(event->stream->wait(event->ticket));
}
