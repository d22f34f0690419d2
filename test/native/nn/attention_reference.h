// Attention and its gradients in float64, for the tests of either device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace didr::test {

using Values = std::vector<double>;

struct AttentionCase {
  int64_t batch, queries, keys, heads, size;
};
enum class Masking { kNone, kSome, kAllOfFirst };

inline std::vector<uint8_t> maskOf(const AttentionCase& c, Masking masking) {
  std::vector<uint8_t> mask;
  if (masking == Masking::kNone) return mask;
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t key = 0; key < c.keys; ++key)
      mask.push_back(masking == Masking::kAllOfFirst ? b != 0 : (key * 7 + b) % 3 != 0);
  return mask;
}

// The op and its gradients in float64, with the whole matrix of probabilities.
struct AttentionReference {
  const AttentionCase& c;
  const std::vector<uint8_t>& mask;
  double scale;

  size_t at(int64_t tokens, int64_t b, int64_t token, int64_t head) const {
    return static_cast<size_t>(((b * tokens + token) * c.heads + head) * c.size);
  }
  bool present(int64_t b, int64_t key) const {
    return mask.empty() || mask[static_cast<size_t>(b * c.keys + key)] != 0;
  }

  // Probabilities of one row; false if no key is there.
  bool row(const Values& q, const Values& k, int64_t b, int64_t head, int64_t query, Values& p,
           double& logSumExp) const {
    p.assign(static_cast<size_t>(c.keys), 0.0);
    double most = -INFINITY;
    for (int64_t key = 0; key < c.keys; ++key) {
      if (!present(b, key)) continue;
      double score = 0;
      for (int64_t i = 0; i < c.size; ++i)
        score += q[at(c.queries, b, query, head) + static_cast<size_t>(i)] *
                 k[at(c.keys, b, key, head) + static_cast<size_t>(i)];
      p[static_cast<size_t>(key)] = score * scale;
      most = std::max(most, score * scale);
    }
    logSumExp = -INFINITY;
    if (most == -INFINITY) return false;
    double sum = 0;
    for (int64_t key = 0; key < c.keys; ++key) {
      double& value = p[static_cast<size_t>(key)];
      value = present(b, key) ? std::exp(value - most) : 0;
      sum += value;
    }
    for (double& value : p) value /= sum;
    logSumExp = most + std::log(sum);
    return true;
  }

  template <class Visit>
  void forEachRow(const Visit& visit) const {
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t head = 0; head < c.heads; ++head)
        for (int64_t query = 0; query < c.queries; ++query) visit(b, head, query);
  }

  Values forward(const Values& q, const Values& k, const Values& v, Values& logSumExp) const {
    Values y(q.size()), p;
    logSumExp.clear();
    forEachRow([&](int64_t b, int64_t head, int64_t query) {
      double sum;
      row(q, k, b, head, query, p, sum);
      logSumExp.push_back(sum);
      for (int64_t key = 0; key < c.keys; ++key)
        for (int64_t i = 0; i < c.size; ++i)
          y[at(c.queries, b, query, head) + static_cast<size_t>(i)] +=
              p[static_cast<size_t>(key)] * v[at(c.keys, b, key, head) + static_cast<size_t>(i)];
    });
    return y;
  }

  void backward(const Values& q, const Values& k, const Values& v, const Values& dy, Values& dq,
                Values& dk, Values& dv) const {
    dq.assign(q.size(), 0);
    dk.assign(k.size(), 0);
    dv.assign(v.size(), 0);
    Values p;
    forEachRow([&](int64_t b, int64_t head, int64_t query) {
      double sum;
      if (!row(q, k, b, head, query, p, sum)) return;
      const size_t from = at(c.queries, b, query, head);
      Values dp(p.size());
      double mean = 0;
      for (int64_t key = 0; key < c.keys; ++key) {
        const size_t to = at(c.keys, b, key, head);
        const auto j = static_cast<size_t>(key);
        for (size_t i = 0; i < static_cast<size_t>(c.size); ++i) {
          dp[j] += dy[from + i] * v[to + i];
          dv[to + i] += p[j] * dy[from + i];
        }
        mean += p[j] * dp[j];
      }
      for (int64_t key = 0; key < c.keys; ++key) {
        const size_t to = at(c.keys, b, key, head);
        const auto j = static_cast<size_t>(key);
        const double ds = scale * p[j] * (dp[j] - mean);
        for (size_t i = 0; i < static_cast<size_t>(c.size); ++i) {
          dq[from + i] += ds * k[to + i];
          dk[to + i] += ds * q[from + i];
        }
      }
    });
  }
};

}  // namespace didr::test
