// Attention of bfloat16 heads of up to 128 elements on CUDA, by tensor cores (cuda_mma.h). Contract and maths: attention.h.
//
// A block of four warps takes 64 queries (or, for dk and dv, 64 keys) of a head, a warp 16 of them, and walks over the
// other side in blocks, in order. Tiles of bfloat16 rows in shared memory, padded by 16 bytes so that the eight rows of a
// fragment lie in different banks, serve both products that need them, ldmatrix transposing for one:
//
//   forward   S = q k^T with q's fragments in registers, online softmax over the four lanes of a row, O += P v
//   queries   S, dP = dy v^T, dS = P (dP - delta), dq += dS k
//   keys      S^T = k q^T, dP^T = v dy^T, dv += P^T dy, dk += dS^T q
//
// The sums of one product are laid out as the left operand of the next, so P and dS stay in registers; they are rounded to
// bfloat16 there, as in FlashAttention (Dao et al., arXiv 2205.14135), and nothing else is: softmax, its sum, which is that
// of the unrounded P, and all sums are float32. Exponentials are powers of two by exp2f, which a device has an instruction
// for. Each gradient is summed by one block in one order: no atomics, nothing between blocks, no memory but the operands'.
// Heads are filled up with zeros to 64 or 128 elements. Several blocks per multiprocessor hide each other's loads. Bytes:
// per 64 queries the keys and values once, mostly from the second-level cache, and the reverse, 16 at a time where sizes
// and addresses allow.
#include <cmath>

#include "native/core/cuda_math.h"
#include "native/core/cuda_mma.h"
#include "native/core/cuda_vector.h"
#include "native/ops/nn/attention.cuda.h"

namespace didr {
namespace {

constexpr int kThreads = 128;
constexpr int kBlock = 64;      // queries, or keys, of a block
constexpr int kWarpBlock = 16;  // of a warp
constexpr int kKeys = 64;       // of a step over keys in the forward pass
constexpr int kKeysBackward = 32;

constexpr float kLog2E = 0x1.715476p0f;

__device__ inline float minusInfinity() { return -scalar::infinity(); }

// One head of a [tokens, heads, size] tensor.
struct Head {
  BFloat16* data;  // its first token
  int64_t stride;
  int64_t tokens;
  int64_t size;
  bool vector;  // eight elements are aligned

  // Eight elements, zeros past the ends.
  __device__ uint4 load(int64_t token, int64_t element) const {
    const int64_t left = token < tokens ? size - element : 0;
    const BFloat16* const from = data + token * stride + element;
    if (vector && left >= 8) return *reinterpret_cast<const uint4*>(from);
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t low = 2 * i < left ? from[2 * i].bits : 0;
      const uint32_t high = 2 * i + 1 < left ? from[2 * i + 1].bits : 0;
      words[i] = low | high << 16;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
  __device__ void store(int64_t token, int64_t element, const uint4& x) const {
    const int64_t left = token < tokens ? size - element : 0;
    BFloat16* const to = data + token * stride + element;
    if (vector && left >= 8) {
      __stwb(reinterpret_cast<uint4*>(to), x);
      return;
    }
    const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (i < left) to[i].bits = static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16));
  }
};

// Rows of a head in shared memory.
template <int kElements, int kRows>
struct Rows {
  static constexpr int kPitch = kElements + 8;
  uint4 vectors[kRows * kPitch / 8];

  __device__ const BFloat16* elements() const { return reinterpret_cast<const BFloat16*>(vectors); }
  __device__ void load(const Head& head, int64_t firstToken) {
    constexpr int kAcross = kElements / 8;
    constexpr int kVectors = kRows * kAcross / kThreads;    // per thread
    constexpr int kTogether = kVectors < 4 ? kVectors : 4;  // on their way at a time
    static_assert(kVectors * kThreads == kRows * kAcross && kVectors % kTogether == 0);
    const int row = static_cast<int>(threadIdx.x) / kAcross;
    const int column = static_cast<int>(threadIdx.x) % kAcross;
    constexpr int kDown = kThreads / kAcross;
#pragma unroll 1
    for (int first = 0; first < kVectors; first += kTogether) {
      uint4 x[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i)
        x[i] = head.load(firstToken + row + (first + i) * kDown, column * 8);
#pragma unroll
      for (int i = 0; i < kTogether; ++i)
        vectors[(row + (first + i) * kDown) * (kPitch / 8) + column] = x[i];
    }
  }
};

// Left fragments of a warp's 16 rows, over the whole depth of kElements.
template <int kElements>
struct LeftRows {
  MmaLeft steps[kElements / 16];

