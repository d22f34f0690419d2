// One number as an element of any dtype.
#pragma once

#include "native/core/dtype.h"
#include "native/core/level.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

template <class T>
inline T elementOf(double value);

template <>
inline float elementOf<float>(double value) {
  return static_cast<float>(value);
}
template <>
inline BFloat16 elementOf<BFloat16>(double value) {
  return toBFloat16(static_cast<float>(value));
}
template <>
inline Float16 elementOf<Float16>(double value) {
  return toFloat16(static_cast<float>(value));
}
// Towards zero, saturating, NaN to 0.
template <>
inline int32_t elementOf<int32_t>(double value) {
  if (!(value > -2147483648.0)) return value == value ? INT32_MIN : 0;
  return value >= 2147483647.0 ? INT32_MAX : static_cast<int32_t>(value);
}
template <>
inline uint8_t elementOf<uint8_t>(double value) {
  if (!(value > 0.0)) return 0;
  return value >= 255.0 ? 255 : static_cast<uint8_t>(value);
}

}  // namespace
}  // namespace DIDR_LEVEL
}  // namespace didr
