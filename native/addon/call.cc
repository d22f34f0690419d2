#include "native/addon/call.h"

#include <cmath>

namespace didr::addon {
namespace {

constexpr int64_t kMostExact = int64_t{1} << 53;

[[noreturn]] void refuse(const char* name, const std::string& expected) {
  fail(Code::kConfig, std::string(name) + ": expected " + expected);
}

}  // namespace

double Call::number(size_t index, const char* name) const {
  const Napi::Value value = info_[index];
  if (!value.IsNumber()) refuse(name, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

int64_t Call::integer(size_t index, const char* name, int64_t least, int64_t most) const {
  const double value = number(index, name);
  if (!(value >= static_cast<double>(least) && value <= static_cast<double>(most)) ||
      value != std::floor(value))
    fail(Code::kRange, std::string(name) + ": expected an integer from " + std::to_string(least) +
                           " to " + std::to_string(most));
  return static_cast<int64_t>(value);
}

uint64_t Call::natural(size_t index, const char* name) const {
  return static_cast<uint64_t>(integer(index, name, 0, kMostExact));
}

bool Call::flag(size_t index, const char* name) const {
  const Napi::Value value = info_[index];
  if (!value.IsBoolean()) refuse(name, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

std::string Call::text(size_t index, const char* name) const {
  const Napi::Value value = info_[index];
  if (!value.IsString()) refuse(name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

DType Call::dtype(size_t index, const char* name) const {
  return static_cast<DType>(integer(index, name, 0, kDTypeCount - 1));
}

Shape Call::shape(size_t index, const char* name) const {
  const Napi::Value value = info_[index];
  if (!value.IsArray()) refuse(name, "an array of sizes");
  const auto array = value.As<Napi::Array>();
  const uint32_t rank = array.Length();
  if (rank > static_cast<uint32_t>(kMaxRank))
    fail(Code::kShape, std::string(name) + ": expected at most " + std::to_string(kMaxRank) +
                           " axes, got " + std::to_string(rank));
  Shape shape;
  // The product of the non-zero sizes has to stay exact as well, or strides would overflow.
  double span = 1;
  for (uint32_t axis = 0; axis < rank; ++axis) {
    const Napi::Value item = array.Get(axis);
    const double size = item.IsNumber() ? item.As<Napi::Number>().DoubleValue() : -1;
    if (!(size >= 0) || size != std::floor(size)) refuse(name, "sizes that are integers from 0");
    span *= size > 0 ? size : 1;
    if (span > kMostElements)
      fail(Code::kShape, std::string(name) + ": the number of elements is past 2^50");
    shape.push(static_cast<int64_t>(size));
  }
  return shape;
}

int Call::device(size_t index, const char* name) const {
  const auto devices = static_cast<int64_t>(environment_.devices().size());
  if (devices == 0) fail(Code::kDevice, std::string(name) + ": no device is open");
  return static_cast<int>(integer(index, name, 0, devices - 1));
}

TensorRecord Call::tensorFrom(Napi::Value value, const char* name) const {
  if (!value.IsNumber()) refuse(name, "a tensor");
  const TensorRecord* record = environment_.find(value.As<Napi::Number>().DoubleValue());
  if (record == nullptr) fail(Code::kDisposed, std::string(name) + ": the tensor is disposed");
  return *record;
}

TensorRecord Call::tensor(size_t index, const char* name) const {
  return tensorFrom(info_[index], name);
}

TensorRecord Call::tensorLike(size_t index, const char* name, const TensorRecord& model) const {
  const TensorRecord record = tensor(index, name);
  if (record.storage->device != model.storage->device)
    fail(Code::kDevice, std::string(name) + ": the tensors are on different devices");
  if (record.dtype != model.dtype)
    fail(Code::kDtype,
         std::string(name) + ": expected " + nameOf(model.dtype) + ", got " + nameOf(record.dtype));
  return record;
}

TensorRecord Call::tensorOf(size_t index, const char* name, int device, DType dtype,
                            int64_t count) const {
  const TensorRecord record = tensor(index, name);
  if (record.storage->device != device)
    fail(Code::kDevice, std::string(name) + ": the tensors are on different devices");
  if (record.dtype != dtype)
    fail(Code::kDtype,
         std::string(name) + ": expected " + nameOf(dtype) + ", got " + nameOf(record.dtype));
  if (record.count() != count)
    fail(Code::kShape, std::string(name) + ": expected " + std::to_string(count) +
                           " elements, got " + std::to_string(record.count()));
  return record;
}

}  // namespace didr::addon
