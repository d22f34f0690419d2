// Reading the arguments of one call from JavaScript, and the wrapper that every exported function goes through.
//
// TypeScript has checked the arguments and words errors for people; the checks here keep a wrong call from touching
// memory it must not, whoever makes it.
#pragma once

#include <napi.h>

#include <new>
#include <string>

#include "native/addon/environment.h"

namespace didr::addon {

class Call {
 public:
  explicit Call(const Napi::CallbackInfo& info)
      : info_(info), environment_(Environment::of(info.Env())) {}

  Napi::Env env() const { return info_.Env(); }
  Environment& environment() const { return environment_; }

  Napi::Value value(size_t index) const { return info_[index]; }
  double number(size_t index, const char* name) const;
  int64_t integer(size_t index, const char* name, int64_t least, int64_t most) const;
  // An unsigned 53-bit integer: seeds and offsets.
  uint64_t natural(size_t index, const char* name) const;
  bool flag(size_t index, const char* name) const;
  std::string text(size_t index, const char* name) const;
  DType dtype(size_t index, const char* name) const;
  Shape shape(size_t index, const char* name) const;
  int device(size_t index, const char* name) const;
  bool isNull(size_t index) const { return info_[index].IsNull() || info_[index].IsUndefined(); }

  TensorRecord tensor(size_t index, const char* name) const;
  // The same on the given device and, where given, of the dtype and element count.
  TensorRecord tensorLike(size_t index, const char* name, const TensorRecord& model) const;
  TensorRecord tensorOf(size_t index, const char* name, int device, DType dtype,
                        int64_t count) const;
  TensorRecord tensorFrom(Napi::Value value, const char* name) const;

 private:
  const Napi::CallbackInfo& info_;
  Environment& environment_;
};

// An output of the running call: disposed again unless the call gets as far as id().
class Output {
 public:
  Output(const Call& call, int device, DType dtype, const Shape& shape)
      : environment_(call.environment()), id_(environment_.create(device, dtype, shape)) {}
  ~Output() {
    if (!kept_) environment_.dispose(id_);
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  const TensorRecord& record() const { return *environment_.find(id_); }
  void* data() const { return record().data(); }
  Napi::Value id(const Call& call) {
    kept_ = true;
    return Napi::Number::New(call.env(), id_);
  }

 private:
  Environment& environment_;
  double id_;
  bool kept_ = false;
};

template <class Arguments>
void submit(const Call& call, int device, Op op, const Arguments& arguments) {
  DeviceSlot& slot = call.environment().slot(device);
  check(slot.device->submit(op, arguments, *slot.session));
}

using Implementation = Napi::Value (*)(const Call& call);

// Turns Failure and bad_alloc into a JavaScript exception: no C++ exception leaves the addon.
template <Implementation implementation>
Napi::Value entry(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  try {
    return implementation(Call(info));
  } catch (const Failure& failure) {
    napi_throw(env, Environment::of(env).makeError(failure.status));
  } catch (const std::bad_alloc&) {
    napi_throw(env,
               Environment::of(env).makeError({Code::kOutOfMemory, "the host is out of memory"}));
  }
  return env.Undefined();
}

template <Implementation implementation>
void exportFunction(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<entry<implementation>>(exports.Env(), name));
}

// Each family adds its functions to the exports; lib/native/binding.ts declares them.
void exportDevices(Napi::Object exports);
void exportTensors(Napi::Object exports);
void exportTensorOps(Napi::Object exports);
void exportRandomOps(Napi::Object exports);
void exportDidrOps(Napi::Object exports);
void exportNnOps(Napi::Object exports);
void exportGradientOps(Napi::Object exports);
void exportOptimOps(Napi::Object exports);

}  // namespace didr::addon