  template <int kRows>
  __device__ void take(const Rows<kElements, kRows>& rows, int warp) {
#pragma unroll
    for (int s = 0; s < kElements / 16; ++s)
      loadFragment<false, true>(rows.elements(), rows.kPitch, warp * kWarpBlock, 16 * s,
                                steps[s].x);
  }
};

// sums[16, kColumns] = left[16, kElements] right[kColumns, kElements]^T, rows of `right` from `first` on.
template <int kElements, int kColumns, int kRows>
__device__ void multiplyRows(const LeftRows<kElements>& left, const Rows<kElements, kRows>& right,
                             MmaSums (&sums)[kColumns / 8]) {
#pragma unroll
  for (int j = 0; j < kColumns / 8; ++j) sums[j] = {};
#pragma unroll
  for (int s = 0; s < kElements / 16; ++s) {
#pragma unroll
    for (int j = 0; j < kColumns / 16; ++j) {
      uint32_t two[4];
      loadFragment<false, false>(right.elements(), right.kPitch, 16 * j, 16 * s, two);
      multiplyAccumulate(left.steps[s], {{two[0], two[1]}}, sums[2 * j]);
      multiplyAccumulate(left.steps[s], {{two[2], two[3]}}, sums[2 * j + 1]);
    }
  }
}

// sums[16, kElements] += weights[16, kDepth] right[kDepth, kElements], the weights as the sums of another product.
template <int kElements, int kDepth, int kRows>
__device__ void addWeighted(const MmaSums (&weights)[kDepth / 8],
                            const Rows<kElements, kRows>& right, MmaSums (&sums)[kElements / 8]) {
#pragma unroll
  for (int s = 0; s < kDepth / 16; ++s) {
    const float(&low)[4] = weights[2 * s].x;
    const float(&high)[4] = weights[2 * s + 1].x;
    const MmaLeft left = {{packBFloat16(low[0], low[1]), packBFloat16(low[2], low[3]),
                           packBFloat16(high[0], high[1]), packBFloat16(high[2], high[3])}};
#pragma unroll
    for (int j = 0; j < kElements / 16; ++j) {
      uint32_t two[4];
      loadFragment<true, true>(right.elements(), right.kPitch, 16 * s, 16 * j, two);
      multiplyAccumulate(left, {{two[0], two[1]}}, sums[2 * j]);
      multiplyAccumulate(left, {{two[2], two[3]}}, sums[2 * j + 1]);
    }
  }
}

// Sums times a factor per row to 64 rows of a head, through shared memory that every warp is done with.
template <int kElements>
__device__ void storeSums(const MmaSums (&sums)[kElements / 8], const float (&factors)[2],
                          Rows<kElements, kBlock>& rows, const Head& head, int64_t firstToken) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  auto* const words = reinterpret_cast<uint32_t*>(rows.vectors);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * kWarpBlock + 8 * half + lane / 4;
#pragma unroll
    for (int j = 0; j < kElements / 8; ++j)
      words[(row * rows.kPitch + 8 * j) / 2 + lane % 4] = packBFloat16(
          sums[j].x[2 * half] * factors[half], sums[j].x[2 * half + 1] * factors[half]);
  }
  __syncthreads();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kBlock * kElements / 8; i += kThreads) {
    const int row = i / (kElements / 8), column = i % (kElements / 8);
    head.store(firstToken + row, column * 8, rows.vectors[row * (rows.kPitch / 8) + column]);
  }
  __syncthreads();
}

// Which head and block of rows a CUDA block works on, and the heads of its tensors.
template <class Arguments>
struct Place {
  const Arguments& arguments;
  bool vector;
  int64_t sample, head, firstToken;

  __device__ Place(const Arguments& of, bool isVector, int64_t tokens)
      : arguments(of), vector(isVector) {
    const int64_t blocks = (tokens + kBlock - 1) / kBlock;
    firstToken = blockIdx.x % blocks * kBlock;
    head = blockIdx.x / blocks % of.heads;
    sample = blockIdx.x / blocks / of.heads;
  }
  __device__ Head of(const void* tensor, int64_t tokens) const {
    return {static_cast<BFloat16*>(const_cast<void*>(tensor)) +
                (sample * tokens * arguments.heads + head) * arguments.size,
            arguments.heads * arguments.size, tokens, arguments.size, vector};
  }
  __device__ Head queries(const void* tensor) const { return of(tensor, arguments.queries); }
  __device__ Head keys(const void* tensor) const { return of(tensor, arguments.keys); }
  // Whether any of a warp's rows is there: warps past the end only load.
  __device__ bool isInside(int warp, int64_t tokens) const {
    return firstToken + warp * kWarpBlock < tokens;
  }
  // Of the log-sum-exps.
  __device__ int64_t row(int64_t query) const {
    return (sample * arguments.heads + head) * arguments.queries + query;
  }
  // 0 for a key that takes part, -inf for one that is masked or past the end.
  __device__ float bias(int64_t key) const {
    const bool present =
        key < arguments.keys &&
        (arguments.mask == nullptr || arguments.mask[sample * arguments.keys + key] != 0);
    return present ? 0.0f : minusInfinity();
  }
};

