// The module's entry. Loaded once per JavaScript thread; devices are shared by the process, tensors are not.
#include <napi.h>

#include "native/addon/call.h"
#include "native/core/runtime.h"

namespace didr::addon {
namespace {

// init(DidrError): the class that errors are made of
Napi::Value init(const Call& call) {
  if (!call.value(0).IsFunction()) fail(Code::kConfig, "errorClass: expected a class");
  call.environment().setErrorClass(call.value(0).As<Napi::Function>());
  return call.env().Undefined();
}

Napi::Object load(Napi::Env env, Napi::Object exports) {
  if (Runtime::get() == nullptr)
    throw Napi::Error::New(env, "this build of didr needs an x86-64-v2 CPU (SSE4.2) or newer");
  env.SetInstanceData(new Environment(env));
  exportFunction<init>(exports, "init");
  exportDevices(exports);
  exportTensors(exports);
  exportTensorOps(exports);
  exportRandomOps(exports);
  exportDidrOps(exports);
  exportNnOps(exports);
  exportGradientOps(exports);
  exportOptimOps(exports);
  return exports;
}

}  // namespace
}  // namespace didr::addon

static Napi::Object initializeModule(Napi::Env env, Napi::Object exports) {
  return didr::addon::load(env, exports);
}
NODE_API_MODULE(didr, initializeModule)
