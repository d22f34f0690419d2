// Waiting for another thread for a moment, and keeping the process's signals off our threads.
#pragma once

#include <chrono>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>
#endif

namespace didr {

inline void pauseCpu() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  asm volatile("yield");
#endif
}

// True as soon as `ready()` holds, false when it does not within `limit`.
template <class Ready>
bool spinUntil(std::chrono::nanoseconds limit, const Ready& ready) {
  constexpr int kPausesPerClockRead = 16;
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (ready()) return true;
      pauseCpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

// Threads started while one of these lives receive no signals: Node handles them on its own threads.
class SignalsBlocked {
 public:
#if defined(_WIN32)
  SignalsBlocked() = default;
#else
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
#endif
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
#if !defined(_WIN32)
  sigset_t before_;
#endif
};

}  // namespace didr
