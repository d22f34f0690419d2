// The tensor ops of lib/tensor: shapes and strides are worked out here, kernels see plain pointers.
#include <algorithm>

#include "native/addon/call.h"
#include "native/ops/op_headers.h"

namespace didr::addon {
namespace {

using Strides = std::array<int64_t, kMaxRank>;

Strides contiguousStrides(const Shape& shape) {
  Strides strides{};
  int64_t stride = 1;
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    strides[static_cast<size_t>(axis)] = stride;
    stride *= shape[axis];
  }
  return strides;
}

// Axes align at the last; a size of 1 stretches.
Shape broadcast(const Shape& a, const Shape& b) {
  Shape result;
  result.rank = std::max(a.rank, b.rank);
  for (int i = 1; i <= result.rank; ++i) {
    const int64_t sizeA = i <= a.rank ? a[a.rank - i] : 1;
    const int64_t sizeB = i <= b.rank ? b[b.rank - i] : 1;
    if (sizeA != sizeB && sizeA != 1 && sizeB != 1)
      fail(Code::kShape, "shapes " + a.text() + " and " + b.text() + " do not broadcast");
    result[result.rank - i] = sizeA == 1 ? sizeB : sizeA;
  }
  return result;
}

// Writes the strides that read a tensor of shape `from` as one of shape `to`: 0 where it is stretched.
void broadcastStrides(const Shape& from, const Shape& to, int64_t* strides) {
  const Strides own = contiguousStrides(from);
  const int lead = to.rank - from.rank;
  for (int axis = 0; axis < to.rank; ++axis)
    strides[axis] =
        axis < lead || from[axis - lead] == 1 ? 0 : own[static_cast<size_t>(axis - lead)];
}

template <class Kind>
Kind kindOf(const Call& call, size_t index, Kind last) {
  return static_cast<Kind>(call.integer(index, "kind", 0, static_cast<int64_t>(last)));
}

int axisOf(const Call& call, size_t index, const char* name, const Shape& shape) {
  if (shape.rank == 0) fail(Code::kShape, std::string(name) + ": a scalar has no axes");
  return static_cast<int>(call.integer(index, name, 0, shape.rank - 1));
}

// fill(device, dtype, shape, value)
Napi::Value fill(const Call& call) {
  const int device = call.device(0, "device");
  const DType dtype = call.dtype(1, "dtype");
  const Shape shape = call.shape(2, "shape");
  const double value = call.number(3, "value");
  Output y(call, device, dtype, shape);
  submit(call, device, Op::fill, FillArgs{y.data(), shape.count(), dtype, value});
  return y.id(call);
}

// arange(device, dtype, count, start, step)
Napi::Value arange(const Call& call) {
  const int device = call.device(0, "device");
  const DType dtype = call.dtype(1, "dtype");
  Shape shape;
  shape.push(call.integer(2, "count", 0, int64_t{1} << 50));
  const double start = call.number(3, "start");
  const double step = call.number(4, "step");
  Output y(call, device, dtype, shape);
  submit(call, device, Op::arange, ArangeArgs{y.data(), shape.count(), dtype, start, step});
  return y.id(call);
}

// cast(x, dtype)
Napi::Value cast(const Call& call) {
  const TensorRecord x = call.tensor(0, "x");
  const DType dtype = call.dtype(1, "dtype");
  const int device = x.storage->device;
  Output y(call, device, dtype, x.shape);
  submit(call, device, Op::cast, CastArgs{x.data(), y.data(), x.count(), x.dtype, dtype});
  return y.id(call);
}

// unary(kind, x, lo, hi)
Napi::Value unary(const Call& call) {
  const auto kind = kindOf(call, 0, kLastUnary);
  const TensorRecord x = call.tensor(1, "x");
  const double lo = call.number(2, "lo");
  const double hi = call.number(3, "hi");
  if (!supports(kind, x.dtype))
    fail(Code::kDtype, std::string("x: the operation is not defined for ") + nameOf(x.dtype));
  const int device = x.storage->device;
  Output y(call, device, resultOf(kind, x.dtype), x.shape);
  submit(call, device, Op::unary, UnaryArgs{x.data(), y.data(), x.count(), kind, x.dtype, lo, hi});
  return y.id(call);
}

// binary(kind, a, b)
Napi::Value binary(const Call& call) {
  const auto kind = kindOf(call, 0, kLastBinary);
  const TensorRecord a = call.tensor(1, "a");
  const TensorRecord b = call.tensorLike(2, "b", a);
  if (!supports(kind, a.dtype))
    fail(Code::kDtype, std::string("a: the operation is not defined for ") + nameOf(a.dtype));
  const Shape shape = broadcast(a.shape, b.shape);
  const int device = a.storage->device;
  Output y(call, device, resultOf(kind, a.dtype), shape);
  BinaryArgs arguments{a.data(), b.data(), y.data(), kind, a.dtype, shape.rank, {}, {}, {}};
  std::copy_n(shape.sizes.begin(), shape.rank, arguments.shape);
  broadcastStrides(a.shape, shape, arguments.aStrides);
  broadcastStrides(b.shape, shape, arguments.bStrides);
  submit(call, device, Op::binary, arguments);
  return y.id(call);
}

// scaledAdd(a, b, scale): a + scale b, of one shape
Napi::Value scaledAdd(const Call& call) {
  const TensorRecord a = call.tensor(0, "a");
  const TensorRecord b = call.tensorLike(1, "b", a);
  const auto scale = static_cast<float>(call.number(2, "scale"));
  if (a.dtype != DType::kFloat32 && a.dtype != DType::kBFloat16)
    fail(Code::kDtype, std::string("a: the operation is not defined for ") + nameOf(a.dtype));
  if (!(a.shape == b.shape))
    fail(Code::kShape, "b: expected shape " + a.shape.text() + ", got " + b.shape.text());
  const int device = a.storage->device;
  Output y(call, device, a.dtype, a.shape);
  submit(call, device, Op::scaledAdd,
         ScaledAddArgs{a.data(), b.data(), y.data(), a.count(), a.dtype, scale});
  return y.id(call);
}

// where(condition, a, b)
Napi::Value where(const Call& call) {
  const TensorRecord condition = call.tensor(0, "condition");
  const TensorRecord a = call.tensor(1, "a");
  const TensorRecord b = call.tensorLike(2, "b", a);
  if (condition.dtype != DType::kUint8) fail(Code::kDtype, "condition: expected uint8");
  if (condition.storage->device != a.storage->device)
    fail(Code::kDevice, "condition: the tensors are on different devices");
  const Shape shape = broadcast(condition.shape, broadcast(a.shape, b.shape));
  const int device = a.storage->device;
  Output y(call, device, a.dtype, shape);
  WhereArgs arguments{static_cast<const uint8_t*>(condition.data()),
                      a.data(),
                      b.data(),
                      y.data(),
                      a.dtype,
                      shape.rank,
                      {},
                      {},
                      {},
                      {}};
  std::copy_n(shape.sizes.begin(), shape.rank, arguments.shape);
  broadcastStrides(condition.shape, shape, arguments.cStrides);
  broadcastStrides(a.shape, shape, arguments.aStrides);
  broadcastStrides(b.shape, shape, arguments.bStrides);
  submit(call, device, Op::where, arguments);
  return y.id(call);
}

// Copies x, read with `xStrides` as `shape`, to y, written with `yStrides`; offsets in elements.
void submitCopy(const Call& call, const TensorRecord& x, int64_t xOffset, const int64_t* xStrides,
                const TensorRecord& y, int64_t yOffset, const int64_t* yStrides,
                const Shape& shape) {
  if (shape.count() == 0) return;
  const auto size = static_cast<int32_t>(sizeOf(x.dtype));
  StridedCopyArgs arguments{static_cast<const std::byte*>(x.data()) + xOffset * size,
                            static_cast<std::byte*>(y.data()) + yOffset * size,
                            size,
                            shape.rank,
                            {},
                            {},
                            {}};
  std::copy_n(shape.sizes.begin(), shape.rank, arguments.shape);
  std::copy_n(xStrides, shape.rank, arguments.xStrides);
  std::copy_n(yStrides, shape.rank, arguments.yStrides);
  submit(call, y.storage->device, Op::stridedCopy, arguments);
}

// permute(x, axes)
Napi::Value permute(const Call& call) {
  const Shape axes = call.shape(1, "axes");
  const TensorRecord x = call.tensor(0, "x");
  if (axes.rank != x.shape.rank)
    fail(Code::kShape, "axes: expected " + std::to_string(x.shape.rank) + " of them");
  const Strides own = contiguousStrides(x.shape);
  Shape shape;
  int64_t xStrides[kMaxRank];
  unsigned seen = 0;
  for (int axis = 0; axis < axes.rank; ++axis) {
    const int64_t from = axes[axis];
    if (from >= x.shape.rank || (seen >> from & 1u) != 0)
      fail(Code::kShape, "axes: expected each axis once");
    seen |= 1u << from;
    xStrides[axis] = own[static_cast<size_t>(from)];
    shape.push(x.shape[static_cast<int>(from)]);
  }
  Output y(call, x.storage->device, x.dtype, shape);
  submitCopy(call, x, 0, xStrides, y.record(), 0, contiguousStrides(shape).data(), shape);
  return y.id(call);
}

// slice(x, begin, size)
Napi::Value slice(const Call& call) {
  const Shape begin = call.shape(1, "begin");
  const Shape shape = call.shape(2, "size");
  const TensorRecord x = call.tensor(0, "x");
  if (begin.rank != x.shape.rank || shape.rank != x.shape.rank)
    fail(Code::kShape, "begin, size: expected one entry per axis");
  const Strides own = contiguousStrides(x.shape);
  int64_t offset = 0;
  for (int axis = 0; axis < shape.rank; ++axis) {
    if (begin[axis] > x.shape[axis] - shape[axis])
      fail(Code::kRange, "size: axis " + std::to_string(axis) + " reaches past its end");
    offset += begin[axis] * own[static_cast<size_t>(axis)];
  }
  Output y(call, x.storage->device, x.dtype, shape);
  submitCopy(call, x, offset, own.data(), y.record(), 0, contiguousStrides(shape).data(), shape);
  return y.id(call);
}

// concat(tensors, axis)
Napi::Value concat(const Call& call) {
  const Napi::Value list = call.value(0);
  if (!list.IsArray()) fail(Code::kConfig, "tensors: expected an array");
  const auto items = list.As<Napi::Array>();
  const uint32_t count = items.Length();
  if (count == 0) fail(Code::kShape, "tensors: expected at least one");
  std::vector<Napi::Value> ids;
  for (uint32_t i = 0; i < count; ++i) {
    ids.push_back(items.Get(i));
    if (!ids.back().IsNumber()) fail(Code::kConfig, "tensors: expected an array of tensors");
  }
  std::vector<TensorRecord> parts;
  for (const Napi::Value& id : ids) parts.push_back(call.tensorFrom(id, "tensors"));
  const TensorRecord& first = parts.front();
  const int axis = axisOf(call, 1, "axis", first.shape);
  Shape shape = first.shape;
  shape[axis] = 0;
  for (const TensorRecord& part : parts) {
    if (part.storage->device != first.storage->device)
      fail(Code::kDevice, "tensors: they are on different devices");
    if (part.dtype != first.dtype) fail(Code::kDtype, "tensors: they have different dtypes");
    Shape expected = part.shape;
    if (part.shape.rank == shape.rank) expected[axis] = shape[axis];
    if (!(expected == shape))
      fail(Code::kShape, "tensors: " + part.shape.text() + " does not continue " +
                             first.shape.text() + " along axis " + std::to_string(axis));
    shape[axis] += part.shape[axis];
  }
  Output y(call, first.storage->device, first.dtype, shape);
  const Strides yStrides = contiguousStrides(shape);
  int64_t offset = 0;
  for (const TensorRecord& part : parts) {
    submitCopy(call, part, 0, contiguousStrides(part.shape).data(), y.record(), offset,
               yStrides.data(), part.shape);
    offset += part.shape[axis] * yStrides[static_cast<size_t>(axis)];
  }
  return y.id(call);
}

// broadcastTo(x, shape)
Napi::Value broadcastTo(const Call& call) {
  const Shape shape = call.shape(1, "shape");
  const TensorRecord x = call.tensor(0, "x");
  if (!(broadcast(x.shape, shape) == shape))
    fail(Code::kShape, "shape: " + x.shape.text() + " does not broadcast to " + shape.text());
  int64_t xStrides[kMaxRank];
  broadcastStrides(x.shape, shape, xStrides);
  Output y(call, x.storage->device, x.dtype, shape);
  submitCopy(call, x, 0, xStrides, y.record(), 0, contiguousStrides(shape).data(), shape);
  return y.id(call);
}

// copyInto(target, source): overwrites the target's elements
Napi::Value copyInto(const Call& call) {
  const TensorRecord target = call.tensor(0, "target");
  const TensorRecord source = call.tensorLike(1, "source", target);
  if (!(source.shape == target.shape))
    fail(Code::kShape,
         "source: expected shape " + target.shape.text() + ", got " + source.shape.text());
  const Strides strides = contiguousStrides(target.shape);
  if (source.data() != target.data())
    submitCopy(call, source, 0, strides.data(), target, 0, strides.data(), target.shape);
  return call.env().Undefined();
}

// reduce(kind, x, first, last): over the adjacent axes first..last, which the result lacks
Napi::Value reduce(const Call& call) {
  const auto kind = kindOf(call, 0, kLastReduce);
  const TensorRecord x = call.tensor(1, "x");
  const int first = axisOf(call, 2, "first", x.shape);
  const int last = axisOf(call, 3, "last", x.shape);
  if (last < first) fail(Code::kRange, "last: expected at least first");
  if (!supports(kind, x.dtype))
    fail(Code::kDtype, std::string("x: the reduction is not defined for ") + nameOf(x.dtype));
  const int64_t outer = x.shape.product(0, first);
  const int64_t axis = x.shape.product(first, last + 1);
  const int64_t inner = x.shape.product(last + 1, x.shape.rank);
  Shape shape;
  for (int i = 0; i < x.shape.rank; ++i)
    if (i < first || i > last) shape.push(x.shape[i]);
  const int device = x.storage->device;
  Output y(call, device, resultOf(kind, x.dtype), shape);
  Shape bytes;
  bytes.push(reduceWorkspace(outer, axis, inner));
  const Output workspace(call, device, DType::kUint8, bytes);  // freed in the queue's order
  submit(call, device, Op::reduce,
         ReduceArgs{x.data(), y.data(), kind, x.dtype, outer, axis, inner, workspace.data()});
  return y.id(call);
}

// softmax(x, axis)
Napi::Value softmax(const Call& call) {
  const TensorRecord x = call.tensor(0, "x");
  const int axis = axisOf(call, 1, "axis", x.shape);
  if (x.dtype != DType::kFloat32 && x.dtype != DType::kBFloat16)
    fail(Code::kDtype, std::string("x: softmax is not defined for ") + nameOf(x.dtype));
  const int device = x.storage->device;
  Output y(call, device, x.dtype, x.shape);
  submit(call, device, Op::softmax,
         SoftmaxArgs{x.data(), y.data(), x.dtype, x.shape.product(0, axis), x.shape[axis],
                     x.shape.product(axis + 1, x.shape.rank)});
  return y.id(call);
}

// matmul(a, b, bias or null, transA, transB, activation): the last two axes multiply; the axes before them are
// batches, equal in both or absent in one
Napi::Value matmul(const Call& call) {
  const TensorRecord a = call.tensor(0, "a");
  const TensorRecord b = call.tensorLike(1, "b", a);
  const bool transA = call.flag(3, "transA");
  const bool transB = call.flag(4, "transB");
  const auto activation = kindOf(call, 5, kLastActivation);
  if (a.dtype != DType::kFloat32 && a.dtype != DType::kBFloat16)
    fail(Code::kDtype, std::string("a: matmul is not defined for ") + nameOf(a.dtype));
  if (a.shape.rank < 2 || b.shape.rank < 2)
    fail(Code::kShape, "a, b: expected at least two axes each");
  const int ra = a.shape.rank;
  const int rb = b.shape.rank;
  const int64_t m = a.shape[transA ? ra - 1 : ra - 2];
  const int64_t k = a.shape[transA ? ra - 2 : ra - 1];
  const int64_t n = b.shape[transB ? rb - 2 : rb - 1];
  if (b.shape[transB ? rb - 1 : rb - 2] != k)
    fail(Code::kShape, "b: " + b.shape.text() + " does not match " + a.shape.text());
  Shape batch;
  if (ra > 2 && rb > 2 && ra != rb) fail(Code::kShape, "a, b: batch axes differ");
  for (int axis = 0; axis < std::max(ra, rb) - 2; ++axis) {
    const int64_t size = ra >= rb ? a.shape[axis] : b.shape[axis];
    if (ra == rb && b.shape[axis] != size) fail(Code::kShape, "a, b: batch axes differ");
    batch.push(size);
  }
  Shape shape = batch;
  shape.push(m);
  shape.push(n);
  const int device = a.storage->device;
  const void* bias = call.isNull(2) ? nullptr : call.tensorOf(2, "bias", device, a.dtype, n).data();
  Output y(call, device, a.dtype, shape);
  MatmulArgs arguments{};
  arguments.a = a.data();
  arguments.b = b.data();
  arguments.bias = bias;
  arguments.y = y.data();
  arguments.m = m;
  arguments.n = n;
  arguments.k = k;
  arguments.batch = batch.count();
  arguments.aBatchStride = ra > 2 ? m * k : 0;
  arguments.bBatchStride = rb > 2 ? k * n : 0;
  // One matrix times many is one larger product when the many are stacked rows of a.
  if (arguments.bBatchStride == 0 && !transA && arguments.aBatchStride != 0) {
    arguments.m = m * arguments.batch;
    arguments.batch = 1;
    arguments.aBatchStride = 0;
  }
  arguments.transA = transA;
  arguments.transB = transB;
  arguments.activation = activation;
  arguments.dtype = a.dtype;
  arguments.alpha = 1;
  arguments.beta = 0;
  submit(call, device, Op::matmul, arguments);
  return y.id(call);
}

}  // namespace

void exportTensorOps(Napi::Object exports) {
  exportFunction<fill>(exports, "fill");
  exportFunction<arange>(exports, "arange");
  exportFunction<cast>(exports, "cast");
  exportFunction<unary>(exports, "unary");
  exportFunction<binary>(exports, "binary");
  exportFunction<scaledAdd>(exports, "scaledAdd");
  exportFunction<where>(exports, "where");
  exportFunction<permute>(exports, "permute");
  exportFunction<slice>(exports, "slice");
  exportFunction<concat>(exports, "concat");
  exportFunction<broadcastTo>(exports, "broadcastTo");
  exportFunction<copyInto>(exports, "copyInto");
  exportFunction<reduce>(exports, "reduce");
  exportFunction<softmax>(exports, "softmax");
  exportFunction<matmul>(exports, "matmul");
}

}  // namespace didr::addon
