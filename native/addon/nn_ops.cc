// The fused network ops. Rows are all axes but the last, samples the first axis of a modulation.
#include <initializer_list>
#include <optional>

#include "native/addon/call.h"
#include "native/ops/op_headers.h"

namespace didr::addon {
namespace {

Napi::Value list(const Call& call, std::initializer_list<Napi::Value> values) {
  Napi::Array result = Napi::Array::New(call.env(), values.size());
  uint32_t i = 0;
  for (const Napi::Value& value : values) result.Set(i++, value);
  return result;
}

Shape shapeOf(std::initializer_list<int64_t> sizes) {
  Shape shape;
  for (const int64_t size : sizes) shape.push(size);
  return shape;
}

// A result that may be absent: null in JavaScript, a null pointer in the arguments.
class OptionalOutput {
 public:
  OptionalOutput(const Call& call, bool wanted, int device, DType dtype, const Shape& shape) {
    if (wanted) output_.emplace(call, device, dtype, shape);
  }
  float* data() const { return output_ ? static_cast<float*>(output_->data()) : nullptr; }
  Napi::Value id(const Call& call) { return output_ ? output_->id(call) : call.env().Null(); }

 private:
  std::optional<Output> output_;
};

// The tensor that gives an op its device, dtype and shape.
struct Model {
  TensorRecord record;
  int device;
  DType dtype;

  Model(const Call& call, size_t index, const char* name)
      : record(call.tensor(index, name)), device(record.storage->device), dtype(record.dtype) {
    if (dtype != DType::kFloat32 && dtype != DType::kBFloat16)
      fail(Code::kDtype,
           std::string(name) + ": expected float32 or bfloat16, got " + nameOf(dtype));
  }

  const Shape& shape() const { return record.shape; }
  void expectRank(const char* name, int least, int most) const {
    if (shape().rank < least || shape().rank > most)
      fail(Code::kShape, std::string(name) + ": unexpected number of axes in " + shape().text());
  }
  void expectFloat32(const char* name) const {
    if (dtype != DType::kFloat32)
      fail(Code::kDtype, std::string(name) + ": expected float32, got " + nameOf(dtype));
  }
  int64_t size() const { return shape().rank == 0 ? 1 : shape()[shape().rank - 1]; }
  int64_t rows() const { return shape().product(0, shape().rank - 1); }

