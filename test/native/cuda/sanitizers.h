// The sanitizers' interfaces, null where the program is built without them. The harness itself is compiled without
// instrumentation, so that its own bookkeeping adds no order between CUDA threads, and so cannot ask the compiler.
#pragma once

#include <cstddef>

extern "C" {
#define DIDR_WEAK __attribute__((weak))
DIDR_WEAK void __asan_poison_memory_region(void const volatile* address, size_t bytes);
DIDR_WEAK void __asan_unpoison_memory_region(void const volatile* address, size_t bytes);
DIDR_WEAK void __sanitizer_start_switch_fiber(void** fakeStackSave, const void* bottom,
                                              size_t bytes);
DIDR_WEAK void __sanitizer_finish_switch_fiber(void* fakeStackSave, const void** oldBottom,
                                               size_t* oldBytes);
DIDR_WEAK void* __tsan_get_current_fiber(void);
DIDR_WEAK void* __tsan_create_fiber(unsigned flags);
DIDR_WEAK void __tsan_destroy_fiber(void* fiber);
DIDR_WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
DIDR_WEAK void __tsan_acquire(void* address);
DIDR_WEAK void __tsan_release(void* address);
#undef DIDR_WEAK
}

namespace didr::cuda_on_host {

inline void poison(const void* address, size_t bytes) {
  if (__asan_poison_memory_region != nullptr) __asan_poison_memory_region(address, bytes);
}
inline void unpoison(const void* address, size_t bytes) {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(address, bytes);
}

inline bool raceDetection() { return __tsan_create_fiber != nullptr; }
inline void acquireOrder(void* address) {
  if (raceDetection()) __tsan_acquire(address);
}
inline void releaseOrder(void* address) {
  if (raceDetection()) __tsan_release(address);
}
// The switch itself orders nothing.
inline void switchRaceContext(void* fiber) {
  constexpr unsigned kNoSync = 1;
  if (raceDetection()) __tsan_switch_to_fiber(fiber, kNoSync);
}

}  // namespace didr::cuda_on_host
