// Attention of both devices against float64. Scores round at about 2^-24 of their size, which exponentials turn into relative
// errors; results in bfloat16 are rounded once more, and y is rounded before the backward pass reads it.
#include "native/ops/nn/attention.h"

#include "test/native/cuda/both_devices.h"
#include "test/native/nn/attention_reference.h"

namespace didr::test {
namespace {

// Around blocks of 64 queries and keys, a part of 64 or 128 elements, and four elements of an access.
constexpr AttentionCase kCases[] = {{1, 1, 1, 1, 1},    {2, 3, 5, 2, 5},     {1, 64, 30, 1, 32},
                                    {2, 40, 76, 3, 40}, {1, 65, 200, 1, 64}, {1, 130, 63, 1, 33},
                                    {1, 17, 0, 2, 8},   {0, 3, 3, 1, 4},     {1, 9, 97, 1, 128},
                                    {1, 0, 5, 1, 16},   {1, 66, 7, 2, 72},   {2, 5, 70, 1, 256},
                                    {1, 3, 9, 2, 131}};

template <class T>
struct Operands {
  Array<T> q, k, v, dy, y, dq, dk, dv;
  Array<uint8_t> mask;
  Array<float> logSumExp;
  bool isMasked;

  Operands(const AttentionCase& c, const std::vector<T>& q, const std::vector<T>& k,
           const std::vector<T>& v, const std::vector<T>& dy, const std::vector<uint8_t>& mask)
      : q(q),
        k(k),
        v(v),
        dy(dy),
        y(static_cast<int64_t>(q.size())),
        dq(static_cast<int64_t>(q.size())),
        dk(static_cast<int64_t>(k.size())),
        dv(static_cast<int64_t>(k.size())),
        mask(mask),
        logSumExp(c.batch * c.heads * c.queries),
        isMasked(!mask.empty()) {}

  void run(const AttentionCase& c, float scale) const {
    runEverywhere(Op::attention, [&](Side side) {
      return AttentionArgs{q.at(side),       k.at(side),
                           v.at(side),       isMasked ? mask.at(side) : nullptr,
                           y.at(side),       logSumExp.at(side),
                           c.batch,          c.queries,
                           c.keys,           c.heads,
                           c.size,           scale,
                           DTypeOf<T>::value};
    });
    runEverywhere(Op::attentionBackward, [&](Side side) {
      return AttentionBackwardArgs{q.at(side),
                                   k.at(side),
                                   v.at(side),
                                   isMasked ? mask.at(side) : nullptr,
                                   y.at(side),
                                   dy.at(side),
                                   logSumExp.at(side),
                                   dq.at(side),
                                   dk.at(side),
                                   dv.at(side),
                                   c.batch,
                                   c.queries,
                                   c.keys,
                                   c.heads,
                                   c.size,
                                   scale,
                                   DTypeOf<T>::value};
    });
  }
};

// Both devices within `relative` of the largest expected magnitude, or of 1e-3 where that is more.
template <class T>
void requireBoth(const Array<T>& actual, const std::vector<double>& expected, double relative) {
  double scale = 1e-3;
  for (const double x : expected) scale = std::fmax(scale, std::fabs(x));
  for (const std::vector<T>& values : {actual.cuda(), actual.cpu()}) {
    REQUIRE(values.size() == expected.size());
    requireEach(values.size(), [&](size_t i) {
      return std::fabs(toFloat(values[i]) - expected[i]) <= relative * scale;
    });
  }
}

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
  const auto scaled = [&](int64_t size, uint32_t seed, float by) {
    std::vector<T> values = someValues<T>(size, seed);
    for (T& x : values) x = storeAs(T{}, toFloat(x) * by);
    return values;
  };
  const std::vector<T> q = scaled(count, 1, magnitude), k = scaled(keyCount, 2, magnitude);
  const std::vector<T> v = scaled(keyCount, 3, 1.0f), dy = scaled(count, 4, 1.0f);
  const std::vector<uint8_t> mask = maskOf(c, masking);
  const float scale = 1.0f / std::sqrt(static_cast<float>(c.size));
  const AttentionReference reference{c, mask, static_cast<double>(scale)};
  const std::vector<double> wq = asDoubles(q), wk = asDoubles(k), wv = asDoubles(v);
  std::vector<double> logSumExp, dq, dk, dv;
  const std::vector<double> y = reference.forward(wq, wk, wv, logSumExp);
  reference.backward(wq, wk, wv, asDoubles(dy), dq, dk, dv);

  const Operands<T> operands(c, q, k, v, dy, mask);
  operands.run(c, scale);
  const double tolerance =
      (sizeof(T) == 4 ? 0 : kRounding<T>)+4e-6 * std::fmax(1.0f, magnitude * magnitude);
  requireBoth(operands.y, y, tolerance);
  requireBoth(operands.dq, dq, 3 * tolerance);
  requireBoth(operands.dk, dk, 3 * tolerance);
  requireBoth(operands.dv, dv, 3 * tolerance);
  const std::vector<float> sums = operands.logSumExp.cuda();
  requireEach(sums.size(), [&](size_t i) {
    return std::isinf(logSumExp[i])
               ? sums[i] == logSumExp[i]
               : std::fabs(sums[i] - logSumExp[i]) <= 2e-6 * (4 + std::fabs(logSumExp[i]));
  });
}

TEST_CASE_TEMPLATE("attention and its backward pass", T, float, BFloat16) {
  for (const AttentionCase& c : kCases) {
    checkAttention<T>(c, Masking::kSome, 1.0f);
    // Products across lanes take their time on the host.
    if (kRaceDetection || (sizeof(T) == 2 && c.queries * c.keys > 1000)) continue;
    checkAttention<T>(c, Masking::kNone, 1.0f);
    checkAttention<T>(c, Masking::kAllOfFirst, 1.0f);
  }
}

TEST_CASE("attention rescales when later keys score far higher") {
  checkAttention<float>({1, 70, 300, 1, 16}, Masking::kNone, 8.0f);
}

TEST_CASE_TEMPLATE("a NaN in a query spoils its own row and no other", T, float, BFloat16) {
  const AttentionCase c{1, 70, 100, 2, 40};
  const int64_t count = c.queries * c.heads * c.size, keyCount = c.keys * c.heads * c.size;
  const auto spoilt = [](size_t i) { return i / 40 == 2 * 33 + 1; };  // token 33, head 1
  std::vector<T> q = someValues<T>(count, 1);
  q[(2 * 33 + 1) * 40 + 7] = storeAs(T{}, NAN);
  const Operands<T> operands(c, q, someValues<T>(keyCount, 2), someValues<T>(keyCount, 3),
                             someValues<T>(count, 4), {});
  operands.run(c, 0.2f);
  const std::vector<T> y = operands.y.cuda(), dq = operands.dq.cuda();
  requireEach(y.size(), [&](size_t i) {
    return std::isnan(toFloat(y[i])) == spoilt(i) && std::isnan(toFloat(dq[i])) == spoilt(i);
  });
}

}  // namespace
}  // namespace didr::test