  // Tensors on the same device: of the model's dtype, or float32.
  const void* tensor(const Call& call, size_t index, const char* name, int64_t count) const {
    return call.tensorOf(index, name, device, dtype, count).data();
  }
  const void* tensorOrNull(const Call& call, size_t index, const char* name, int64_t count) const {
    return call.isNull(index) ? nullptr : tensor(call, index, name, count);
  }
  const float* floats(const Call& call, size_t index, const char* name, int64_t count) const {
    return static_cast<const float*>(
        call.tensorOf(index, name, device, DType::kFloat32, count).data());
  }
};

// Rows that share one row of a modulation [samples, size].
int64_t rowsPerSample(const Call& call, size_t index, const char* name, const Model& x) {
  const int64_t rows = x.rows();
  const int64_t size = x.size();
  const TensorRecord modulation = call.tensor(index, name);
  const int64_t samples = size == 0 ? 1 : modulation.count() / size;
  if (modulation.count() != samples * size || (samples == 0 ? rows != 0 : rows % samples != 0))
    fail(Code::kShape, std::string(name) + ": " + modulation.shape.text() +
                           " does not divide the rows of " + x.shape().text());
  return samples == 0 || rows == 0 ? 1 : rows / samples;
}

// activationBackward(activation, x, dy)
Napi::Value activationBackward(const Call& call) {
  const auto activation =
      static_cast<Activation>(call.integer(0, "activation", 0, static_cast<int>(kLastActivation)));
  const Model x(call, 1, "x");
  const int64_t count = x.record.count();
  const void* dy = x.tensor(call, 2, "dy", count);
  Output dx(call, x.device, x.dtype, x.shape());
  submit(call, x.device, Op::activationBackward,
         ActivationBackwardArgs{x.record.data(), dy, dx.data(), count, activation, x.dtype});
  return dx.id(call);
}

// embedding(table, ids)
Napi::Value embedding(const Call& call) {
  const Model table(call, 0, "table");
  table.expectRank("table", 2, 2);
  const TensorRecord ids = call.tensor(1, "ids");
  call.tensorOf(1, "ids", table.device, DType::kInt32, ids.count());
  Shape shape = ids.shape;
  if (shape.rank == kMaxRank) fail(Code::kShape, "ids: too many axes");
  shape.push(table.size());
  Output y(call, table.device, table.dtype, shape);
  const Output outside(call, table.device, DType::kInt32, shapeOf({1}));
  submit(call, table.device, Op::embedding,
         EmbeddingArgs{table.record.data(), static_cast<const int32_t*>(ids.data()), y.data(),
                       static_cast<int32_t*>(outside.data()), ids.count(), table.rows(),
                       table.size(), table.dtype});
  return y.id(call);
}

// embeddingBackward(dy, ids, vocabulary)
Napi::Value embeddingBackward(const Call& call) {
  const Model dy(call, 0, "dy");
  dy.expectFloat32("dy");
  dy.expectRank("dy", 1, kMaxRank);
  const TensorRecord ids = call.tensorOf(1, "ids", dy.device, DType::kInt32, dy.rows());
  const int64_t vocabulary = call.integer(2, "vocabulary", 0, INT32_MAX);
  Output dTable(call, dy.device, DType::kFloat32, shapeOf({vocabulary, dy.size()}));
  submit(call, dy.device, Op::embeddingBackward,
         EmbeddingBackwardArgs{
             static_cast<const float*>(dy.record.data()), static_cast<const int32_t*>(ids.data()),
             static_cast<float*>(dTable.data()), dy.rows(), vocabulary, dy.size()});
  return dTable.id(call);
}

// rmsNorm(x, weight or null, scale or null, epsilon) -> [y, rstd]
Napi::Value rmsNorm(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 1, kMaxRank);
  NormArgs arguments{};
  arguments.kind = NormKind::kRms;
  arguments.x = x.record.data();
  arguments.dtype = x.dtype;
  arguments.rows = x.rows();
  arguments.size = x.size();
  arguments.weight = x.tensorOrNull(call, 1, "weight", x.size());
  arguments.rowsPerSample = call.isNull(2) ? x.rows() : rowsPerSample(call, 2, "scale", x);
  if (!call.isNull(2))
    arguments.scale = x.tensor(call, 2, "scale", call.tensor(2, "scale").count());
  arguments.epsilon = static_cast<float>(call.number(3, "epsilon"));
  Output y(call, x.device, x.dtype, x.shape());
  Output rstd(call, x.device, DType::kFloat32, shapeOf({x.rows()}));
  arguments.y = y.data();
  arguments.rstd = static_cast<float*>(rstd.data());
  submit(call, x.device, Op::norm, arguments);
  return list(call, {y.id(call), rstd.id(call)});
}

// rmsNormBackward(x, dy, weight or null, scale or null, rstd) -> [dx, dweight or null, dscale or
// null]
Napi::Value rmsNormBackward(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 1, kMaxRank);
  NormBackwardArgs arguments{};
  arguments.kind = NormKind::kRms;
  arguments.x = x.record.data();
  arguments.dtype = x.dtype;
  arguments.rows = x.rows();
  arguments.size = x.size();
  arguments.dy = x.tensor(call, 1, "dy", x.record.count());
  arguments.weight = x.tensorOrNull(call, 2, "weight", x.size());
  arguments.rowsPerSample = x.rows();
  Shape scaleShape;
  if (!call.isNull(3)) {
    arguments.rowsPerSample = rowsPerSample(call, 3, "scale", x);
    scaleShape = call.tensor(3, "scale").shape;
    arguments.scale = x.tensor(call, 3, "scale", scaleShape.count());
  }
  arguments.rstd = x.floats(call, 4, "rstd", x.rows());
  Output dx(call, x.device, x.dtype, x.shape());
  OptionalOutput dweight(call, arguments.weight != nullptr, x.device, DType::kFloat32,
                         shapeOf({x.size()}));
  OptionalOutput dscale(call, arguments.scale != nullptr, x.device, DType::kFloat32, scaleShape);
  const Output partials(
      call, x.device, DType::kFloat32,
      shapeOf({normPartials(arguments.rows, arguments.rowsPerSample, arguments.size)}));
  arguments.dx = dx.data();
  arguments.dweight = dweight.data();
  arguments.dscale = dscale.data();
  arguments.partials = static_cast<float*>(partials.data());
  submit(call, x.device, Op::normBackward, arguments);
  return list(call, {dx.id(call), dweight.id(call), dscale.id(call)});
}

