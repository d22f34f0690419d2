#include "native/addon/environment.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace didr::addon {
namespace {

// An id is generation * 2^26 + slot: exact in a double, and an id from before a slot's reuse is told apart.
constexpr double kSlotLimit = 67108864.0;
// V8 is told of memory in steps of this size; each report costs as much as a small op.
constexpr int64_t kReportStep = int64_t{1} << 20;

// The shape of a result can be out of bounds though those of the operands are not. Zeros do not excuse the rest:
// the product of the other sizes has to stay exact as well, or strides would overflow.
void checkSpan(const Shape& shape) {
  double span = 1;
  for (int axis = 0; axis < shape.rank; ++axis)
    span *= std::max(static_cast<double>(shape[axis]), 1.0);
  if (span > kMostElements)
    fail(Code::kShape, "the result " + shape.text() + " would have more than 2^50 elements");
}

}  // namespace

std::string Shape::text() const {
  std::string result = "[";
  for (int axis = 0; axis < rank; ++axis)
    result += (axis > 0 ? ", " : "") + std::to_string((*this)[axis]);
  return result + "]";
}

Environment::Environment(Napi::Env env) : env_(env) {
  completions_ = Napi::ThreadSafeFunction::New(
      env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "didr reads", 0, 1);
  // A process with nothing left but idle devices may end; a pending read holds it open.
  completions_.Unref(env);
  // Registered after the channel's own hook, so it runs before the channel goes.
  env.AddCleanupHook([this] { shutDown(); });
}

Environment::~Environment() = default;

void Environment::shutDown() {
  for (DeviceSlot& slot : devices_)
    if (slot.session != nullptr) slot.device->abandon(std::move(slot.session));
  for (Slot& slot : slots_)
    if (std::exchange(slot.live, false)) releaseStorage(slot.record.storage);
  for (PendingRead* read : pending_) delete read;
  pending_.clear();
  errorClass_.Reset();
}

Napi::Value Environment::makeError(const Status& status) const {
  const Napi::String message = Napi::String::New(env_, status.message());
  if (errorClass_.IsEmpty()) return Napi::Error::New(env_, status.message()).Value();
  return errorClass_.New({Napi::String::New(env_, nameOf(status.code())), message});
}

int Environment::slotFor(Device& device) {
  for (size_t i = 0; i < devices_.size(); ++i)
    if (devices_[i].device == &device) return static_cast<int>(i);
  devices_.push_back({&device, std::make_unique<Session>()});
  return static_cast<int>(devices_.size()) - 1;
}

double Environment::add(TensorRecord record) {
  uint32_t index;
  if (freeSlots_.empty()) {
    index = static_cast<uint32_t>(slots_.size());
    if (index >= kSlotLimit) fail(Code::kOutOfMemory, "more than 2^26 tensors are alive");
    slots_.emplace_back();
  } else {
    index = freeSlots_.back();
    freeSlots_.pop_back();
  }
  Slot& slot = slots_[index];
  slot.record = record;
  slot.live = true;
  ++liveTensors_;
  return slot.generation * kSlotLimit + index;
}

double Environment::create(int device, DType dtype, const Shape& shape) {
  checkSpan(shape);
  auto storage = std::make_unique<Storage>();
  storage->device = device;
  const size_t bytes = static_cast<size_t>(shape.count()) * sizeOf(dtype);
  check(slot(device).device->allocate(bytes, storage->block));
  noteExternalBytes(static_cast<int64_t>(bytes));
  return add({storage.release(), dtype, shape});
}

double Environment::createFrom(int device, DType dtype, const Shape& shape, const void* source) {
  auto storage = std::make_unique<Storage>();
  storage->device = device;
  const size_t bytes = static_cast<size_t>(shape.count()) * sizeOf(dtype);
  DeviceSlot& target = slot(device);
  check(target.device->upload(source, bytes, *target.session, storage->block));
  noteExternalBytes(static_cast<int64_t>(bytes));
  return add({storage.release(), dtype, shape});
}

double Environment::createView(const TensorRecord& of, const Shape& shape) {
  const TensorRecord view{of.storage, of.dtype, shape};
  ++view.storage->claims;
  return add(view);
}

TensorRecord* Environment::find(double id) {
  if (!(id >= 0)) return nullptr;
  const double generation = std::floor(id / kSlotLimit);
  const double index = id - generation * kSlotLimit;
  if (!(index < static_cast<double>(slots_.size())) || index != std::floor(index)) return nullptr;
  Slot& slot = slots_[static_cast<size_t>(index)];
  return slot.live && slot.generation == generation ? &slot.record : nullptr;
}

bool Environment::dispose(double id) {
  TensorRecord* record = find(id);
  if (record == nullptr) return false;
  const auto index = static_cast<uint32_t>(std::fmod(id, kSlotLimit));
  Slot& slot = slots_[index];
  slot.live = false;
  // The generation stays below 2^27, so that ids stay exact; a slot that has used them all is retired.
  if (++slot.generation < (1u << 27)) freeSlots_.push_back(index);
  --liveTensors_;
  releaseStorage(slot.record.storage);
  return true;
}

void Environment::releaseStorage(Storage* storage) {
  if (--storage->claims > 0) return;
  slot(storage->device).device->release(storage->block);
  noteExternalBytes(-static_cast<int64_t>(storage->block.requested));
  delete storage;
}

void Environment::noteExternalBytes(int64_t delta) {
  unreportedBytes_ += delta;
  if (std::llabs(unreportedBytes_) < kReportStep) return;
  Napi::MemoryManagement::AdjustExternalMemory(env_, std::exchange(unreportedBytes_, 0));
}

Napi::Value Environment::read(int device, const void* source, size_t bytes, Napi::Value target) {
  DeviceSlot& from = slot(device);
  auto* read =
      new PendingRead{this, from.session.get(), {}, Napi::Promise::Deferred::New(env_), {}};
  void* destination = nullptr;
  if (target.IsArrayBuffer()) {
    destination = target.As<Napi::ArrayBuffer>().Data();
    read->target = Napi::Persistent(target.As<Napi::Object>());
  }
  if (pending_.empty()) completions_.Ref(env_);
  pending_.insert(read);
  from.device->download(
      source, destination, bytes, *from.session,
      [](void* context) {
        auto* done = static_cast<PendingRead*>(context);
        // Taken here, in queue order: by the time JavaScript hears of it, a later op may have failed as well.
        done->failure = done->session->take();
        done->environment->completions_.NonBlockingCall(
            done, [](Napi::Env, Napi::Function, PendingRead* finished) {
              finished->environment->finish(finished);
            });
      },
      read);
  return read->deferred.Promise();
}

void Environment::finish(PendingRead* read) {
  // Owned from here on: the calls below throw when the thread is ending and takes no more JavaScript.
  const std::unique_ptr<PendingRead> owner(read);
  const Napi::HandleScope scope(env_);
  pending_.erase(read);
  if (pending_.empty()) completions_.Unref(env_);
  if (read->failure.ok())
    read->deferred.Resolve(read->target.IsEmpty() ? env_.Undefined() : read->target.Value());
  else
    read->deferred.Reject(makeError(read->failure));
}

}  // namespace didr::addon
