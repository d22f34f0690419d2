// The multi-tensor ops of the optimisers: lists of tensors become a table of rows on the device.
#include <cmath>
#include <cstring>
#include <vector>

#include "native/addon/call.h"
#include "native/ops/optim/adamw.h"
#include "native/ops/optim/ema.h"
#include "native/ops/optim/gradient_norm.h"

namespace didr::addon {
namespace {

// The tensors of one argument, all on one device.
class TensorList {
 public:
  TensorList(const Call& call, size_t index, const char* name) : name_(name) {
    const Napi::Value value = call.value(index);
    if (!value.IsArray()) fail(Code::kConfig, std::string(name) + ": expected an array of tensors");
    const auto items = value.As<Napi::Array>();
    records_.reserve(items.Length());
    for (uint32_t i = 0; i < items.Length(); ++i) {
      const Napi::Value item = items.Get(i);
      records_.push_back(item.IsNull() ? TensorRecord{} : call.tensorFrom(item, name));
    }
  }

  size_t size() const { return records_.size(); }
  bool has(size_t i) const { return records_[i].storage != nullptr; }
  const TensorRecord& operator[](size_t i) const { return records_[i]; }

  const TensorRecord& at(size_t i, int device) const {
    if (!has(i)) refuse(i, Code::kConfig, "expected a tensor");
    if (records_[i].storage->device != device)
      refuse(i, Code::kDevice, "the tensors are on different devices");
    return records_[i];
  }
  const TensorRecord& floats(size_t i, int device) const {
    const TensorRecord& record = at(i, device);
    if (record.dtype != DType::kFloat32 && record.dtype != DType::kBFloat16)
      refuse(i, Code::kDtype,
             std::string("expected float32 or bfloat16, got ") + nameOf(record.dtype));
    return record;
  }
  float* float32(size_t i, int device, int64_t count) const {
    const TensorRecord& record = at(i, device);
    if (record.dtype != DType::kFloat32)
      refuse(i, Code::kDtype, std::string("expected float32, got ") + nameOf(record.dtype));
    expectCount(i, count);
    return static_cast<float*>(record.data());
  }
  void expectCount(size_t i, int64_t count) const {
    if (records_[i].count() != count)
      refuse(i, Code::kShape,
             "expected " + std::to_string(count) + " elements, got " +
                 std::to_string(records_[i].count()));
  }
  void expectSize(size_t size) const {
    if (records_.size() != size)
      fail(Code::kShape, std::string(name_) + ": expected " + std::to_string(size) +
                             " tensors, got " + std::to_string(records_.size()));
  }

 private:
  [[noreturn]] void refuse(size_t i, Code code, const std::string& reason) const {
    fail(code, std::string(name_) + "[" + std::to_string(i) + "]: " + reason);
  }

  const char* name_;
  std::vector<TensorRecord> records_;
};

// A table of rows in device memory that is freed, in queue order, when the call returns.
template <class Row>
class Table {
 public:
  Table(const Call& call, int device, const std::vector<Row>& rows)
      : environment_(call.environment()) {
    Shape shape;
    shape.push(static_cast<int64_t>(rows.size() * sizeof(Row)));
    id_ = environment_.createFrom(device, DType::kUint8, shape, rows.data());
  }
  ~Table() { environment_.dispose(id_); }
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  const Row* rows() const { return static_cast<const Row*>(environment_.find(id_)->data()); }