// The sample size that scale and shift agree on; either may be null.
int64_t modulatedRows(const Call& call, size_t scale, size_t shift, const Model& x) {
  if (call.isNull(scale) && call.isNull(shift)) return x.rows();
  const int64_t rows = call.isNull(scale) ? rowsPerSample(call, shift, "shift", x)
                                          : rowsPerSample(call, scale, "scale", x);
  if (!call.isNull(shift) && rowsPerSample(call, shift, "shift", x) != rows)
    fail(Code::kShape, "shift: expected the shape of scale");
  return rows;
}

// layerNorm(x, weight, bias, scale, shift, epsilon), each but x and epsilon may be null -> [y,
// mean, rstd]
Napi::Value layerNorm(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 1, kMaxRank);
  NormArgs arguments{};
  arguments.kind = NormKind::kLayer;
  arguments.x = x.record.data();
  arguments.dtype = x.dtype;
  arguments.rows = x.rows();
  arguments.size = x.size();
  arguments.weight = x.tensorOrNull(call, 1, "weight", x.size());
  arguments.bias = x.tensorOrNull(call, 2, "bias", x.size());
  arguments.rowsPerSample = modulatedRows(call, 3, 4, x);
  if (!call.isNull(3))
    arguments.scale = x.tensor(call, 3, "scale", call.tensor(3, "scale").count());
  if (!call.isNull(4))
    arguments.shift = x.tensor(call, 4, "shift", call.tensor(4, "shift").count());
  arguments.epsilon = static_cast<float>(call.number(5, "epsilon"));
  Output y(call, x.device, x.dtype, x.shape());
  Output mean(call, x.device, DType::kFloat32, shapeOf({x.rows()}));
  Output rstd(call, x.device, DType::kFloat32, shapeOf({x.rows()}));
  arguments.y = y.data();
  arguments.mean = static_cast<float*>(mean.data());
  arguments.rstd = static_cast<float*>(rstd.data());
  submit(call, x.device, Op::norm, arguments);
  return list(call, {y.id(call), mean.id(call), rstd.id(call)});
}

// layerNormBackward(x, dy, weight, bias, scale, shift, mean, rstd), weight to shift may be null
// -> [dx, dweight, dbias, dscale, dshift], null where the operand is
Napi::Value layerNormBackward(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 1, kMaxRank);
  NormBackwardArgs arguments{};
  arguments.kind = NormKind::kLayer;
  arguments.x = x.record.data();
  arguments.dtype = x.dtype;
  arguments.rows = x.rows();
  arguments.size = x.size();
  arguments.dy = x.tensor(call, 1, "dy", x.record.count());
  arguments.weight = x.tensorOrNull(call, 2, "weight", x.size());
  arguments.bias = x.tensorOrNull(call, 3, "bias", x.size());
  arguments.rowsPerSample = modulatedRows(call, 4, 5, x);
  Shape scaleShape;
  Shape shiftShape;
  if (!call.isNull(4)) {
    scaleShape = call.tensor(4, "scale").shape;
    arguments.scale = x.tensor(call, 4, "scale", scaleShape.count());
  }
  if (!call.isNull(5)) shiftShape = call.tensor(5, "shift").shape;
  arguments.mean = x.floats(call, 6, "mean", x.rows());
  arguments.rstd = x.floats(call, 7, "rstd", x.rows());
  const DType float32 = DType::kFloat32;
  Output dx(call, x.device, x.dtype, x.shape());
  OptionalOutput dweight(call, !call.isNull(2), x.device, float32, shapeOf({x.size()}));
  OptionalOutput dbias(call, !call.isNull(3), x.device, float32, shapeOf({x.size()}));
  OptionalOutput dscale(call, !call.isNull(4), x.device, float32, scaleShape);
  OptionalOutput dshift(call, !call.isNull(5), x.device, float32, shiftShape);
  const Output partials(
      call, x.device, float32,
      shapeOf({normPartials(arguments.rows, arguments.rowsPerSample, arguments.size)}));
  arguments.dx = dx.data();
  arguments.dweight = dweight.data();
  arguments.dbias = dbias.data();
  arguments.dscale = dscale.data();
  arguments.dshift = dshift.data();
  arguments.partials = static_cast<float*>(partials.data());
  submit(call, x.device, Op::normBackward, arguments);
  return list(call,
              {dx.id(call), dweight.id(call), dbias.id(call), dscale.id(call), dshift.id(call)});
}

