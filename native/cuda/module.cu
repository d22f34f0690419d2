#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "native/core/cuda_launch.h"
#include "native/cuda/cublas.h"
#include "native/cuda/module.h"
#include "native/ops/op_headers.h"
#include "native/ops/op_table.h"

namespace didr {

#define DIDR_OP(name, Arguments) void name##Cuda(const Arguments& arguments, CudaContext& context);
#define DIDR_OP_CPU(name, Arguments)
#include "native/ops/ops.def"
#undef DIDR_OP
#undef DIDR_OP_CPU

struct CudaQueue {
  int device;
  int multiprocessors;
  cudaStream_t stream;
  Cublas cublas;
};

struct CudaEvent {
  int device;
  cudaEvent_t event;
};

namespace {

// The oldest architecture in the module.
constexpr int kOldestMajor = 7, kOldestMinor = 5;

using Launcher = void (*)(const void* arguments, CudaContext& context);

constexpr Launcher kLaunchers[] = {
#define DIDR_OP(name, Arguments)                                    \
  [](const void* arguments, CudaContext& context) {                 \
    name##Cuda(*static_cast<const Arguments*>(arguments), context); \
  },
#define DIDR_OP_CPU(name, Arguments) nullptr,
#include "native/ops/ops.def"
#undef DIDR_OP
#undef DIDR_OP_CPU
};

constexpr CudaOp kOps[] = {
#define DIDR_OP(name, Arguments) {#name, sizeof(Arguments), true},
#define DIDR_OP_CPU(name, Arguments) {#name, sizeof(Arguments), false},
#include "native/ops/ops.def"
#undef DIDR_OP
#undef DIDR_OP_CPU
};

template <class... Values>
bool fail(CudaFailure& failure, Code code, const char* format, Values... values) {
  failure.code = code;
  std::snprintf(failure.message, sizeof failure.message, format, values...);
  return false;
}

// True for success; else says what could not be done, and why in CUDA's words.
bool check(cudaError_t error, const char* what, CudaFailure& failure) {
  if (error == cudaSuccess) return true;
  cudaGetLastError();  // told here, so not to whoever asks next
  return fail(failure, error == cudaErrorMemoryAllocation ? Code::kOutOfMemory : Code::kBackend,
              "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

bool probe(CudaVersions& versions, int& devices, CudaFailure& failure) {
  devices = 0;
  versions = {};
  cudaRuntimeGetVersion(&versions.runtime);
  cudaDriverGetVersion(&versions.driver);
  cudaGetLastError();
  const int driverMajor = versions.driver / 1000, driverMinor = versions.driver % 1000 / 10;
  const int major = versions.runtime / 1000, minor = versions.runtime % 1000 / 10;
  if (versions.driver == 0) {
    void* const library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) {
      const char* const reason = dlerror();
      return fail(failure, Code::kBackend, "driver missing: %s",
                  reason != nullptr ? reason : "libcuda.so.1 cannot be opened");
    }
    dlclose(library);
    return fail(failure, Code::kBackend,
                "driver broken: libcuda.so.1 is installed but tells no version");
  }
  // Any driver of a major version runs every runtime of it (CUDA Compatibility, "minor version compatibility").
  if (driverMajor < major)
    return fail(failure, Code::kBackend,
                "version: the driver runs CUDA up to %d.%d, this module needs %d.0 or newer",
                driverMajor, driverMinor, major);
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && devices == 0)) {
    cudaGetLastError();
    devices = 0;
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    return fail(failure, Code::kBackend, "device missing: the driver (CUDA %d.%d) finds none%s%s",
                driverMajor, driverMinor, visible != nullptr ? ", with CUDA_VISIBLE_DEVICES=" : "",
                visible != nullptr ? visible : "");
  }
  if (error == cudaErrorInsufficientDriver) {
    cudaGetLastError();
    return fail(failure, Code::kBackend,
                "version: the driver runs CUDA %d.%d, this module was built with %d.%d",
                driverMajor, driverMinor, major, minor);
  }
  return check(error, "driver: counting devices", failure);
}

bool deviceInfo(int device, CudaDeviceInfo& info, CudaFailure& failure) {
  info = {};
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error == cudaErrorInvalidDevice) {
    cudaGetLastError();
    return fail(failure, Code::kDevice, "device missing: there is no cuda:%d", device);
  }
  if (!check(error, "device properties", failure)) return false;
  std::snprintf(info.name, sizeof info.name, "%s", properties.name);
  info.major = properties.major;
  info.minor = properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  if (!check(cudaSetDevice(device), "choosing the device", failure)) return false;
  size_t free = 0, total = 0;
  if (!check(cudaMemGetInfo(&free, &total), "device memory", failure)) return false;
  info.freeBytes = free;
  info.totalBytes = total;
  return true;
}

