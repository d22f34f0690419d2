// Devices, their description and their counters.
#include "native/addon/call.h"
#include "native/core/runtime.h"

namespace didr::addon {
namespace {

// openDevice(kind, index) -> the device's number in this environment
Napi::Value openDevice(const Call& call) {
  constexpr int64_t kMostDevices = 1023;
  const std::string kind = call.text(0, "kind");
  const auto index = static_cast<int>(call.integer(1, "index", 0, kMostDevices));
  Device* device = nullptr;
  if (kind == "cpu") {
    device = &Runtime::get()->cpu();
  } else if (kind == "cuda") {
    Status status;
    device = Runtime::get()->cuda(index, status);
    check(std::move(status));
  } else {
    fail(Code::kDevice, "kind: expected cpu or cuda");
  }
  return Napi::Number::New(call.env(), call.environment().slotFor(*device));
}

// deviceInfo(device) -> { name: value, ... }, all strings
Napi::Value deviceInfo(const Call& call) {
  const int device = call.device(0, "device");
  Napi::Object result = Napi::Object::New(call.env());
  for (const auto& [name, value] : call.environment().slot(device).device->info())
    result.Set(name, Napi::String::New(call.env(), value));
  return result;
}

// counters(device) -> [tensors of this thread, live bytes, pooled bytes, peak bytes]
Napi::Value counters(const Call& call) {
  const MemoryCounters bytes = call.environment().slot(call.device(0, "device")).device->counters();
  Napi::Array result = Napi::Array::New(call.env(), 4);
  const double values[] = {
      static_cast<double>(call.environment().liveTensors()), static_cast<double>(bytes.liveBytes),
      static_cast<double>(bytes.pooledBytes), static_cast<double>(bytes.peakBytes)};
  for (uint32_t i = 0; i < 4; ++i) result.Set(i, Napi::Number::New(call.env(), values[i]));
  return result;
}

Napi::Value resetPeak(const Call& call) {
  call.environment().slot(call.device(0, "device")).device->resetPeak();
  return call.env().Undefined();
}

// trim(device) -> bytes given back to the system
Napi::Value trim(const Call& call) {
  const size_t freed = call.environment().slot(call.device(0, "device")).device->trim();
  return Napi::Number::New(call.env(), static_cast<double>(freed));
}

// synchronize(device) -> promise that resolves when all work submitted so far is done
Napi::Value synchronize(const Call& call) {
  return call.environment().read(call.device(0, "device"), nullptr, 0, call.env().Undefined());
}

}  // namespace

void exportDevices(Napi::Object exports) {
  exportFunction<openDevice>(exports, "openDevice");
  exportFunction<deviceInfo>(exports, "deviceInfo");
  exportFunction<counters>(exports, "counters");
  exportFunction<resetPeak>(exports, "resetPeak");
  exportFunction<trim>(exports, "trim");
  exportFunction<synchronize>(exports, "synchronize");
}

}  // namespace didr::addon