// groupNorm(x, weight or null, bias or null, groups, epsilon, silu) -> [y, mean, rstd]
Napi::Value groupNorm(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 2, kMaxRank);
  GroupNormArgs arguments{};
  arguments.x = x.record.data();
  arguments.dtype = x.dtype;
  arguments.batch = x.shape()[0];
  arguments.channels = x.shape()[1];
  arguments.pixels = x.shape().product(2, x.shape().rank);
  arguments.weight = x.tensorOrNull(call, 1, "weight", arguments.channels);
  arguments.bias = x.tensorOrNull(call, 2, "bias", arguments.channels);
  arguments.groups = call.integer(3, "groups", 1, int64_t{1} << 31);
  if (arguments.channels % arguments.groups != 0)
    fail(Code::kShape, "groups: expected a divisor of the channels of " + x.shape().text());
  arguments.epsilon = static_cast<float>(call.number(4, "epsilon"));
  arguments.silu = call.flag(5, "silu");
  Output y(call, x.device, x.dtype, x.shape());
  const Shape statistics = shapeOf({arguments.batch, arguments.groups});
  Output mean(call, x.device, DType::kFloat32, statistics);
  Output rstd(call, x.device, DType::kFloat32, statistics);
  arguments.y = y.data();
  arguments.mean = static_cast<float*>(mean.data());
  arguments.rstd = static_cast<float*>(rstd.data());
  submit(call, x.device, Op::groupNorm, arguments);
  return list(call, {y.id(call), mean.id(call), rstd.id(call)});
}

// groupNormBackward(x, dy, weight or null, bias or null, mean, rstd, silu)
// -> [dx, dweight or null, dbias or null]
Napi::Value groupNormBackward(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 2, kMaxRank);
  GroupNormBackwardArgs arguments{};
  arguments.x = x.record.data();
  arguments.dtype = x.dtype;
  arguments.batch = x.shape()[0];
  arguments.channels = x.shape()[1];
  arguments.pixels = x.shape().product(2, x.shape().rank);
  arguments.dy = x.tensor(call, 1, "dy", x.record.count());
  arguments.weight = x.tensorOrNull(call, 2, "weight", arguments.channels);
  arguments.bias = x.tensorOrNull(call, 3, "bias", arguments.channels);
  const TensorRecord mean = call.tensor(4, "mean");
  arguments.groups = mean.shape.rank == 2 ? mean.shape[1] : 0;
  if (arguments.groups == 0 || arguments.channels % arguments.groups != 0)
    fail(Code::kShape, "mean: expected one number per sample and group of " + x.shape().text());
  arguments.mean = x.floats(call, 4, "mean", arguments.batch * arguments.groups);
  arguments.rstd = x.floats(call, 5, "rstd", arguments.batch * arguments.groups);
  arguments.silu = call.flag(6, "silu");
  Output dx(call, x.device, x.dtype, x.shape());
  const Shape channels = shapeOf({arguments.channels});
  OptionalOutput dweight(call, !call.isNull(2), x.device, DType::kFloat32, channels);
  OptionalOutput dbias(call, !call.isNull(3), x.device, DType::kFloat32, channels);
  const Output partials(call, x.device, DType::kFloat32,
                        shapeOf({2 * arguments.batch * arguments.channels}));
  arguments.dx = dx.data();
  arguments.dweight = dweight.data();
  arguments.dbias = dbias.data();
  arguments.partials = static_cast<float*>(partials.data());
  submit(call, x.device, Op::groupNormBackward, arguments);
  return list(call, {dx.id(call), dweight.id(call), dbias.id(call)});
}

// swiGlu(a, b)
Napi::Value swiGlu(const Call& call) {
  const Model a(call, 0, "a");
  const int64_t count = a.record.count();
  const void* b = a.tensor(call, 1, "b", count);
  Output y(call, a.device, a.dtype, a.shape());
  submit(call, a.device, Op::swiGlu, SwiGluArgs{a.record.data(), b, y.data(), count, a.dtype});
  return y.id(call);
}