// The device is a property of the calling thread in CUDA.
bool use(const CudaQueue* queue, CudaFailure& failure) {
  return check(cudaSetDevice(queue->device), "choosing the device", failure);
}

bool createQueue(int device, CudaQueue*& queue, CudaFailure& failure) {
  queue = nullptr;
  CudaDeviceInfo info;
  if (!deviceInfo(device, info, failure)) return false;
  const bool onHost = info.major == 0;
  if (!onHost &&
      (info.major < kOldestMajor || (info.major == kOldestMajor && info.minor < kOldestMinor)))
    return fail(failure, Code::kBackend,
                "device: cuda:%d (%s) has compute capability %d.%d, this module needs %d.%d",
                device, info.name, info.major, info.minor, kOldestMajor, kOldestMinor);
  int pools = 0;
  if (!check(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, device),
             "memory pools", failure))
    return false;
  if (pools == 0)
    return fail(failure, Code::kBackend, "device: cuda:%d (%s) has no memory pools", device,
                info.name);
  // Memory that is freed stays with the pool until trim(): by default every wait would give it back.
  cudaMemPool_t pool;
  uint64_t keepAll = UINT64_MAX;
  if (!check(cudaDeviceGetDefaultMemPool(&pool, device), "memory pool", failure) ||
      !check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keepAll),
             "memory pool", failure))
    return false;
  cudaStream_t stream = nullptr;
  if (!check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream",
             failure))
    return false;
  queue =
      new (std::nothrow) CudaQueue{device, info.multiprocessors, stream, Cublas(stream, onHost)};
  if (queue != nullptr) return true;
  cudaStreamDestroy(stream);
  return fail(failure, Code::kOutOfMemory, "creating a stream");
}

void destroyQueue(CudaQueue* queue) {
  if (queue == nullptr) return;
  cudaSetDevice(queue->device);
  cudaStreamSynchronize(queue->stream);
  const cudaStream_t stream = queue->stream;
  delete queue;
  cudaStreamDestroy(stream);
}

const char* matrixProducts(const CudaQueue* queue) { return queue->cublas.description(); }

bool synchronize(CudaQueue* queue, CudaFailure& failure) {
  return use(queue, failure) &&
         check(cudaStreamSynchronize(queue->stream), "waiting for the device", failure);
}

bool notify(CudaQueue* queue, void (*function)(void*), void* argument, CudaFailure& failure) {
  return use(queue, failure) &&
         check(cudaLaunchHostFunc(queue->stream, function, argument), "a callback", failure);
}

bool allocate(CudaQueue* queue, size_t bytes, void*& memory, CudaFailure& failure) {
  memory = nullptr;
  if (!use(queue, failure)) return false;
  const cudaError_t error = cudaMallocAsync(&memory, bytes, queue->stream);
  if (error != cudaErrorMemoryAllocation) return check(error, "allocating", failure);
  cudaGetLastError();
  return fail(failure, Code::kOutOfMemory, "cuda:%d cannot allocate %zu bytes", queue->device,
              bytes);
}