// Over the four lanes that share a row of sums.
__device__ inline float rowLanesMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 1));
}
__device__ inline float rowLanesSum(float x) {
  x += __shfl_xor_sync(~0u, x, 2);
  return x + __shfl_xor_sync(~0u, x, 1);
}

template <int kElements>
__global__ void __launch_bounds__(kThreads, kElements == 64 ? 3 : 2)
    attentionBFloat16Kernel(AttentionArgs arguments, bool vector) {
  using KeyRows = Rows<kElements, kKeys>;
  DIDR_SHARED(KeyRows, keys, 1);
  DIDR_SHARED(KeyRows, values, 1);
  DIDR_SHARED(float, biases, kKeys);
  const Place<AttentionArgs> place(arguments, vector, arguments.queries);
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const Head k = place.keys(arguments.k), v = place.keys(arguments.v);

  LeftRows<kElements> q;
  static_assert(kKeys == kBlock);  // q passes through the keys' memory
  keys[0].load(place.queries(arguments.q), place.firstToken);
  __syncthreads();
  q.take(keys[0], warp);
  __syncthreads();

  MmaSums output[kElements / 8] = {};
  const float scale = arguments.scale * kLog2E;
  float largest[2] = {minusInfinity(), minusInfinity()};  // of the scores times log2 e
  float sum[2] = {0.0f, 0.0f};
#pragma unroll 1
  for (int64_t firstKey = 0; firstKey < arguments.keys; firstKey += kKeys) {
    keys[0].load(k, firstKey);
    values[0].load(v, firstKey);
    if (threadIdx.x < kKeys) biases[threadIdx.x] = place.bias(firstKey + threadIdx.x);
    __syncthreads();
    if (place.isInside(warp, arguments.queries)) {
      MmaSums scores[kKeys / 8];
      multiplyRows<kElements, kKeys>(q, keys[0], scores);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float most = largest[half];
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& score = scores[j].x[2 * half + e];
            score = __fmaf_rn(score, scale, biases[8 * j + lane % 4 * 2 + e]);
            most = fmaxf(most, score);
          }
        }
        most = rowLanesMax(most);
        // While all keys are masked the shift is 0: exp(-inf - 0) is the zero that exp(-inf + inf) is not.
        const float shift = most == minusInfinity() ? 0.0f : most;
        const float factor = exp2f(largest[half] - shift);
        float added = 0.0f;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& score = scores[j].x[2 * half + e];
            score = exp2f(score - shift);
            added += score;
          }
        }
        sum[half] = sum[half] * factor + rowLanesSum(added);
        largest[half] = most;
#pragma unroll
        for (int j = 0; j < kElements / 8; ++j) {
#pragma unroll
          for (int e = 0; e < 2; ++e) output[j].x[2 * half + e] *= factor;
        }
      }
      addWeighted<kElements, kKeys>(scores, values[0], output);
    }
    __syncthreads();
  }

  float factors[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // A sum of zero is that of a row whose keys are all absent; a NaN stays.
    factors[half] = sum[half] == 0.0f ? 0.0f : 1.0f / sum[half];
    const int64_t query = place.firstToken + warp * kWarpBlock + 8 * half + lane / 4;
    if (query < arguments.queries && lane % 4 == 0)
      arguments.logSumExp[place.row(query)] = largest[half] / kLog2E + scalar::log(sum[half]);
  }
  storeSums<kElements>(output, factors, keys[0], place.queries(arguments.y), place.firstToken);
}

