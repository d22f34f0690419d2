// Runs a CPU kernel at every instruction level and on several thread counts, between guards, and
// requires the same bits from all of them.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "native/core/dtype.h"
#include "native/core/op.h"
#include "native/ops/op_headers.h"
#include "native/ops/op_table.h"

namespace didr::test {

// An array between guards, 64-byte aligned unless `shift` elements move it; outputs start as all
// ones (NaN).
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t size, int64_t shift = 0)
      : size_(static_cast<size_t>(size)), bytes_(size_ * sizeof(T) + 3 * kGuard + 64, kFill) {
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data()) + kGuard;
    start_ = kGuard + (64 - address % 64) % 64 + static_cast<size_t>(shift) * sizeof(T);
    std::memset(bytes_.data() + start_, 0xff, size_ * sizeof(T));
  }
  explicit Guarded(const std::vector<T>& values, int64_t shift = 0)
      : Guarded(static_cast<int64_t>(values.size()), shift) {
    if (!values.empty()) std::memcpy(data(), values.data(), size_ * sizeof(T));
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { CHECK(intact()); }

  T* data() { return reinterpret_cast<T*>(bytes_.data() + start_); }
  std::vector<T> values() { return std::vector<T>(data(), data() + size_); }

  bool intact() const {
    for (size_t i = 0; i < bytes_.size(); ++i)
      if ((i < start_ || i >= start_ + size_ * sizeof(T)) && bytes_[i] != kFill) return false;
    return true;
  }

 private:
  static constexpr size_t kGuard = 256;
  static constexpr unsigned char kFill = 0xa5;

  size_t size_;
  size_t start_;
  std::vector<unsigned char> bytes_;
};

// The bytes of some arrays, to compare runs by.
class Bytes {
 public:
  template <class T>
  void add(const std::vector<T>& values) {
    const auto* from = reinterpret_cast<const char*>(values.data());
    bytes_.append(from, values.size() * sizeof(T));
  }
  bool operator==(const Bytes&) const = default;

 private:
  std::string bytes_;
};

// Calls run(launch) per level and thread count, where launch(op, arguments) runs the kernel; `run`
// returns Bytes, which must always be the same.
template <class Run>
void atEveryLevel(const Run& run) {
  int levels = 0;
  const OpTable* const* tables = cpuOpLevels(levels);
  REQUIRE(levels > 0);
  Bytes expected;
  bool first = true;
  for (const int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    for (int level = 0; level < levels; ++level) {
      CAPTURE(threads);
      CAPTURE(std::string(tables[level]->level));
      const auto launch = [&](Op op, const auto& arguments) {
        CpuContext context{pool, nameOf(op), {}};
        tables[level]->kernels[static_cast<int>(op)](&arguments, context);
        CHECK(context.failure.ok());
      };
      const Bytes bytes = run(launch);
      if (first) expected = bytes;
      CHECK(bytes == expected);
      first = false;
    }
  }
}

// `count` values around zero that no formula is special at, the same for the same seed.
inline std::vector<float> someFloats(int64_t count, uint32_t seed, float scale = 1.0f) {
  std::vector<float> values(static_cast<size_t>(count));
  uint32_t state = seed * 2654435761u + 12345u;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-30f * scale;
  }
  return values;
}

inline float storeAs(float, float x) { return x; }
inline BFloat16 storeAs(BFloat16, float x) { return toBFloat16(x); }

template <class T>
std::vector<T> someValues(int64_t count, uint32_t seed, float scale = 1.0f) {
  std::vector<T> values;
  for (const float x : someFloats(count, seed, scale)) values.push_back(storeAs(T{}, x));
  return values;
}

}  // namespace didr::test