bool release(CudaQueue* queue, void* memory, CudaFailure& failure) {
  return use(queue, failure) && check(cudaFreeAsync(memory, queue->stream), "freeing", failure);
}

bool trim(CudaQueue* queue, CudaFailure& failure) {
  cudaMemPool_t pool;
  return use(queue, failure) &&
         check(cudaDeviceGetDefaultMemPool(&pool, queue->device), "memory pool", failure) &&
         check(cudaMemPoolTrimTo(pool, 0), "trimming the memory pool", failure);
}

bool allocateHost(size_t bytes, void*& memory, CudaFailure& failure) {
  memory = nullptr;
  return check(cudaMallocHost(&memory, bytes), "allocating pinned host memory", failure);
}

void releaseHost(void* memory) { cudaFreeHost(memory); }

bool upload(CudaQueue* queue, void* device, const void* host, size_t bytes, CudaFailure& failure) {
  return use(queue, failure) &&
         check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, queue->stream),
               "copying to the device", failure);
}

bool download(CudaQueue* queue, void* host, const void* device, size_t bytes,
              CudaFailure& failure) {
  return use(queue, failure) &&
         check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, queue->stream),
               "copying from the device", failure);
}

bool launch(CudaQueue* queue, int op, const void* arguments, CudaFailure& failure) {
  if (op < 0 || op >= kOpCount)
    return fail(failure, Code::kBackend, "module: there is no op number %d", op);
  if (kLaunchers[op] == nullptr)
    return fail(failure, Code::kBackend, "%s: not available on CUDA", kOps[op].name);
  if (!use(queue, failure)) return false;
  CudaContext context;
  context.stream = queue->stream;
  context.multiprocessors = queue->multiprocessors;
  context.cublas = &queue->cublas;
  kLaunchers[op](arguments, context);
  return check(context.error, context.failedAt, failure);
}

bool createEvent(CudaQueue* queue, CudaEvent*& event, CudaFailure& failure) {
  event = nullptr;
  CudaEvent made = {queue->device, nullptr};
  if (!use(queue, failure) || !check(cudaEventCreateWithFlags(&made.event, cudaEventDisableTiming),
                                     "creating an event", failure))
    return false;
  event = new (std::nothrow) CudaEvent(made);
  if (event != nullptr) return true;
  cudaEventDestroy(made.event);
  return fail(failure, Code::kOutOfMemory, "creating an event");
}

void destroyEvent(CudaEvent* event) {
  if (event == nullptr) return;
  cudaEventDestroy(event->event);
  delete event;
}

bool record(CudaEvent* event, CudaQueue* queue, CudaFailure& failure) {
  return use(queue, failure) &&
         check(cudaEventRecord(event->event, queue->stream), "recording an event", failure);
}

bool query(CudaEvent* event, bool& done, CudaFailure& failure) {
  const cudaError_t error = cudaEventQuery(event->event);
  done = error == cudaSuccess;
  if (error != cudaErrorNotReady) return check(error, "asking an event", failure);
  cudaGetLastError();
  return true;
}

bool wait(CudaEvent* event, CudaFailure& failure) {
  return check(cudaEventSynchronize(event->event), "waiting for an event", failure);
}

constexpr CudaModule kModule = {
    kCudaModuleVersion,
    DIDR_CUDA_DESCRIPTION,
    kOps,
    kOpCount,
    probe,
    deviceInfo,
    createQueue,
    destroyQueue,
    matrixProducts,
    synchronize,
    notify,
    allocate,
    release,
    trim,
    allocateHost,
    releaseHost,
    upload,
    download,
    launch,
    createEvent,
    destroyEvent,
    record,
    query,
    wait,
};

}  // namespace
}  // namespace didr

extern "C" __attribute__((visibility("default"))) const didr::CudaModule* didr_cuda_module(
    int version) {
  return version == didr::kCudaModuleVersion ? &didr::kModule : nullptr;
}
