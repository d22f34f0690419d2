// Attention against float64; gradients against float64 formulas and central differences.
#include <string>

#include "test/native/nn/attention_reference.h"
#include "test/native/nn/gradients.h"

namespace didr::test {
namespace {

constexpr AttentionCase kCases[] = {{1, 1, 1, 1, 1},    {2, 3, 5, 2, 5},     {1, 77, 77, 1, 32},
                                    {2, 40, 76, 3, 40}, {1, 65, 200, 2, 64}, {1, 300, 97, 1, 33},
                                    {1, 17, 0, 2, 8},   {0, 3, 3, 1, 4},     {1, 9, 97, 1, 128}};

template <class T>
void checkAttention(const AttentionCase& c, Masking masking, float magnitude) {
  CAPTURE(c.batch);
  CAPTURE(c.queries);
  CAPTURE(c.keys);
  CAPTURE(c.heads);
  CAPTURE(c.size);
  CAPTURE(static_cast<int>(masking));
  const int64_t count = c.batch * c.queries * c.heads * c.size;
  const int64_t keyCount = c.batch * c.keys * c.heads * c.size;
  const int64_t sums = c.batch * c.heads * c.queries;
  const std::vector<T> q = someValues<T>(count, 1, magnitude);
  const std::vector<T> k = someValues<T>(keyCount, 2, magnitude);
  const std::vector<T> v = someValues<T>(keyCount, 3);
  const std::vector<T> dy = someValues<T>(count, 4);
  const std::vector<uint8_t> mask = maskOf(c, masking);
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.size));
  const AttentionReference reference{c, mask, static_cast<double>(scale)};
  const Values wq = widen(q), wk = widen(k), wv = widen(v), wdy = widen(dy);
  Values logSumExp, dq, dk, dv;
  const Values y = reference.forward(wq, wk, wv, logSumExp);
  reference.backward(wq, wk, wv, wdy, dq, dk, dv);
  // Scores round at about 2^-24 of their size, which exponentials turn into relative errors.
  const double tolerance = toleranceOf<T>(4e-6 * std::max(1.0f, magnitude * magnitude));
  atEveryFusedLevel([&](const auto& launch) {
    Guarded<T> gq(q), gk(k), gv(v), gdy(dy), gy(count), gdq(count), gdk(keyCount), gdv(keyCount);
    Guarded<uint8_t> gmask(mask);
    Guarded<float> gsums(sums);
    const uint8_t* present = mask.empty() ? nullptr : gmask.data();
    launch(Op::attention,
           AttentionArgs{gq.data(), gk.data(), gv.data(), present, gy.data(), gsums.data(), c.batch,
                         c.queries, c.keys, c.heads, c.size, scale, DTypeOf<T>::value});
    launch(Op::attentionBackward,
           AttentionBackwardArgs{gq.data(), gk.data(), gv.data(), present, gy.data(), gdy.data(),
                                 gsums.data(), gdq.data(), gdk.data(), gdv.data(), c.batch,
                                 c.queries, c.keys, c.heads, c.size, scale, DTypeOf<T>::value});
    checkClose(gy.values(), y, tolerance);
    const std::vector<float> actualSums = gsums.values();
    for (size_t i = 0; i < actualSums.size(); ++i) {
      if (std::isinf(logSumExp[i]))
        CHECK(static_cast<double>(actualSums[i]) == logSumExp[i]);
      else
        CHECK(std::fabs(static_cast<double>(actualSums[i]) - logSumExp[i]) <=
              2e-6 * (4 + std::fabs(logSumExp[i])));
    }
    // y is rounded to its dtype before the backward pass reads it.
    checkClose(gdq.values(), dq, 3 * tolerance);
    checkClose(gdk.values(), dk, 3 * tolerance);
    checkClose(gdv.values(), dv, 3 * tolerance);
    Bytes bytes;
    bytes.add(gy.values());
    bytes.add(gdq.values());
    bytes.add(gdk.values());
    bytes.add(gdv.values());
    return bytes;
  });
}

TEST_CASE_TEMPLATE("attention and its backward pass", T, float, BFloat16) {
  for (const AttentionCase& c : kCases)
    for (const Masking masking : {Masking::kNone, Masking::kSome, Masking::kAllOfFirst})
      checkAttention<T>(c, masking, 1.0f);
}

TEST_CASE("attention rescales when later keys score far higher") {
  checkAttention<float>({1, 70, 300, 1, 16}, Masking::kNone, 8.0f);
}

TEST_CASE("a NaN in a query spoils its own row and no other") {
  const AttentionCase c{1, 70, 100, 2, 40};
  const int64_t count = 70 * 2 * 40;
  std::vector<float> q = someFloats(count, 1);
  const auto spoilt = [](size_t i) { return i / 40 == 2 * 33 + 1; };  // token 33, head 1
  q[(2 * 33 + 1) * 40 + 7] = std::nanf("");
  const std::vector<float> k = someFloats(100 * 2 * 40, 2), v = someFloats(100 * 2 * 40, 3);
  atEveryFusedLevel([&](const auto& launch) {
    Guarded<float> gq(q), gk(k), gv(v), y(count), sums(2 * 70);
    launch(Op::attention,
           AttentionArgs{gq.data(), gk.data(), gv.data(), nullptr, y.data(), sums.data(), c.batch,
                         c.queries, c.keys, c.heads, c.size, 0.2f, DType::kFloat32});
    int64_t wrong = 0;
    for (size_t i = 0; i < static_cast<size_t>(count); ++i)
      wrong += std::isnan(y.data()[i]) != spoilt(i);
    CHECK(wrong == 0);
    return Bytes();
  });
}

TEST_CASE("the float64 gradients of attention agree with central differences") {
  const AttentionCase c{2, 3, 5, 2, 5};
  const std::vector<uint8_t> mask = maskOf(c, Masking::kSome);
  const AttentionReference reference{c, mask, 0.4};
  const Values q = widen(someFloats(60, 1)), k = widen(someFloats(100, 2)),
               v = widen(someFloats(100, 3)), dy = widen(someFloats(60, 4));
  Values sums, dq, dk, dv;
  reference.backward(q, k, v, dy, dq, dk, dv);
  const auto toFloats = [](const Values& values) {
    return std::vector<float>(values.begin(), values.end());
  };
  checkGradient(
      toFloats(dq), q, [&](const Values& x) { return dot(dy, reference.forward(x, k, v, sums)); },
      1e-6);
  checkGradient(
      toFloats(dk), k, [&](const Values& x) { return dot(dy, reference.forward(q, x, v, sums)); },
      1e-6);
  checkGradient(
      toFloats(dv), v, [&](const Values& x) { return dot(dy, reference.forward(q, k, x, sums)); },
      1e-6);
}

}  // namespace
}  // namespace didr::test
