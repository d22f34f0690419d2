// The interface between the addon and the CUDA module, didr_cuda.so.
//
// The module is a shared object of its own, with the CUDA runtime linked in, so that the addon loads on machines without
// CUDA; it is opened when a device asks for it. One exported function gives a table of functions. Nothing but plain data
// crosses: no exceptions, no C++ library types, no CUDA types. Functions return false after writing to `failure`.
//
//   dlopen(didr_cuda.so) -> didr_cuda_module(kCudaModuleVersion) -> probe() -> createQueue(device) -> ...
//
// `launch` and all copies are in order on their queue and return before the work is done; `synchronize`, `wait` on an
// event, or a `notify` callback tell that it is. Calls may come from any thread; those on one queue, one at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "native/core/status.h"

namespace didr {

// Changes with this file.
inline constexpr int kCudaModuleVersion = 2;

// Codes: kBackend (something is missing or broken; the message says which of driver, device, module or version, or which
// kernel failed), kOutOfMemory, kDevice (no such device).
struct CudaFailure {
  Code code;
  char message[480];
};

struct CudaOp {
  const char* name;
  size_t
      argumentBytes;  // of the contract's struct: differs when addon and module are of two builds
  bool present;       // false: no CUDA kernel, launch() refuses
};

// As major * 1000 + minor * 10; 0 where unknown.
struct CudaVersions {
  int driver;   // the newest CUDA that the driver runs
  int runtime;  // the CUDA that the module was built with
};

struct CudaDeviceInfo {
  char name[256];
  int major, minor;  // compute capability
  int multiprocessors;
  uint64_t totalBytes;
  uint64_t freeBytes;
};

struct CudaQueue;  // a device and an in-order stream on it
struct CudaEvent;  // a point in a queue

struct CudaModule {
  int version;
  const char* description;  // what it was built for
  const CudaOp* ops;        // by Op (native/ops/op_table.h)
  int opCount;

  // Finds the driver and counts the devices it can use. `versions` is written in any case.
  bool (*probe)(CudaVersions& versions, int& devices, CudaFailure& failure);
  bool (*deviceInfo)(int device, CudaDeviceInfo& info, CudaFailure& failure);

  bool (*createQueue)(int device, CudaQueue*& queue, CudaFailure& failure);
  void (*destroyQueue)(CudaQueue* queue);  // waits for its work
  // What makes the matrix products: a cuBLAS and its version, or the own kernel and why.
  const char* (*matrixProducts)(const CudaQueue* queue);
  // Also where what went wrong during a kernel comes out.
  bool (*synchronize)(CudaQueue* queue, CudaFailure& failure);
  // Calls `function(argument)` on a thread of the driver's after the work so far; it must not call the module.
  bool (*notify)(CudaQueue* queue, void (*function)(void*), void* argument, CudaFailure& failure);

  // Device memory, 256-byte aligned, from the device's pool; both in order on the queue.
  bool (*allocate)(CudaQueue* queue, size_t bytes, void*& memory, CudaFailure& failure);
  bool (*release)(CudaQueue* queue, void* memory, CudaFailure& failure);
  // Gives what the pool keeps for reuse back to the device.
  bool (*trim)(CudaQueue* queue, CudaFailure& failure);

  // Host memory that copies can overlap with.
  bool (*allocateHost)(size_t bytes, void*& memory, CudaFailure& failure);
  void (*releaseHost)(void* memory);

  // Host memory is from allocateHost and stays valid until the copy is done.
  bool (*upload)(CudaQueue* queue, void* device, const void* host, size_t bytes,
                 CudaFailure& failure);
  bool (*download)(CudaQueue* queue, void* host, const void* device, size_t bytes,
                   CudaFailure& failure);

  // `arguments`: the struct of the op's contract, with device pointers; copied.
  bool (*launch)(CudaQueue* queue, int op, const void* arguments, CudaFailure& failure);

  bool (*createEvent)(CudaQueue* queue, CudaEvent*& event, CudaFailure& failure);
  void (*destroyEvent)(CudaEvent* event);
  bool (*record)(CudaEvent* event, CudaQueue* queue, CudaFailure& failure);
  bool (*query)(CudaEvent* event, bool& done, CudaFailure& failure);
  bool (*wait)(CudaEvent* event, CudaFailure& failure);
};

}  // namespace didr

extern "C" {
// Null when the module was built with another version of the interface.
using DidrCudaModule = const didr::CudaModule* (*)(int version);
inline constexpr const char* kDidrCudaModuleSymbol = "didr_cuda_module";
}
