// Contracts of `attention` and `attentionBackward`: softmax(scale q k^T + mask) v per head.
//
// Shapes, token by token as linear layers write them: q, y, dy, dq [batch, queries, heads, size];
// k, v, dk, dv [batch, keys, heads, size]; mask [batch, keys], 0 where a key is absent, or null;
// logSumExp [batch, heads, queries] of the scaled scores, stored for the backward pass. A row whose
// keys are all absent gives zeros, a log-sum-exp of -inf and zero gradients.
//
// Backward (Dao et al., "FlashAttention", arXiv 2205.14135), P = exp(scale q k^T - logSumExp):
//   dv = P^T dy;  dS = P (dy v^T - rowsum(dy y));  dq = scale dS k;  dk = scale dS^T q
//
// dtypes: float32; bfloat16, computed in float32 and rounded once; logSumExp float32.
// Sums run over keys, queries or the head's elements in order, in blocks of fixed size: threads
// change no bit, nor do levels that have a fused multiply-add (v2 has none and rounds the product).
// Aliasing: none. No keys x queries matrix leaves the caches: memory is that of the operands, and
// scratch per thread of about (blocks + queries in the backward pass) * size floats.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace didr {

inline constexpr int64_t kMostHeadElements = 256;

struct AttentionArgs {
  const void* q;
  const void* k;
  const void* v;
  const uint8_t* mask;  // or null
  void* y;
  float* logSumExp;
  int64_t batch;
  int64_t queries;
  int64_t keys;
  int64_t heads;
  int64_t size;  // at most kMostHeadElements
  float scale;
  DType dtype;
};

struct AttentionBackwardArgs {
  const void* q;
  const void* k;
  const void* v;
  const uint8_t* mask;  // or null
  const void* y;
  const void* dy;
  const float* logSumExp;
  void* dq;
  void* dk;
  void* dv;
  int64_t batch;
  int64_t queries;
  int64_t keys;
  int64_t heads;
  int64_t size;
  float scale;
  DType dtype;
};

}  // namespace didr