// rowsum(dy y) of one query, by `lanes` neighbouring threads, of which this is the lane-th.
__device__ inline float deltaOf(const Head& y, const Head& dy, int64_t query, int lane, int lanes) {
  float sum = 0.0f;
  for (int64_t element = 8 * lane; element < y.size; element += 8 * lanes) {
    const uint4 left = y.load(query, element), right = dy.load(query, element);
    const uint32_t a[4] = {left.x, left.y, left.z, left.w};
    const uint32_t b[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum = __fmaf_rn(floatOf(a[i] << 16), floatOf(b[i] << 16), sum);
      sum = __fmaf_rn(floatOf(a[i] & 0xffff0000u), floatOf(b[i] & 0xffff0000u), sum);
    }
  }
  for (int other = lanes / 2; other > 0; other /= 2) sum += __shfl_xor_sync(~0u, sum, other);
  return sum;
}

// What is subtracted from a row's scores times log2 e. A row without keys has -inf: all its scores are -inf, and any finite
// shift makes them zeros.
__device__ inline float shiftOf(float logSumExp) {
  return logSumExp == minusInfinity() ? 0.0f : logSumExp * kLog2E;
}

// That a multiprocessor should have registers for; products across lanes take more of them.
template <int kElements>
inline constexpr int kBackwardBlocks = kElements == 64 && kTensorCores ? 3 : 2;

template <int kElements>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks<kElements>)
    attentionBackwardQueriesBFloat16Kernel(AttentionBackwardArgs arguments, bool vector) {
  // Keys and values, or 64 rows of queries.
  union Memory {
    Rows<kElements, kBlock> queries;
    Rows<kElements, kKeysBackward> keys[2];
  };
  static_assert(2 * kKeysBackward == kBlock);
  DIDR_SHARED(Memory, memory, 1);
  DIDR_SHARED(float, biases, kKeysBackward);
  Rows<kElements, kKeysBackward>&keys = memory[0].keys[0], &values = memory[0].keys[1];
  const Place<AttentionBackwardArgs> place(arguments, vector, arguments.queries);
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const Head k = place.keys(arguments.k), v = place.keys(arguments.v);
  const Head y = place.queries(arguments.y), cotangents = place.queries(arguments.dy);

  LeftRows<kElements> q, dy;
  memory[0].queries.load(place.queries(arguments.q), place.firstToken);
  __syncthreads();
  q.take(memory[0].queries, warp);
  __syncthreads();
  memory[0].queries.load(cotangents, place.firstToken);
  __syncthreads();
  dy.take(memory[0].queries, warp);
  __syncthreads();
  float shift[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t query = place.firstToken + warp * kWarpBlock + 8 * half + lane / 4;
    delta[half] = deltaOf(y, cotangents, query, lane % 4, 4);
    shift[half] = query < arguments.queries ? shiftOf(arguments.logSumExp[place.row(query)]) : 0.0f;
  }

  const float scale = arguments.scale * kLog2E;
  MmaSums dq[kElements / 8] = {};
#pragma unroll 1
  for (int64_t firstKey = 0; firstKey < arguments.keys; firstKey += kKeysBackward) {
    keys.load(k, firstKey);
    values.load(v, firstKey);
    if (threadIdx.x < kKeysBackward) biases[threadIdx.x] = place.bias(firstKey + threadIdx.x);
    __syncthreads();
    if (place.isInside(warp, arguments.queries)) {
      MmaSums scores[kKeysBackward / 8], gradients[kKeysBackward / 8];
      multiplyRows<kElements, kKeysBackward>(q, keys, scores);
      multiplyRows<kElements, kKeysBackward>(dy, values, gradients);
#pragma unroll
      for (int j = 0; j < kKeysBackward / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float p = exp2f(__fmaf_rn(scores[j].x[i], scale,
                                          biases[8 * j + lane % 4 * 2 + i % 2] - shift[i / 2]));
          gradients[j].x[i] = p * (gradients[j].x[i] - delta[i / 2]);
        }
      }
      addWeighted<kElements, kKeysBackward>(gradients, keys, dq);
    }
    __syncthreads();
  }
  storeSums<kElements>(dq, {arguments.scale, arguments.scale}, memory[0].queries,
                       place.queries(arguments.dq), place.firstToken);
}