// swiGluBackward(a, b, dy) -> [da, db]
Napi::Value swiGluBackward(const Call& call) {
  const Model a(call, 0, "a");
  const int64_t count = a.record.count();
  const void* b = a.tensor(call, 1, "b", count);
  const void* dy = a.tensor(call, 2, "dy", count);
  Output da(call, a.device, a.dtype, a.shape());
  Output db(call, a.device, a.dtype, a.shape());
  submit(call, a.device, Op::swiGluBackward,
         SwiGluBackwardArgs{a.record.data(), b, dy, da.data(), db.data(), count, a.dtype});
  return list(call, {da.id(call), db.id(call)});
}

// gatedResidual(x, h, gate, tanh)
Napi::Value gatedResidual(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 1, kMaxRank);
  const void* h = x.tensor(call, 1, "h", x.record.count());
  const int64_t sample = rowsPerSample(call, 2, "gate", x);
  const void* gate = x.tensor(call, 2, "gate", call.tensor(2, "gate").count());
  const bool tanh = call.flag(3, "tanh");
  Output y(call, x.device, x.dtype, x.shape());
  submit(call, x.device, Op::gatedResidual,
         GatedResidualArgs{x.record.data(), h, gate, y.data(), x.rows(), x.size(), sample, tanh,
                           x.dtype});
  return y.id(call);
}

// gatedResidualBackward(h, gate, dy, tanh) -> [dh, dgate]; dx is dy
Napi::Value gatedResidualBackward(const Call& call) {
  const Model h(call, 0, "h");
  h.expectRank("h", 1, kMaxRank);
  GatedResidualBackwardArgs arguments{};
  arguments.h = h.record.data();
  arguments.dtype = h.dtype;
  arguments.rows = h.rows();
  arguments.size = h.size();
  arguments.rowsPerSample = rowsPerSample(call, 1, "gate", h);
  const TensorRecord gate = call.tensor(1, "gate");
  arguments.gate = h.tensor(call, 1, "gate", gate.count());
  arguments.dy = h.tensor(call, 2, "dy", h.record.count());
  arguments.tanh = call.flag(3, "tanh");
  Output dh(call, h.device, h.dtype, h.shape());
  Output dgate(call, h.device, DType::kFloat32, gate.shape);
  const Output partials(
      call, h.device, DType::kFloat32,
      shapeOf({rowBlocks(arguments.rows, arguments.rowsPerSample) * arguments.size}));
  arguments.dh = dh.data();
  arguments.dgate = static_cast<float*>(dgate.data());
  arguments.partials = static_cast<float*>(partials.data());
  submit(call, h.device, Op::gatedResidualBackward, arguments);
  return list(call, {dh.id(call), dgate.id(call)});
}

// rope(x, cos, sin, inverse)
Napi::Value rope(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 2, kMaxRank);
  const int64_t size = x.size();
  const int64_t heads = x.shape()[x.shape().rank - 2];
  const int64_t rows = x.shape().product(0, x.shape().rank - 2);
  if (size % 2 != 0) fail(Code::kShape, "x: expected an even last axis in " + x.shape().text());
  const TensorRecord cos = call.tensor(1, "cos");
  const int64_t tableRows = size == 0 ? rows : cos.count() / (size / 2);
  if (tableRows == 0 ? rows != 0 : rows % tableRows != 0)
    fail(Code::kShape, "cos: " + cos.shape.text() + " does not serve " + x.shape().text());
  const int64_t angles = tableRows * (size / 2);
  RopeArgs arguments{};
  arguments.x = x.record.data();
  arguments.cos = x.floats(call, 1, "cos", angles);
  arguments.sin = x.floats(call, 2, "sin", angles);
  arguments.rows = rows;
  arguments.heads = heads;
  arguments.size = size;
  arguments.tableRows = tableRows;
  arguments.inverse = call.flag(3, "inverse");
  arguments.dtype = x.dtype;
  Output y(call, x.device, x.dtype, x.shape());
  arguments.y = y.data();
  submit(call, x.device, Op::rope, arguments);
  return y.id(call);
}

// What attention and its backward pass read at the same places: q, k, v, mask.
struct AttentionOperands {
  Model q;
  TensorRecord k;
  const void* v;
  const uint8_t* mask = nullptr;
  int64_t batch, queries, keys, heads, size;

