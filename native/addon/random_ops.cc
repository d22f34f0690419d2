// Random draws.
#include "native/addon/call.h"
#include "native/ops/random/random.h"

namespace didr::addon {
namespace {

// uniform(device, dtype, shape, seed, offset, low, high) and normal(..., mean, std): their arguments differ in name
// and meaning only.
template <Op op, class Arguments>
Napi::Value draw(const Call& call) {
  const int device = call.device(0, "device");
  const DType dtype = call.dtype(1, "dtype");
  if (dtype != DType::kFloat32 && dtype != DType::kBFloat16)
    fail(Code::kDtype, std::string("dtype: no random numbers of ") + nameOf(dtype));
  const Shape shape = call.shape(2, "shape");
  const uint64_t seed = call.natural(3, "seed");
  const uint64_t offset = call.natural(4, "offset");
  const auto first = static_cast<float>(call.number(5, "low or mean"));
  const auto second = static_cast<float>(call.number(6, "high or std"));
  Output y(call, device, dtype, shape);
  submit(call, device, op, Arguments{y.data(), shape.count(), seed, offset, first, second, dtype});
  return y.id(call);
}

}  // namespace

void exportRandomOps(Napi::Object exports) {
  exportFunction<draw<Op::uniform, UniformArgs>>(exports, "uniform");
  exportFunction<draw<Op::normal, NormalArgs>>(exports, "normal");
}

}  // namespace didr::addon
