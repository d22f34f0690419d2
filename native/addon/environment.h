// One JavaScript thread's side of the addon: its tensors, its sessions on the devices, its error class, and the
// channel on which finished reads come back.
#pragma once

#include <napi.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "native/core/device.h"
#include "native/core/dtype.h"
#include "native/core/op.h"

namespace didr::addon {

// Thrown inside the addon only; the entry of every exported function turns it into a DidrError.
struct Failure {
  Status status;
};

[[noreturn]] inline void fail(Code code, std::string message) {
  throw Failure{{code, std::move(message)}};
}

inline void check(Status status) {
  if (!status.ok()) throw Failure{std::move(status)};
}

// Below it element counts, strides and byte counts are exact in 64-bit integers and in doubles.
inline constexpr double kMostElements = 1125899906842624.0;  // 2^50

struct Shape {
  int rank = 0;
  std::array<int64_t, kMaxRank> sizes{};

  int64_t operator[](int axis) const { return sizes[static_cast<size_t>(axis)]; }
  int64_t& operator[](int axis) { return sizes[static_cast<size_t>(axis)]; }
  int64_t count() const { return product(0, rank); }
  // The number of elements spanned by axes [begin, end).
  int64_t product(int begin, int end) const {
    int64_t result = 1;
    for (int axis = begin; axis < end; ++axis) result *= (*this)[axis];
    return result;
  }
  void push(int64_t size) { (*this)[rank++] = size; }
  bool operator==(const Shape& other) const {
    return rank == other.rank &&
           std::equal(sizes.begin(), sizes.begin() + rank, other.sizes.begin());
  }
  std::string text() const;  // "[2, 3]"
};

// A device and this thread's session on it.
struct DeviceSlot {
  Device* device = nullptr;
  std::unique_ptr<Session> session;
};

// Memory shared by a tensor and its reshapes. Touched by its JavaScript thread alone: queued ops need no claim on it,
// since freed memory is reused in queue order.
struct Storage {
  Block block;
  int device = 0;  // index into Environment::devices()
  int claims = 1;
};

struct TensorRecord {
  Storage* storage = nullptr;
  DType dtype = DType::kFloat32;
  Shape shape;

  void* data() const { return storage->block.data; }
  int64_t count() const { return shape.count(); }
  size_t bytes() const { return static_cast<size_t>(count()) * sizeOf(dtype); }
};

class Environment {
 public:
  explicit Environment(Napi::Env env);
  ~Environment();

  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  void setErrorClass(Napi::Function errorClass) { errorClass_ = Napi::Persistent(errorClass); }
  // A DidrError (before init() has given the class: a plain Error) for `status`.
  Napi::Value makeError(const Status& status) const;

  std::vector<DeviceSlot>& devices() { return devices_; }
  DeviceSlot& slot(int device) { return devices_[static_cast<size_t>(device)]; }
  // Finds the device's slot, opening a session on first use.
  int slotFor(Device& device);

  // A new tensor with memory of its own, as yet unwritten; its id.
  double create(int device, DType dtype, const Shape& shape);
  double createFrom(int device, DType dtype, const Shape& shape, const void* source);
  // A new tensor on the memory of `of`, with another shape of the same element count.
  double createView(const TensorRecord& of, const Shape& shape);
  // The record, or null if the id is not of a living tensor.
  TensorRecord* find(double id);
  bool dispose(double id);

  int64_t liveTensors() const { return liveTensors_; }

  // Starts an asynchronous read of `source` into `target` (or of nothing, to wait for the queue) and returns its
  // promise, which rejects if any op of this session failed before.
  Napi::Value read(int device, const void* source, size_t bytes, Napi::Value target);

 private:
  struct PendingRead {
    Environment* environment;
    Session* session;
    Status failure;  // of the ops queued before the read and after the one before it
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference target;  // the array buffer, kept from collection; empty without one
  };
  struct Slot {
    TensorRecord record;
    uint32_t generation = 1;
    bool live = false;
  };

  double add(TensorRecord record);
  void releaseStorage(Storage* storage);
  void noteExternalBytes(int64_t delta);
  void finish(PendingRead* read);
  void shutDown();

  Napi::Env env_;
  Napi::FunctionReference errorClass_;
  std::vector<DeviceSlot> devices_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> freeSlots_;
  int64_t liveTensors_ = 0;
  int64_t unreportedBytes_ = 0;
  std::unordered_set<PendingRead*> pending_;
  Napi::ThreadSafeFunction completions_;
};

}  // namespace didr::addon