  explicit AttentionOperands(const Call& call)
      : q(call, 0, "q"), k(call.tensorLike(1, "k", q.record)) {
    q.expectRank("q", 4, 4);
    batch = q.shape()[0];
    queries = q.shape()[1];
    heads = q.shape()[2];
    size = q.shape()[3];
    keys = k.shape.rank == 4 ? k.shape[1] : 0;
    if (!(k.shape == shapeOf({batch, keys, heads, size})))
      fail(Code::kShape, "k: " + k.shape.text() + " does not go with q " + q.shape().text());
    if (size < 1 || size > kMostHeadElements)
      fail(Code::kShape, "q: expected heads of 1 to " + std::to_string(kMostHeadElements) +
                             " elements, got " + std::to_string(size));
    v = q.tensor(call, 2, "v", k.count());
    if (!call.isNull(3))
      mask = static_cast<const uint8_t*>(
          call.tensorOf(3, "mask", q.device, DType::kUint8, batch * keys).data());
  }
};

// attention(q, k, v, mask or null, scale) -> [y, logSumExp]
Napi::Value attention(const Call& call) {
  const AttentionOperands of(call);
  const auto scale = static_cast<float>(call.number(4, "scale"));
  Output y(call, of.q.device, of.q.dtype, of.q.shape());
  Output logSumExp(call, of.q.device, DType::kFloat32, shapeOf({of.batch, of.heads, of.queries}));
  submit(call, of.q.device, Op::attention,
         AttentionArgs{of.q.record.data(), of.k.data(), of.v, of.mask, y.data(),
                       static_cast<float*>(logSumExp.data()), of.batch, of.queries, of.keys,
                       of.heads, of.size, scale, of.q.dtype});
  return list(call, {y.id(call), logSumExp.id(call)});
}

// attentionBackward(q, k, v, mask or null, y, dy, logSumExp, scale) -> [dq, dk, dv]
Napi::Value attentionBackward(const Call& call) {
  const AttentionOperands of(call);
  const int64_t count = of.q.record.count();
  const void* y = of.q.tensor(call, 4, "y", count);
  const void* dy = of.q.tensor(call, 5, "dy", count);
  const float* logSumExp = of.q.floats(call, 6, "logSumExp", of.batch * of.heads * of.queries);
  const auto scale = static_cast<float>(call.number(7, "scale"));
  Output dq(call, of.q.device, of.q.dtype, of.q.shape());
  Output dk(call, of.q.device, of.q.dtype, of.k.shape);
  Output dv(call, of.q.device, of.q.dtype, of.k.shape);
  submit(call, of.q.device, Op::attentionBackward,
         AttentionBackwardArgs{of.q.record.data(), of.k.data(), of.v, of.mask, y, dy, logSumExp,
                               dq.data(), dk.data(), dv.data(), of.batch, of.queries, of.keys,
                               of.heads, of.size, scale, of.q.dtype});
  return list(call, {dq.id(call), dk.id(call), dv.id(call)});
}

// The shape of a convolution from those of x and weight, `stride` and `padding` (top, bottom, left,
// right).
Conv2dShape convolution(const Call& call, const Shape& x, const Shape& weight, size_t stride,
                        size_t padding) {
  if (x.rank != 4)
    fail(Code::kShape, "x: expected [batch, channels, height, width], got " + x.text());
  if (weight.rank != 4 || weight[1] != x[1])
    fail(Code::kShape, "weight: " + weight.text() + " does not go with x " + x.text());
  const Shape border = call.shape(padding, "padding");
  if (border.rank != 4) fail(Code::kShape, "padding: expected top, bottom, left and right");
  Conv2dShape shape{};
  shape.batch = x[0];
  shape.inputs = x[1];
  shape.height = x[2];
  shape.width = x[3];
  shape.outputs = weight[0];
  shape.kernelHeight = weight[2];
  shape.kernelWidth = weight[3];
  shape.stride = call.integer(stride, "stride", 1, 2);
  shape.top = border[0];
  shape.bottom = border[1];
  shape.left = border[2];
  shape.right = border[3];
  if (shape.kernelHeight < 1 || shape.kernelHeight > kMostKernel || shape.kernelWidth < 1 ||
      shape.kernelWidth > kMostKernel)
    fail(Code::kShape, "weight: expected kernels of 1 to " + std::to_string(kMostKernel) +
                           " rows and columns, got " + weight.text());
  if (shape.top >= shape.kernelHeight || shape.bottom >= shape.kernelHeight ||
      shape.left >= shape.kernelWidth || shape.right >= shape.kernelWidth)
    fail(Code::kShape, "padding: expected less than the kernel's size");
  const int64_t rows = shape.height + shape.top + shape.bottom - shape.kernelHeight;
  const int64_t columns = shape.width + shape.left + shape.right - shape.kernelWidth;
  if (rows < 0 || columns < 0)
    fail(Code::kShape, "x: " + x.text() + " with its padding is smaller than the kernel");
  shape.outHeight = rows / shape.stride + 1;
  shape.outWidth = columns / shape.stride + 1;
  return shape;
}