template <int kElements>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks<kElements>)
    attentionBackwardKeysBFloat16Kernel(AttentionBackwardArgs arguments, bool vector) {
  constexpr int kQueries = 2048 / kElements;  // of a step; shared memory holds no more
  using KeyRows = Rows<kElements, kBlock>;
  using QueryRows = Rows<kElements, kQueries>;
  DIDR_SHARED(KeyRows, keys, 1);
  DIDR_SHARED(KeyRows, values, 1);
  DIDR_SHARED(QueryRows, queries, 1);
  DIDR_SHARED(QueryRows, cotangents, 1);
  DIDR_SHARED(float, shifts, kQueries);
  DIDR_SHARED(float, deltas, kQueries);
  const Place<AttentionBackwardArgs> place(arguments, vector, arguments.keys);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarpThreads, lane = thread % kWarpThreads;
  const Head q = place.queries(arguments.q), y = place.queries(arguments.y);
  const Head dy = place.queries(arguments.dy);
  keys[0].load(place.keys(arguments.k), place.firstToken);
  values[0].load(place.keys(arguments.v), place.firstToken);
  __syncthreads();
  float bias[2];
#pragma unroll
  for (int half = 0; half < 2; ++half)
    bias[half] = place.bias(place.firstToken + warp * kWarpBlock + 8 * half + lane / 4);

  const float scale = arguments.scale * kLog2E;
  MmaSums dk[kElements / 8] = {}, dv[kElements / 8] = {};
#pragma unroll 1
  for (int64_t firstQuery = 0; firstQuery < arguments.queries; firstQuery += kQueries) {
    queries[0].load(q, firstQuery);
    cotangents[0].load(dy, firstQuery);
    constexpr int kLanes = kThreads / kQueries;
    const int64_t query = firstQuery + thread / kLanes;
    const float delta = deltaOf(y, dy, query, thread % kLanes, kLanes);
    if (thread % kLanes == 0) {
      deltas[thread / kLanes] = delta;
      // Queries past the end have no probabilities.
      shifts[thread / kLanes] = query < arguments.queries
                                    ? shiftOf(arguments.logSumExp[place.row(query)])
                                    : scalar::infinity();
    }
    __syncthreads();
    if (place.isInside(warp, arguments.keys)) {
      MmaSums scores[kQueries / 8], gradients[kQueries / 8];
      {
        LeftRows<kElements> left;
        left.take(keys[0], warp);
        multiplyRows<kElements, kQueries>(left, queries[0], scores);
        left.take(values[0], warp);
        multiplyRows<kElements, kQueries>(left, cotangents[0], gradients);
      }
#pragma unroll
      for (int j = 0; j < kQueries / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = 8 * j + lane % 4 * 2 + i % 2;
          const float p = exp2f(__fmaf_rn(scores[j].x[i], scale, bias[i / 2] - shifts[column]));
          scores[j].x[i] = p;
          gradients[j].x[i] = p * (gradients[j].x[i] - deltas[column]);
        }
      }
      addWeighted<kElements, kQueries>(scores, cotangents[0], dv);
      addWeighted<kElements, kQueries>(gradients, queries[0], dk);
    }
    __syncthreads();
  }
  storeSums<kElements>(dk, {arguments.scale, arguments.scale}, keys[0], place.keys(arguments.dk),
                       place.firstToken);
  storeSums<kElements>(dv, {1.0f, 1.0f}, keys[0], place.keys(arguments.dv), place.firstToken);
}

// Eight elements are aligned in every operand.
template <class... Pointers>
bool isVector(int64_t size, const Pointers*... pointers) {
  return size % 8 == 0 && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

template <class Arguments>
void launchBlocks(const char* name, void (*narrow)(Arguments, bool), void (*wide)(Arguments, bool),
                  int64_t tokens, const Arguments& arguments, bool vector, CudaContext& context) {
  const int64_t blocks = arguments.batch * arguments.heads * ((tokens + kBlock - 1) / kBlock);
  if (blocks == 0) return;
  context.launch(name, arguments.size <= 64 ? narrow : wide, dim3(static_cast<unsigned>(blocks)),
                 kThreads, arguments, vector);
}

}  // namespace

void attentionBFloat16(const AttentionArgs& arguments, CudaContext& context) {
  const bool vector = isVector(arguments.size, arguments.q, arguments.k, arguments.v, arguments.y);
  launchBlocks("attention", attentionBFloat16Kernel<64>, attentionBFloat16Kernel<128>,
               arguments.queries, arguments, vector, context);
}

void attentionBackwardBFloat16(const AttentionBackwardArgs& arguments, CudaContext& context) {
  const bool vector = isVector(arguments.size, arguments.q, arguments.k, arguments.v, arguments.y,
                               arguments.dy, arguments.dq, arguments.dk, arguments.dv);
  launchBlocks("attentionBackward: queries", attentionBackwardQueriesBFloat16Kernel<64>,
               attentionBackwardQueriesBFloat16Kernel<128>, arguments.queries, arguments, vector,
               context);
  launchBlocks("attentionBackward: keys", attentionBackwardKeysBFloat16Kernel<64>,
               attentionBackwardKeysBFloat16Kernel<128>, arguments.keys, arguments, vector,
               context);
}

}  // namespace didr
