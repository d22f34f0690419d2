// One op, run by its CPU kernel and by the CUDA module, on the same inputs.
//
// The module is the one that is linked in, which runs on the host, or the shared object that DIDR_CUDA_MODULE names: the
// same program then compares a real device. The module runs every op twice, on the host once with the order of blocks
// and threads reversed, and must leave the same bits: kernels have no order but that of their barriers.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "native/core/dtype.h"
#include "native/core/op.h"
#include "native/cuda/module.h"
#include "native/ops/op_headers.h"
#include "native/ops/op_table.h"

namespace didr::test {

enum class Side { kCpu, kCuda, kCudaAgain };
inline constexpr Side kSides[] = {Side::kCpu, Side::kCuda, Side::kCudaAgain};

// The CUDA module and a queue on its first device.
class Cuda {
 public:
  static Cuda& get();

  const CudaModule& module() const { return *module_; }
  CudaQueue* queue() const { return queue_; }
  bool onHost() const { return onHost_; }

  void* allocate(size_t bytes);
  void release(void* memory);
  void upload(void* device, const void* host, size_t bytes);
  void download(void* host, const void* device, size_t bytes);

 private:
  Cuda();

  const CudaModule* module_ = nullptr;
  CudaQueue* queue_ = nullptr;
  bool onHost_ = true;
};

// Bytes in the memory of every side, between guards that must not change.
class Storage {
 public:
  explicit Storage(size_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* at(Side side) const;
  void write(const void* source);
  // Checks the guards, then copies out.
  void read(Side side, void* target) const;

 private:
  size_t bytes_;
  void* blocks_[3];
};

template <class T>
bool sameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// An array with the same contents on every side.
template <class T>
class Array {
 public:
  explicit Array(std::vector<T> contents) : size_(contents.size()), storage_(size_ * sizeof(T)) {
    storage_.write(contents.data());
  }
  // An output: all bits set, so that what a kernel leaves out shows.
  explicit Array(int64_t size) : size_(static_cast<size_t>(size)), storage_(size_ * sizeof(T)) {
    const std::vector<unsigned char> bytes(size_ * sizeof(T), 0xff);
    storage_.write(bytes.data());
  }

  T* at(Side side) const { return static_cast<T*>(storage_.at(side)); }

  std::vector<T> cpu() const { return read(Side::kCpu); }
  // What the module left, which must be the same in both its runs.
  std::vector<T> cuda() const {
    const std::vector<T> once = read(Side::kCuda), again = read(Side::kCudaAgain);
    REQUIRE(sameBits(once, again));
    return once;
  }

 private:
  std::vector<T> read(Side side) const {
    std::vector<T> values(size_);
    storage_.read(side, values.data());
    return values;
  }

  size_t size_;
  Storage storage_;
};

// Runs `op` on every side with the arguments that `make(side)` returns.
void runOn(Side side, Op op, const void* arguments);
template <class Make>
void runEverywhere(Op op, const Make& make) {
  for (const Side side : kSides) {
    const auto arguments = make(side);
    runOn(side, op, &arguments);
  }
}

// --- Values ---------------------------------------------------------------------------------------------------------
inline float storeAs(float, float x) { return x; }
inline BFloat16 storeAs(BFloat16, float x) { return toBFloat16(x); }

// `count` values around zero, none of them special, the same for the same seed.
template <class T>
std::vector<T> someValues(int64_t count, uint32_t seed) {
  std::vector<T> values(static_cast<size_t>(count));
  uint32_t state = seed * 2654435761u + 12345u;
  for (T& value : values) {
    state = state * 1664525u + 1013904223u;
    value = storeAs(T{}, static_cast<float>(static_cast<int32_t>(state)) * 0x1p-30f);
  }
  return values;
}

// Per sample (alpha, sigma) from a variance-preserving schedule, a flow and one with alpha = 1, in turn.
std::vector<float> someCoefficients(int64_t batch);

template <class T>
std::vector<double> asDoubles(const std::vector<T>& values) {
  std::vector<double> doubles;
  doubles.reserve(values.size());
  for (const T value : values) doubles.push_back(toFloat(value));
  return doubles;
}

// Rounding to T is off by at most this much, relative to the value.
template <class T>
inline constexpr double kRounding = sizeof(T) == 4 ? 0x1p-24 : 0x1p-8;

// Stops the test case at the first element for which `holds` is false; an assertion per element would take longer than
// the kernels.
template <class Holds>
void requireEach(size_t count, const Holds& holds) {
  for (size_t i = 0; i < count; ++i) {
    if (holds(i)) continue;
    CAPTURE(i);
    REQUIRE(holds(i));
  }
}

// Every value within `relative` of the largest expected one: sums and differences cancel.
inline void requireClose(const std::vector<double>& actual, const std::vector<double>& expected,
                         double relative) {
  REQUIRE(actual.size() == expected.size());
  double largest = 0.0;
  for (const double x : expected) largest = std::fmax(largest, std::fabs(x));
  CAPTURE(largest);
  requireEach(actual.size(),
              [&](size_t i) { return std::fabs(actual[i] - expected[i]) <= relative * largest; });
}

// Under TSan, which sees a race whatever the size, tests leave their largest shapes out.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kRaceDetection = true;
#else
inline constexpr bool kRaceDetection = false;
#endif

// Batches and sample sizes at the kernels' edges: none, one, around vectors, warps, blocks and runs.
struct Shape {
  int64_t batch, sampleSize;
};
#if defined(__SANITIZE_THREAD__)
inline constexpr Shape kShapes[] = {{0, 5},  {3, 0},   {1, 1},    {5, 3},    {3, 63},
                                    {2, 64}, {3, 129}, {3, 1027}, {1, 8193}, {67, 12}};
#else
inline constexpr Shape kShapes[] = {
    {0, 5},    {3, 0},    {1, 1},     {4, 2},     {5, 3},     {3, 5},    {2, 17},   {3, 63},
    {2, 64},   {3, 65},   {9, 128},   {2, 129},   {2, 1000},  {3, 1027}, {2, 2048}, {1, 8191},
    {2, 8192}, {2, 8193}, {3, 10001}, {2, 16384}, {2, 20000}, {300, 1},  {67, 12},
};
#endif

}  // namespace didr::test