Shape outputOf(const Conv2dShape& shape) {
  return shapeOf({shape.batch, shape.outputs, shape.outHeight, shape.outWidth});
}

// conv2d(x, weight, bias or null, stride, padding)
Napi::Value conv2d(const Call& call) {
  const Model x(call, 0, "x");
  x.expectFloat32("x");
  const TensorRecord weight = call.tensorLike(1, "weight", x.record);
  const Conv2dShape shape = convolution(call, x.shape(), weight.shape, 3, 4);
  const float* bias = call.isNull(2) ? nullptr : x.floats(call, 2, "bias", shape.outputs);
  Output y(call, x.device, x.dtype, outputOf(shape));
  submit(call, x.device, Op::conv2d,
         Conv2dArgs{static_cast<const float*>(x.record.data()),
                    static_cast<const float*>(weight.data()), bias, static_cast<float*>(y.data()),
                    shape});
  return y.id(call);
}

// conv2dBackwardData(dy, weight, shape of x, stride, padding)
Napi::Value conv2dBackwardData(const Call& call) {
  const Model dy(call, 0, "dy");
  dy.expectFloat32("dy");
  const TensorRecord weight = call.tensorLike(1, "weight", dy.record);
  const Shape xShape = call.shape(2, "xShape");
  const Conv2dShape shape = convolution(call, xShape, weight.shape, 3, 4);
  if (!(dy.shape() == outputOf(shape)))
    fail(Code::kShape, "dy: expected " + outputOf(shape).text() + ", got " + dy.shape().text());
  Output dx(call, dy.device, dy.dtype, xShape);
  submit(call, dy.device, Op::conv2dBackwardData,
         Conv2dBackwardDataArgs{static_cast<const float*>(dy.record.data()),
                                static_cast<const float*>(weight.data()),
                                static_cast<float*>(dx.data()), shape});
  return dx.id(call);
}

// conv2dBackwardWeight(x, dy, shape of weight, stride, padding, hasBias) -> [dweight, dbias or
// null]
Napi::Value conv2dBackwardWeight(const Call& call) {
  const Model x(call, 0, "x");
  x.expectFloat32("x");
  const TensorRecord dy = call.tensorLike(1, "dy", x.record);
  const Shape weightShape = call.shape(2, "weightShape");
  const Conv2dShape shape = convolution(call, x.shape(), weightShape, 3, 4);
  if (!(dy.shape == outputOf(shape)))
    fail(Code::kShape, "dy: expected " + outputOf(shape).text() + ", got " + dy.shape.text());
  const bool hasBias = call.flag(5, "hasBias");
  Output dweight(call, x.device, x.dtype, weightShape);
  OptionalOutput dbias(call, hasBias, x.device, x.dtype, shapeOf({shape.outputs}));
  submit(call, x.device, Op::conv2dBackwardWeight,
         Conv2dBackwardWeightArgs{static_cast<const float*>(x.record.data()),
                                  static_cast<const float*>(dy.data()),
                                  static_cast<float*>(dweight.data()), dbias.data(), shape});
  return list(call, {dweight.id(call), dbias.id(call)});
}

// upsampleNearest2x(x)
Napi::Value upsampleNearest2x(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 2, kMaxRank);
  Shape shape = x.shape();
  const int rank = shape.rank;
  const UpsampleArgs sizes{x.record.data(), nullptr,         shape.product(0, rank - 2),
                           shape[rank - 2], shape[rank - 1], x.dtype};
  shape[rank - 2] *= 2;
  shape[rank - 1] *= 2;
  Output y(call, x.device, x.dtype, shape);
  UpsampleArgs arguments = sizes;
  arguments.y = y.data();
  submit(call, x.device, Op::upsampleNearest2x, arguments);
  return y.id(call);
}

