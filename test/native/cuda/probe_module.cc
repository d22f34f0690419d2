// Opens the CUDA module as the addon does and asks it what it finds. Without a driver or a device it has to say which of
// them is missing; it must load all the same.
//
//   didr_cuda_probe path/to/didr_cuda.so
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "native/cuda/module.h"

int main(int count, char** values) {
  if (count != 2) {
    std::fprintf(stderr, "usage: %s path/to/didr_cuda.so\n", values[0]);
    return 2;
  }
  void* const library = dlopen(values[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const auto entry = reinterpret_cast<DidrCudaModule>(dlsym(library, kDidrCudaModuleSymbol));
  if (entry == nullptr || entry(didr::kCudaModuleVersion + 1) != nullptr) {
    std::fprintf(stderr, "no entry, or one that takes any version\n");
    return 1;
  }
  const didr::CudaModule* const module = entry(didr::kCudaModuleVersion);
  if (module == nullptr || module->version != didr::kCudaModuleVersion) {
    std::fprintf(stderr, "no table for version %d\n", didr::kCudaModuleVersion);
    return 1;
  }
  didr::CudaVersions versions;
  int devices = 0;
  didr::CudaFailure failure = {};
  const bool found = module->probe(versions, devices, failure);
  std::printf("%s: driver %d, runtime %d, %d devices\n", module->description, versions.driver,
              versions.runtime, devices);
  if (found) return devices > 0 ? 0 : 1;
  std::printf("%s: %s\n", didr::nameOf(failure.code), failure.message);
  if (failure.code != didr::Code::kBackend) return 1;
  for (const char* const culprit : {"driver", "device", "version"})
    if (std::strncmp(failure.message, culprit, std::strlen(culprit)) == 0) return 0;
  std::fprintf(stderr, "the message does not say what is missing\n");
  return 1;
}