 private:
  Environment& environment_;
  double id_;
};

Shape vectorOf(int64_t size) {
  Shape shape;
  shape.push(size);
  return shape;
}

// gradientNorm(device, gradients, maxNorm) -> [norm, clip]
Napi::Value gradientNorm(const Call& call) {
  const int device = call.device(0, "device");
  const TensorList gradients(call, 1, "gradients");
  const double maxNorm = call.number(2, "maxNorm");
  if (!(maxNorm > 0)) fail(Code::kRange, "maxNorm: expected a positive number");
  std::vector<GradientRow> rows;
  rows.reserve(gradients.size());
  int64_t blocks = 0;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const TensorRecord& gradient = gradients.floats(i, device);
    rows.push_back({gradient.data(), gradient.count(), blocks, gradient.dtype});
    blocks += listBlocks(gradient.count());
  }
  const Table<GradientRow> table(call, device, rows);
  const Output partials(call, device, DType::kUint8,
                        vectorOf(blocks * static_cast<int64_t>(sizeof(double))));
  const Output fault(call, device, DType::kUint8,
                     vectorOf(static_cast<int64_t>(sizeof(GradientFault))));
  Output norm(call, device, DType::kFloat32, Shape{});
  Output clip(call, device, DType::kFloat32, Shape{});
  submit(call, device, Op::gradientNorm,
         GradientNormArgs{table.rows(), static_cast<int64_t>(rows.size()), blocks,
                          static_cast<double*>(partials.data()), static_cast<float*>(norm.data()),
                          static_cast<float*>(clip.data()), maxNorm,
                          static_cast<GradientFault*>(fault.data())});
  Napi::Array result = Napi::Array::New(call.env(), 2);
  result.Set(0u, norm.id(call));
  result.Set(1u, clip.id(call));
  return result;
}

// adamw(parameters, gradients, firstMoments, secondMoments, masters, steps, clip, settings): in place; settings are
// five numbers per parameter: learning rate, beta1, beta2, eps, weight decay
Napi::Value adamw(const Call& call) {
  constexpr size_t kSettings = 5;
  const TensorList parameters(call, 0, "parameters");
  const TensorList gradients(call, 1, "gradients");
  const TensorList firstMoments(call, 2, "firstMoments");
  const TensorList secondMoments(call, 3, "secondMoments");
  const TensorList masters(call, 4, "masters");
  const TensorList steps(call, 5, "steps");
  const TensorRecord clip = call.tensor(6, "clip");
  for (const TensorList* list : {&gradients, &firstMoments, &secondMoments, &masters, &steps})
    list->expectSize(parameters.size());
  const int device = clip.storage->device;
  call.tensorOf(6, "clip", device, DType::kFloat32, 1);

  const Napi::Value values = call.value(7);
  if (!values.IsTypedArray() ||
      values.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array ||
      values.As<Napi::TypedArray>().ElementLength() != kSettings * parameters.size())
    fail(Code::kConfig, "settings: expected a Float64Array of five numbers per parameter");
  const auto settings = values.As<Napi::Float64Array>();

  std::vector<AdamwRow> rows;
  rows.reserve(parameters.size());
  int64_t blocks = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const TensorRecord& parameter = parameters.floats(i, device);
    const TensorRecord& gradient = gradients.floats(i, device);
    const int64_t count = parameter.count();
    gradients.expectCount(i, count);
    if (masters.has(i) != (parameter.dtype == DType::kBFloat16))
      fail(Code::kConfig, "masters: expected one for each bfloat16 parameter and for no other");
    const TensorRecord& step = steps.at(i, device);
    steps.expectCount(i, 1);
    if (step.dtype != DType::kInt32) fail(Code::kDtype, "steps: expected int32");
    rows.push_back({parameter.data(), gradient.data(), firstMoments.float32(i, device, count),
                    secondMoments.float32(i, device, count),
                    masters.has(i) ? masters.float32(i, device, count) : nullptr,
                    static_cast<int32_t*>(step.data()), count, blocks, settings[kSettings * i],
                    settings[kSettings * i + 1], settings[kSettings * i + 2],
                    settings[kSettings * i + 3], settings[kSettings * i + 4], parameter.dtype,
                    gradient.dtype});
    blocks += listBlocks(count);
  }
  const Table<AdamwRow> table(call, device, rows);
  submit(call, device, Op::adamw,
         AdamwArgs{table.rows(), static_cast<int64_t>(rows.size()), blocks,
                   static_cast<const float*>(clip.data())});
  return call.env().Undefined();
}

// ema(device, averages, values, decay): in place
Napi::Value ema(const Call& call) {
  const int device = call.device(0, "device");
  const TensorList averages(call, 1, "averages");
  const TensorList values(call, 2, "values");
  const double decay = call.number(3, "decay");
  if (!(decay >= 0 && decay <= 1)) fail(Code::kRange, "decay: expected a number from 0 to 1");
  values.expectSize(averages.size());
  std::vector<EmaRow> rows;
  rows.reserve(averages.size());
  int64_t blocks = 0;
  for (size_t i = 0; i < averages.size(); ++i) {
    const TensorRecord& value = values.floats(i, device);
    rows.push_back({averages.float32(i, device, value.count()), value.data(), value.count(), blocks,
                    value.dtype});
    blocks += listBlocks(value.count());
  }
  const Table<EmaRow> table(call, device, rows);
  submit(call, device, Op::ema,
         EmaArgs{table.rows(), static_cast<int64_t>(rows.size()), blocks, decay});
  return call.env().Undefined();
}

}  // namespace

void exportOptimOps(Napi::Object exports) {
  exportFunction<gradientNorm>(exports, "gradientNorm");
  exportFunction<adamw>(exports, "adamw");
  exportFunction<ema>(exports, "ema");
}

}  // namespace didr::addon
