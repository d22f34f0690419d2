#include "test/native/cuda/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "test/native/cuda/sanitizers.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace didr::cuda_on_host {
namespace {

// Sanitizers make frames several times as large.
constexpr size_t kStackBytes = 128 << 10;

thread_local Fiber* current = nullptr;

}  // namespace

// Where a suspended flow continues, and what ASan wants to know of its stack.
struct Fiber::Context {
#if defined(__x86_64__)
  void* stackPointer = nullptr;
#else
  ucontext_t registers;
#endif
  void* fakeStack = nullptr;
  const void* bottom = nullptr;
  size_t bytes = 0;
};

#if defined(__x86_64__)
// void didrSwitchStack(void** saved, void* next): keeps the registers that the System V ABI (x86-64 psABI, 3.2.1) asks a
// function to preserve on the old stack, and continues on the new one. swapcontext() costs two system calls more.
extern "C" void didrSwitchStack(void** saved, void* next) __asm__("didrSwitchStack");
asm(R"(
.text
.local didrSwitchStack
.type didrSwitchStack, @function
didrSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size didrSwitchStack, .-didrSwitchStack
)");
#endif

Fiber::Fiber() : inside_(new Context), outside_(new Context) {
  const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* const memory = mmap(nullptr, guard + kStackBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) {
    std::perror("stack of a fiber");
    std::abort();
  }
  stack_ = static_cast<char*>(memory) + guard;
  reset();
}

Fiber::~Fiber() {
  const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  unpoison(stack_, kStackBytes);
  munmap(static_cast<char*>(stack_) - guard, guard + kStackBytes);
  delete inside_;
  delete outside_;
}

void Fiber::reset() {
  unpoison(stack_, kStackBytes);
  inside_->bottom = stack_;
  inside_->bytes = kStackBytes;
  inside_->fakeStack = nullptr;
  idle_ = true;
#if defined(__x86_64__)
  // As if didrSwitchStack had been called by a function that returns to loop(): six registers, the return address,
  // and a stack pointer that is 8 past a multiple of 16 once that is popped.
  void** const top = reinterpret_cast<void**>(static_cast<char*>(stack_) + kStackBytes);
  void** const frame = top - 8;
  for (int i = 0; i < 6; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(&Fiber::loop);
  frame[7] = nullptr;
  inside_->stackPointer = frame;
#else
  getcontext(&inside_->registers);
  inside_->registers.uc_stack.ss_sp = stack_;
  inside_->registers.uc_stack.ss_size = kStackBytes;
  inside_->registers.uc_link = nullptr;
  makecontext(&inside_->registers, &Fiber::loop, 0);
#endif
}

void Fiber::switchFrom(Fiber& fiber, bool toFiber) {
  Context& from = toFiber ? *fiber.outside_ : *fiber.inside_;
  Context& to = toFiber ? *fiber.inside_ : *fiber.outside_;
  if (__sanitizer_start_switch_fiber != nullptr)
    __sanitizer_start_switch_fiber(&from.fakeStack, to.bottom, to.bytes);
#if defined(__x86_64__)
  didrSwitchStack(&from.stackPointer, to.stackPointer);
#else
  swapcontext(&from.registers, &to.registers);
#endif
  // Whoever switched back here left the other context, whose stack ASan now tells.
  if (__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(from.fakeStack, &to.bottom, &to.bytes);
}

void Fiber::loop() {
  Fiber& fiber = *current;
  if (__sanitizer_finish_switch_fiber != nullptr)
    __sanitizer_finish_switch_fiber(nullptr, &fiber.outside_->bottom, &fiber.outside_->bytes);
  for (;;) {
    fiber.entry_(fiber.argument_);
    fiber.idle_ = true;
    switchFrom(fiber, false);
  }
}

void Fiber::resume(void (*entry)(void* argument), void* argument) {
  if (idle_) {
    entry_ = entry;
    argument_ = argument;
    idle_ = false;
  }
  current = this;
  switchFrom(*this, true);
  current = nullptr;
}

void Fiber::suspend() { switchFrom(*current, false); }

}  // namespace didr::cuda_on_host
