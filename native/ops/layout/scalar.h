// One number as an element of any dtype.
#pragma once

#include <type_traits>

#include "native/core/dtype.h"

namespace didr {

// To floats by way of float32; to integers towards zero, saturating, NaN to 0.
template <class T>
DIDR_HOST_DEVICE T elementOf(double value) {
  if constexpr (std::is_same_v<T, int32_t>) {
    if (!(value > -2147483648.0)) return value == value ? INT32_MIN : 0;
    return value >= 2147483647.0 ? INT32_MAX : static_cast<int32_t>(value);
  } else if constexpr (std::is_same_v<T, uint8_t>) {
    if (!(value > 0.0)) return 0;
    return value >= 255.0 ? 255 : static_cast<uint8_t>(value);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return toBFloat16(static_cast<float>(value));
  } else if constexpr (std::is_same_v<T, Float16>) {
    return toFloat16(static_cast<float>(value));
  } else {
    return static_cast<float>(value);
  }
}

}  // namespace didr
