// A tensor's life: creation, views, reading, disposal.
#include <cstring>

#include "native/addon/call.h"

namespace didr::addon {
namespace {

// upload(device, dtype, shape, typed array) -> id; the array's bytes are the tensor's elements
Napi::Value upload(const Call& call) {
  const int device = call.device(0, "device");
  const DType dtype = call.dtype(1, "dtype");
  const Shape shape = call.shape(2, "shape");
  const Napi::Value values = call.value(3);
  if (!values.IsTypedArray()) fail(Code::kConfig, "values: expected a typed array");
  const size_t given = values.As<Napi::TypedArray>().ByteLength();
  const size_t bytes = static_cast<size_t>(shape.count()) * sizeOf(dtype);
  if (given != bytes)
    fail(Code::kShape,
         "values: expected " + std::to_string(bytes) + " bytes, got " + std::to_string(given));
  // Asked for directly: node-addon-api reaches the bytes through the buffer object, which has to be unshared.
  void* source = nullptr;
  napi_get_typedarray_info(call.env(), values, nullptr, nullptr, &source, nullptr, nullptr);
  return Napi::Number::New(call.env(), call.environment().createFrom(device, dtype, shape, source));
}

// view(tensor, shape) -> id of a tensor on the same memory
Napi::Value view(const Call& call) {
  // Shapes before tensors, here and in every op: reading an array may run JavaScript that disposes a tensor.
  const Shape shape = call.shape(1, "shape");
  const TensorRecord x = call.tensor(0, "x");
  if (shape.count() != x.count())
    fail(Code::kShape,
         "shape: " + shape.text() + " has another number of elements than " + x.shape.text());
  return Napi::Number::New(call.env(), call.environment().createView(x, shape));
}

// read(tensor, ArrayBuffer) -> promise of the buffer, filled
Napi::Value read(const Call& call) {
  const TensorRecord x = call.tensor(0, "x");
  const Napi::Value target = call.value(1);
  if (!target.IsArrayBuffer() || target.As<Napi::ArrayBuffer>().ByteLength() != x.bytes())
    fail(Code::kConfig, "target: expected an ArrayBuffer of the tensor's bytes");
  return call.environment().read(x.storage->device, x.data(), x.bytes(), target);
}

// readSync(tensor, ArrayBuffer) fills the buffer, blocking the calling thread
Napi::Value readSync(const Call& call) {
  const TensorRecord x = call.tensor(0, "x");
  const Napi::Value target = call.value(1);
  if (!target.IsArrayBuffer() || target.As<Napi::ArrayBuffer>().ByteLength() != x.bytes())
    fail(Code::kConfig, "target: expected an ArrayBuffer of the tensor's bytes");
  DeviceSlot& slot = call.environment().slot(x.storage->device);
  slot.device->download(
      x.data(), target.As<Napi::ArrayBuffer>().Data(), x.bytes(), *slot.session, [](void*) {},
      nullptr);
  slot.device->wait();
  check(slot.session->take());
  return call.env().Undefined();
}

// dispose(id) -> whether it was alive
Napi::Value dispose(const Call& call) {
  return Napi::Boolean::New(call.env(), call.environment().dispose(call.number(0, "id")));
}

}  // namespace

void exportTensors(Napi::Object exports) {
  exportFunction<upload>(exports, "upload");
  exportFunction<view>(exports, "view");
  exportFunction<read>(exports, "read");
  exportFunction<readSync>(exports, "readSync");
  exportFunction<dispose>(exports, "dispose");
}

}  // namespace didr::addon