// upsampleNearest2xBackward(dy)
Napi::Value upsampleNearest2xBackward(const Call& call) {
  const Model dy(call, 0, "dy");
  dy.expectRank("dy", 2, kMaxRank);
  Shape shape = dy.shape();
  const int rank = shape.rank;
  if (shape[rank - 2] % 2 != 0 || shape[rank - 1] % 2 != 0)
    fail(Code::kShape, "dy: expected even last axes, got " + shape.text());
  shape[rank - 2] /= 2;
  shape[rank - 1] /= 2;
  Output dx(call, dy.device, dy.dtype, shape);
  submit(call, dy.device, Op::upsampleNearest2xBackward,
         UpsampleBackwardArgs{dy.record.data(), dx.data(), shape.product(0, rank - 2),
                              shape[rank - 2], shape[rank - 1], dy.dtype});
  return dx.id(call);
}

// crossEntropy(x, targets) -> [loss, gradient]
Napi::Value crossEntropy(const Call& call) {
  const Model x(call, 0, "x");
  x.expectRank("x", 1, kMaxRank);
  const TensorRecord targets = call.tensorOf(1, "targets", x.device, DType::kInt32, x.rows());
  Output loss(call, x.device, DType::kFloat32, Shape{});
  Output gradient(call, x.device, x.dtype, x.shape());
  const Output partials(call, x.device, DType::kFloat32, shapeOf({x.rows()}));
  const Output outside(call, x.device, DType::kInt32, shapeOf({1}));
  submit(call, x.device, Op::crossEntropy,
         CrossEntropyArgs{x.record.data(), static_cast<const int32_t*>(targets.data()),
                          static_cast<float*>(loss.data()), gradient.data(),
                          static_cast<float*>(partials.data()),
                          static_cast<int32_t*>(outside.data()), x.rows(), x.size(), x.dtype});
  return list(call, {loss.id(call), gradient.id(call)});
}

// mse(x, y) -> [loss, gradient with respect to x]
Napi::Value mse(const Call& call) {
  const Model x(call, 0, "x");
  const int64_t count = x.record.count();
  const void* y = x.tensor(call, 1, "y", count);
  Output loss(call, x.device, DType::kFloat32, Shape{});
  Output gradient(call, x.device, x.dtype, x.shape());
  const Output partials(call, x.device, DType::kFloat32, shapeOf({msePartials(count)}));
  submit(call, x.device, Op::mse,
         MseArgs{x.record.data(), y, static_cast<float*>(loss.data()), gradient.data(),
                 static_cast<float*>(partials.data()), count, x.dtype});
  return list(call, {loss.id(call), gradient.id(call)});
}

}  // namespace

void exportNnOps(Napi::Object exports) {
  exportFunction<activationBackward>(exports, "activationBackward");
  exportFunction<embedding>(exports, "embedding");
  exportFunction<embeddingBackward>(exports, "embeddingBackward");
  exportFunction<rmsNorm>(exports, "rmsNorm");
  exportFunction<rmsNormBackward>(exports, "rmsNormBackward");
  exportFunction<layerNorm>(exports, "layerNorm");
  exportFunction<layerNormBackward>(exports, "layerNormBackward");
  exportFunction<groupNorm>(exports, "groupNorm");
  exportFunction<groupNormBackward>(exports, "groupNormBackward");
  exportFunction<swiGlu>(exports, "swiGlu");
  exportFunction<swiGluBackward>(exports, "swiGluBackward");
  exportFunction<gatedResidual>(exports, "gatedResidual");
  exportFunction<gatedResidualBackward>(exports, "gatedResidualBackward");
  exportFunction<rope>(exports, "rope");
  exportFunction<attention>(exports, "attention");
  exportFunction<attentionBackward>(exports, "attentionBackward");
  exportFunction<conv2d>(exports, "conv2d");
  exportFunction<conv2dBackwardData>(exports, "conv2dBackwardData");
  exportFunction<conv2dBackwardWeight>(exports, "conv2dBackwardWeight");
  exportFunction<upsampleNearest2x>(exports, "upsampleNearest2x");
  exportFunction<upsampleNearest2xBackward>(exports, "upsampleNearest2xBackward");
  exportFunction<crossEntropy>(exports, "crossEntropy");
  exportFunction<mse>(exports, "mse");
}

}  // namespace didr::addon
