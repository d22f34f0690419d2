// The vector layer at the level that this file is compiled for: the plain build, whose fma is made
// from doubles. Other levels are compared with it through the kernels, which must leave the same
// bits.
#include "native/core/simd.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace didr {
namespace {

using namespace DIDR_LEVEL::simd;

// Bits of all kinds, and values whose products and sums cancel, tie, overflow and underflow.
std::vector<float> hostileFloats() {
  std::vector<float> values = {0.0f,
                               -0.0f,
                               1.0f,
                               -1.0f,
                               0x1p-149f,
                               -0x1p-149f,
                               0x1p-126f,
                               0x1p-75f,
                               0x1p-74f,
                               0x1.8p-75f,
                               0x1.fffffep127f,
                               -0x1.fffffep127f,
                               0x1.000002p0f,
                               0x1.fffffep-1f,
                               3.0f,
                               0x1p24f,
                               0x1p-24f,
                               0x1.000002p-24f,
                               0x1.8p-24f,
                               0x1p-25f,
                               INFINITY,
                               -INFINITY,
                               NAN};
  uint32_t state = 1;
  for (int i = 0; i < 300; ++i) {
    state = state * 1664525u + 1013904223u;
    values.push_back(floatOf(state ^ (state << 13)));
  }
  return values;
}

bool sameFloat(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || bitsOf(a) == bitsOf(b);
}

TEST_CASE("fma rounds once") {
  const std::vector<float> values = hostileFloats();
  int64_t wrong = 0;
  for (const float a : values)
    for (const float b : values)
      for (size_t c = 0; c < values.size(); c += kLanes) {
        float addend[kLanes], result[kLanes];
        for (int lane = 0; lane < kLanes; ++lane)
          addend[lane] = values[(c + static_cast<size_t>(lane)) % values.size()];
        // A quarter of the sums nearly cancel.
        addend[0] = -a * b;
        store(result, fma(broadcast(a), broadcast(b), load(addend)));
        for (int lane = 0; lane < kLanes; ++lane)
          wrong += !sameFloat(result[lane], std::fmaf(a, b, addend[lane]));
      }
  CHECK(wrong == 0);
}

// 2^-24 (1 - 2^-23) (1 + 2^-23) = 2^-24 (1 - 2^-46) is just short of half a unit in the last place
// of a in [1, 2): a sum in double rounds to the tie, and then to the wrong float for every second a.
TEST_CASE("fma rounds once where a double is halfway between two floats") {
  int64_t wrong = 0;
  int64_t wrongByDouble = 0;
  uint32_t state = 7;
  for (int i = 0; i < 100000; ++i) {
    state = state * 1664525u + 1013904223u;
    const float a = floatOf(0x3f800000u | (state >> 9));
    const float b = (i % 2 == 0 ? 0x1p-24f : -0x1p-24f) * (1.0f - 0x1p-23f);
    const float c = 1.0f + 0x1p-23f;
    const float expected = std::fmaf(b, c, a);
    float result[kLanes];
    store(result, fma(broadcast(b), broadcast(c), broadcast(a)));
    wrong += !sameFloat(result[0], expected);
    wrongByDouble += static_cast<float>(static_cast<double>(b) * static_cast<double>(c) +
                                        static_cast<double>(a)) != expected;
    // Below the normal range a float's last bit is further up.
    const float tiny = a * 0x1p-130f;
    store(result, fma(broadcast(a), broadcast(0x1p-140f), broadcast(tiny)));
    wrong += !sameFloat(result[0], std::fmaf(a, 0x1p-140f, tiny));
  }
  CHECK(wrong == 0);
  CHECK(wrongByDouble > 10000);
}

template <class T>
void checkStorage(const std::vector<float>& values) {
  for (size_t i = 0; i + kLanes <= values.size(); ++i) {
    T stored[kLanes + 1] = {};
    store(stored, load(values.data() + i));
    for (int lane = 0; lane < kLanes; ++lane) {
      const float x = values[i + static_cast<size_t>(lane)];
      float expected;
      if constexpr (std::is_same_v<T, BFloat16>)
        expected = toFloat(toBFloat16(x));
      else if constexpr (std::is_same_v<T, Float16>)
        expected = toFloat(toFloat16(x));
      else
        expected = x;
      CHECK(sameFloat(toFloat(stored[lane]), expected));
    }
    float back[kLanes];
    store(back, load(stored));
    for (int lane = 0; lane < kLanes; ++lane) CHECK(sameFloat(back[lane], toFloat(stored[lane])));
    for (int n = 0; n <= kLanes; ++n) {
      T partial[kLanes + 1];
      std::memset(partial, 0x55, sizeof partial);
      const T untouched = partial[kLanes];
      storePartial(partial, load(values.data() + i), n);
      for (int lane = 0; lane <= kLanes; ++lane) {
        const T expected = lane < n ? stored[lane] : untouched;
        CHECK(std::memcmp(&partial[lane], &expected, sizeof(T)) == 0);
      }
      store(back, loadPartial(stored, n));
      for (int lane = 0; lane < kLanes; ++lane)
        CHECK(sameFloat(back[lane], lane < n ? toFloat(stored[lane]) : 0.0f));
    }
  }
}

TEST_CASE("vectors are stored and loaded as the scalar conversions do it") {
  checkStorage<float>(hostileFloats());
  checkStorage<BFloat16>(hostileFloats());
  std::vector<float> halves = hostileFloats();
  for (const float x :
       {65519.0f, 65520.0f, 65504.0f, 0x1p-14f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, 0x1.ffp-15f})
    halves.push_back(x);
  checkStorage<Float16>(halves);
}

TEST_CASE("every float16 loads exactly") {
  for (uint32_t bits = 0; bits < 0x10000; bits += kLanes) {
    Float16 stored[kLanes];
    for (int lane = 0; lane < kLanes; ++lane)
      stored[lane].bits = static_cast<uint16_t>(bits + static_cast<uint32_t>(lane));
    float loaded[kLanes];
    store(loaded, load(stored));
    for (int lane = 0; lane < kLanes; ++lane)
      CHECK(bitsOf(loaded[lane]) == bitsOf(toFloat(stored[lane])));
  }
}

TEST_CASE("floats become integers towards zero, saturating, NaN as zero") {
  const float values[] = {0.0f,  -0.9f,   1.9f,     2147483520.0f, 2147483648.0f, -2147483648.0f,
                          -3e9f, NAN,     INFINITY, -INFINITY,     255.5f,        256.0f,
                          -1.0f, 254.99f, 1e-40f,   3.5f};
  const int32_t integers[] = {0,         0,   1,         2147483520, INT32_MAX, INT32_MIN,
                              INT32_MIN, 0,   INT32_MAX, INT32_MIN,  255,       256,
                              -1,        254, 0,         3};
  const uint8_t octets[] = {0, 0, 1, 255, 255, 0, 0, 0, 255, 0, 255, 255, 0, 254, 0, 3};
  for (int i = 0; i + kLanes <= 16; i += kLanes) {
    int32_t asIntegers[kLanes];
    uint8_t asOctets[kLanes];
    store(asIntegers, load(values + i));
    store(asOctets, load(values + i));
    for (int lane = 0; lane < kLanes; ++lane) {
      CHECK(asIntegers[lane] == integers[i + lane]);
      CHECK(asOctets[lane] == octets[i + lane]);
    }
  }
}

TEST_CASE("sums of logical lanes have one order") {
  F32 parts[kLaneVectors];
  float lanes[kLogicalLanes];
  for (int i = 0; i < kLogicalLanes; ++i)
    lanes[i] = static_cast<float>(std::pow(3.7, i % 7)) * 1.1f;
  for (int v = 0; v < kLaneVectors; ++v) parts[v] = load(lanes + v * kLanes);
  float expected[kLogicalLanes];
  std::memcpy(expected, lanes, sizeof lanes);
  for (int half = 8; half >= 1; half /= 2)
    for (int i = 0; i < half; ++i) expected[i] = expected[i] + expected[i + half];
  CHECK(sumLogicalLanes(parts) == expected[0]);
}

}  // namespace
}  // namespace didr
