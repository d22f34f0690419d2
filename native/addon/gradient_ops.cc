// What the tape of lib/autograd needs of the addon: sums of cotangents in place.
#include <algorithm>

#include "native/addon/call.h"
#include "native/ops/op_headers.h"

namespace didr::addon {
namespace {

// accumulate(target, source): target += source, elementwise, in place
Napi::Value accumulate(const Call& call) {
  const TensorRecord target = call.tensor(0, "target");
  const TensorRecord source = call.tensorLike(1, "source", target);
  if (!(source.shape == target.shape))
    fail(Code::kShape,
         "source: expected shape " + target.shape.text() + ", got " + source.shape.text());
  if (!supports(Binary::kAdd, target.dtype))
    fail(Code::kDtype, std::string("target: addition is not defined for ") + nameOf(target.dtype));
  BinaryArgs arguments{target.data(),    source.data(), target.data(),
                       Binary::kAdd,     target.dtype,  1,
                       {target.count()}, {1},           {1}};
  submit(call, target.storage->device, Op::binary, arguments);
  return call.env().Undefined();
}

// isShared(x) -> whether another tensor of this thread is on the same memory
Napi::Value isShared(const Call& call) {
  return Napi::Boolean::New(call.env(), call.tensor(0, "x").storage->claims > 1);
}

}  // namespace

void exportGradientOps(Napi::Object exports) {
  exportFunction<accumulate>(exports, "accumulate");
  exportFunction<isShared>(exports, "isShared");
}

}  // namespace didr::addon
