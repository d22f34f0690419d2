// A flow of control with a stack of its own, switched to and from by hand.
#pragma once

#include <cstddef>

namespace didr::cuda_on_host {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Runs the fiber on the calling thread until it suspends. A fiber that is idle begins with `entry(argument)`.
  void resume(void (*entry)(void* argument), void* argument);
  // Back to where the current fiber was resumed. Called on the fiber.
  static void suspend();

  // Whether `entry` returned, so that the fiber can be given another one.
  bool idle() const { return idle_; }
  // Forgets what the suspended fiber was doing; no destructors run.
  void reset();

 private:
  struct Context;
  [[noreturn]] static void loop();
  static void switchFrom(Fiber& fiber, bool toFiber);

  void* stack_;  // lowest usable address; a guard page lies below
  Context* inside_;
  Context* outside_;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool idle_ = true;
};

}  // namespace didr::cuda_on_host
