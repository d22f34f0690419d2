// Attention on CUDA by fused multiply-adds: float32, and bfloat16 with wider heads than attention_bfloat16.cu takes.
// Contract and maths: attention.h.
//
// A block of 256 threads takes 64 queries (or, for dk and dv, 64 keys) of a head and walks over the other side in blocks
// of 64, in order. Every product is one of the 64 x 64 tiles of gemm.cuda.h, 4 x 4 sums per thread:
//
//   forward     S = q k^T;  online softmax (Milakov and Gimelshein, arXiv 1805.02867): the row's largest score and its
//               sum of exponentials live in the registers of the 16 threads that share the row, who reduce by shuffles;
//               P goes through shared memory;  O += P v
//   queries     S and dP = dy v^T are made again, dS = P (dP - delta) goes through shared memory;  dq += dS k
//   keys        the same with the roles exchanged;  dv += P^T dy, dk += dS^T q
//
// So each gradient is summed by one block in one order: no atomics, nothing between blocks, no memory but the operands'.
// delta = rowsum(dy y) is computed where it is needed, 1/64 of the block's work. Sums of a head up to 128 elements wide
// stay in registers; wider heads are cut into parts of 128, for each of which the scores are made once more.
// Operands of either dtype are float32 from shared memory on, as on the CPU, four elements per access. Work: 2, 3 and 4
// multiply-adds per query, key and element (the scores count once, or twice with dP). Bytes: per 64 queries the keys and
// values once, mostly from the second-level cache, and the reverse.
#include "native/core/cuda_math.h"
#include "native/ops/matmul/gemm.cuda.h"
#include "native/ops/nn/attention.cuda.h"

namespace didr {
namespace {

using Tile = MiddleGemmTile;
constexpr int kBlock = Tile::kSide;  // queries, keys
constexpr int kMostColumnBlocks = 2;
constexpr int kRowLanes = Tile::kThreadsAcross;  // threads that share a row of a tile

__device__ inline float minusInfinity() { return -scalar::infinity(); }

// One head of a [tokens, heads, size] tensor of either dtype.
struct Head {
  void* data;
  int64_t begin;   // of its first token
  int64_t stride;  // between tokens
  int64_t tokens;
  int64_t size;
  bool isFloat;
  bool vector;  // four elements are aligned

  __device__ void load(int64_t token, int64_t element, float (&x)[4]) const {
    const int64_t left = token < tokens ? size - element : 0;
    const int64_t at = begin + token * stride + element;
    if (isFloat) {
      const float* const from = static_cast<const float*>(data) + at;
      if (vector && left >= 4) return loadVector(from, x);
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] = i < left ? from[i] : 0.0f;
    } else {
      const BFloat16* const from = static_cast<const BFloat16*>(data) + at;
      if (vector && left >= 4) {
        const uint2 words = *reinterpret_cast<const uint2*>(from);
        x[0] = floatOf(words.x << 16);
        x[1] = floatOf(words.x & 0xffff0000u);
        x[2] = floatOf(words.y << 16);
        x[3] = floatOf(words.y & 0xffff0000u);
        return;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] = i < left ? toFloat(from[i]) : 0.0f;
    }
  }

  __device__ void store(int64_t token, int64_t element, const float (&x)[4]) const {
    const int64_t left = token < tokens ? size - element : 0;
    const int64_t at = begin + token * stride + element;
    if (isFloat) {
      float* const to = static_cast<float*>(data) + at;
      if (vector && left >= 4) return storeVector(to, x);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (i < left) to[i] = x[i];
    } else {
      BFloat16* const to = static_cast<BFloat16*>(data) + at;
      if (vector && left >= 4) {
        *reinterpret_cast<uint2*>(to) =
            make_uint2(packBFloat16(x[0], x[1]), packBFloat16(x[2], x[3]));
        return;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (i < left) storeElement(to + i, x[i]);
    }
  }
};

// Rows of a head from `firstToken` on as an operand of a tile, its elements the depth.
struct HeadOperand {
  Head head;
  int64_t firstToken;
  GemmChunk chunk;

  __device__ HeadOperand(const Head& of, int64_t token)
      : head(of),
        firstToken(token),
        chunk(GemmChunk::of<Tile>(static_cast<int>(threadIdx.x), true)) {}

  __device__ static bool alongDepth() { return true; }
  __device__ void load(int64_t step, float (&x)[4]) const {
    head.load(firstToken + chunk.extent, step + chunk.depth, x);
  }
};

// A block of probabilities or their gradients, the index that is summed over outside.
struct Weights {
  alignas(16) float rows[kBlock][Tile::kPitch];
};

template <int kColumnBlocks>
struct Sums {
  float block[kColumnBlocks][Tile::kOwn][Tile::kOwn];

  __device__ void clear() {
#pragma unroll
    for (int c = 0; c < kColumnBlocks; ++c) {
#pragma unroll
      for (int i = 0; i < Tile::kOwn; ++i) {
#pragma unroll
        for (int j = 0; j < Tile::kOwn; ++j) block[c][i][j] = 0.0f;
      }
    }
  }
  // += weights^T b, b's rows from `token` on; the columns' blocks take the buffers of a and b.
  __device__ void add(const Tile& tile, const Weights& weights, Tile::Buffers& buffers,
                      const Head& b, int64_t token, int64_t firstElement) {
    const auto chunk = GemmChunk::of<Tile>(static_cast<int>(threadIdx.x), false);
    float next[kColumnBlocks][4];
#pragma unroll 1
    for (int step = 0;; step += Tile::kDepth) {
      const int buffer = step / Tile::kDepth % 2;
      const bool more = step < kBlock;
      if (more) {
#pragma unroll
        for (int c = 0; c < kColumnBlocks; ++c)
          b.load(token + step + chunk.depth, firstElement + c * kBlock + chunk.extent, next[c]);
      }
      if (step > 0) {
#pragma unroll
        for (int p = 0; p < Tile::kDepth; ++p) {
          float left[Tile::kOwn], right[Tile::kOwn];
          takeOwn<Tile>(weights.rows[step - Tile::kDepth + p], tile.threadRow, left);
#pragma unroll
          for (int c = 0; c < kColumnBlocks; ++c) {
            takeOwn<Tile>((c == 0 ? buffers.a : buffers.b)[buffer ^ 1][p], tile.threadColumn,
                          right);
            addProducts(left, right, block[c]);
          }
        }
      }
      if (more) {
#pragma unroll
        for (int c = 0; c < kColumnBlocks; ++c)
          putChunk<Tile>((c == 0 ? buffers.a : buffers.b)[buffer], chunk, false, next[c]);
      }
      __syncthreads();
      if (!more) return;
    }
  }
  // Times a factor per row to rows of a head.
  __device__ void store(const Tile& tile, const Head& to, int64_t token, int64_t firstElement,
                        const float (&factors)[Tile::kOwn]) const {
#pragma unroll
    for (int c = 0; c < kColumnBlocks; ++c) {
#pragma unroll
      for (int i = 0; i < Tile::kOwn; ++i) {
        float x[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) x[j] = block[c][i][j] * factors[i];
        to.store(token + 4 * tile.threadRow + i, firstElement + c * kBlock + 4 * tile.threadColumn,
                 x);
      }
    }
  }
};

// Which head, block of rows and part of the head's elements a CUDA block works on.
struct Place {
  int64_t sample, head, firstToken, firstElement;

  __device__ Place(int64_t tokens, int64_t heads, int64_t size) {
    const int64_t parts = partsOf(size);
    const int64_t blocks = blocksOf(tokens);
    int64_t index = blockIdx.x;
    firstElement = index % parts * kMostColumnBlocks * kBlock;
    index /= parts;
    firstToken = index % blocks * kBlock;
    index /= blocks;
    head = index % heads;
    sample = index / heads;
  }
  DIDR_MEMBER_HOST_DEVICE static int64_t blocksOf(int64_t tokens) {
    return (tokens + kBlock - 1) / kBlock;
  }
  DIDR_MEMBER_HOST_DEVICE static int64_t partsOf(int64_t size) {
    return size <= kBlock ? 1
                          : (size + kMostColumnBlocks * kBlock - 1) / (kMostColumnBlocks * kBlock);
  }
};

template <class Arguments>
__device__ Head headOf(const Arguments& arguments, bool vector, const Place& place,
                       const void* tensor, int64_t tokens) {
  return {const_cast<void*>(tensor),
          (place.sample * tokens * arguments.heads + place.head) * arguments.size,
          arguments.heads * arguments.size,
          tokens,
          arguments.size,
          arguments.dtype == DType::kFloat32,
          vector};
}

// 0 for a key that takes part, -inf for one that is masked or past the end; by this thread's columns.
template <class Arguments>
__device__ void biasOf(const Arguments& arguments, const Tile& tile, int64_t sample,
                       int64_t firstKey, float (&bias)[Tile::kOwn]) {
#pragma unroll
  for (int j = 0; j < Tile::kOwn; ++j) {
    const int64_t key = firstKey + 4 * tile.threadColumn + j;
    const bool present =
        key < arguments.keys &&
        (arguments.mask == nullptr || arguments.mask[sample * arguments.keys + key] != 0);
    bias[j] = present ? 0.0f : minusInfinity();
  }
}

// Over the threads that share a row.
__device__ inline float rowLanesMax(float x) {
#pragma unroll
  for (int lanes = kRowLanes / 2; lanes > 0; lanes /= 2)
    x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}
__device__ inline float rowLanesSum(float x) {
#pragma unroll
  for (int lanes = kRowLanes / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

// With the tile's rows along the weights' columns, or its columns.
__device__ inline void putAcross(const Tile& tile, const float (&x)[Tile::kOwn][Tile::kOwn],
                                 Weights& weights) {
#pragma unroll
  for (int j = 0; j < Tile::kOwn; ++j)
    *reinterpret_cast<float4*>(&weights.rows[4 * tile.threadColumn + j][4 * tile.threadRow]) =
        make_float4(x[0][j], x[1][j], x[2][j], x[3][j]);
}
__device__ inline void putDown(const Tile& tile, const float (&x)[Tile::kOwn][Tile::kOwn],
                               Weights& weights) {
#pragma unroll
  for (int i = 0; i < Tile::kOwn; ++i)
    *reinterpret_cast<float4*>(&weights.rows[4 * tile.threadRow + i][4 * tile.threadColumn]) =
        make_float4(x[i][0], x[i][1], x[i][2], x[i][3]);
}

template <int kColumnBlocks>
__global__ void __launch_bounds__(kGemmThreads, kColumnBlocks == 1 ? 2 : 1)
    attentionKernel(AttentionArgs arguments, bool vector) {
  DIDR_SHARED(Tile::Buffers, buffers, 1);
  DIDR_SHARED(Weights, weights, 1);
  const Tile tile(static_cast<int>(threadIdx.x));
  const Place place(arguments.queries, arguments.heads, arguments.size);
  const auto head = [&](const void* tensor, int64_t tokens) {
    return headOf(arguments, vector, place, tensor, tokens);
  };
  const HeadOperand q(head(arguments.q, arguments.queries), place.firstToken);
  const Head k = head(arguments.k, arguments.keys), v = head(arguments.v, arguments.keys);

  Sums<kColumnBlocks> output;
  output.clear();
  float largest[Tile::kOwn], sum[Tile::kOwn];
#pragma unroll
  for (int i = 0; i < Tile::kOwn; ++i) {
    largest[i] = minusInfinity();
    sum[i] = 0.0f;
  }
#pragma unroll 1
  for (int64_t firstKey = 0; firstKey < arguments.keys; firstKey += kBlock) {
    float scores[Tile::kOwn][Tile::kOwn], bias[Tile::kOwn];
    const HeadOperand keys(k, firstKey);
    multiplyTile(tile, buffers[0], q, keys, arguments.size, scores);
    biasOf(arguments, tile, place.sample, firstKey, bias);
#pragma unroll
    for (int i = 0; i < Tile::kOwn; ++i) {
      float most = largest[i];
#pragma unroll
      for (int j = 0; j < Tile::kOwn; ++j) {
        scores[i][j] = scores[i][j] * arguments.scale + bias[j];
        most = fmaxf(most, scores[i][j]);
      }
      most = rowLanesMax(most);
      // While all keys are masked the shift is 0: exp(-inf - 0) is the zero that exp(-inf + inf) is not.
      const float shift = most == minusInfinity() ? 0.0f : most;
      const float factor = scalar::exp(largest[i] - shift);
      float added = 0.0f;
#pragma unroll
      for (int j = 0; j < Tile::kOwn; ++j) {
        scores[i][j] = scalar::exp(scores[i][j] - shift);
        added += scores[i][j];
      }
      sum[i] = sum[i] * factor + rowLanesSum(added);
      largest[i] = most;
#pragma unroll
      for (int c = 0; c < kColumnBlocks; ++c) {
#pragma unroll
        for (int j = 0; j < Tile::kOwn; ++j) output.block[c][i][j] *= factor;
      }
    }
    putAcross(tile, scores, weights[0]);
    output.add(tile, weights[0], buffers[0], v, firstKey, place.firstElement);
  }

  float factors[Tile::kOwn];
#pragma unroll
  for (int i = 0; i < Tile::kOwn; ++i) {
    // A sum of zero is that of a row whose keys are all absent; a NaN stays.
    factors[i] = sum[i] == 0.0f ? 0.0f : 1.0f / sum[i];
    const int64_t query = place.firstToken + 4 * tile.threadRow + i;
    if (query < arguments.queries && tile.threadColumn == 0 && place.firstElement == 0)
      arguments
          .logSumExp[(place.sample * arguments.heads + place.head) * arguments.queries + query] =
          largest[i] + scalar::log(sum[i]);
  }
  output.store(tile, head(arguments.y, arguments.queries), place.firstToken, place.firstElement,
               factors);
}

// What a row of the scores' tile needs to be differentiated. Rows past the end have no probabilities.
struct RowStates {
  float shift[Tile::kOwn], delta[Tile::kOwn];
  bool present[Tile::kOwn];

  __device__ RowStates(const AttentionBackwardArgs& arguments, const Tile& tile, const Place& place,
                       const Head& y, const Head& dy, int64_t firstQuery) {
#pragma unroll
    for (int i = 0; i < Tile::kOwn; ++i) {
      const int64_t query = firstQuery + 4 * tile.threadRow + i;
      present[i] = query < arguments.queries;
      float sum = 0.0f;
      for (int64_t element = 4 * tile.threadColumn; element < arguments.size;
           element += 4 * kRowLanes) {
        float a[4], b[4];
        y.load(query, element, a);
        dy.load(query, element, b);
#pragma unroll
        for (int j = 0; j < 4; ++j) sum = __fmaf_rn(a[j], b[j], sum);
      }
      delta[i] = rowLanesSum(sum);
      const float logSumExp =
          present[i]
              ? arguments
                    .logSumExp[(place.sample * arguments.heads + place.head) * arguments.queries +
                               query]
              : 0.0f;
      // A row without keys has -inf: all its scores are -inf, and any finite shift makes them zeros.
      shift[i] = logSumExp == minusInfinity() ? 0.0f : logSumExp;
    }
  }

  // scores -> P = exp(scale scores + bias - logSumExp), dP -> dS = P (dP - delta)
  __device__ void differentiate(float scale, const float (&bias)[Tile::kOwn],
                                float (&scores)[Tile::kOwn][Tile::kOwn],
                                float (&gradients)[Tile::kOwn][Tile::kOwn]) const {
#pragma unroll
    for (int i = 0; i < Tile::kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kOwn; ++j) {
        const float p = present[i] ? scalar::exp(scores[i][j] * scale + bias[j] - shift[i]) : 0.0f;
        scores[i][j] = p;
        gradients[i][j] = p * (gradients[i][j] - delta[i]);
      }
    }
  }
};

template <int kColumnBlocks>
__global__ void __launch_bounds__(kGemmThreads, 1)
    attentionBackwardQueriesKernel(AttentionBackwardArgs arguments, bool vector) {
  DIDR_SHARED(Tile::Buffers, buffers, 1);
  DIDR_SHARED(Weights, weights, 1);
  const Tile tile(static_cast<int>(threadIdx.x));
  const Place place(arguments.queries, arguments.heads, arguments.size);
  const auto head = [&](const void* tensor, int64_t tokens) {
    return headOf(arguments, vector, place, tensor, tokens);
  };
  const Head k = head(arguments.k, arguments.keys), v = head(arguments.v, arguments.keys);
  const Head dy = head(arguments.dy, arguments.queries);
  const HeadOperand q(head(arguments.q, arguments.queries), place.firstToken);
  const HeadOperand cotangents(dy, place.firstToken);
  const RowStates rows(arguments, tile, place, head(arguments.y, arguments.queries), dy,
                       place.firstToken);
  Sums<kColumnBlocks> dq;
  dq.clear();
#pragma unroll 1
  for (int64_t firstKey = 0; firstKey < arguments.keys; firstKey += kBlock) {
    float scores[Tile::kOwn][Tile::kOwn], gradients[Tile::kOwn][Tile::kOwn], bias[Tile::kOwn];
    const HeadOperand keys(k, firstKey), values(v, firstKey);
    multiplyTile(tile, buffers[0], q, keys, arguments.size, scores);
    multiplyTile(tile, buffers[0], cotangents, values, arguments.size, gradients);
    biasOf(arguments, tile, place.sample, firstKey, bias);
    rows.differentiate(arguments.scale, bias, scores, gradients);
    putAcross(tile, gradients, weights[0]);
    dq.add(tile, weights[0], buffers[0], k, firstKey, place.firstElement);
  }
  const float scale = arguments.scale;
  dq.store(tile, head(arguments.dq, arguments.queries), place.firstToken, place.firstElement,
           {scale, scale, scale, scale});
}

template <int kColumnBlocks>
__global__ void __launch_bounds__(kGemmThreads, 1)
    attentionBackwardKeysKernel(AttentionBackwardArgs arguments, bool vector) {
  DIDR_SHARED(Tile::Buffers, buffers, 1);
  DIDR_SHARED(Weights, weights, 1);
  const Tile tile(static_cast<int>(threadIdx.x));
  const Place place(arguments.keys, arguments.heads, arguments.size);
  const auto head = [&](const void* tensor, int64_t tokens) {
    return headOf(arguments, vector, place, tensor, tokens);
  };
  const Head q = head(arguments.q, arguments.queries), y = head(arguments.y, arguments.queries);
  const Head dy = head(arguments.dy, arguments.queries);
  const HeadOperand keys(head(arguments.k, arguments.keys), place.firstToken);
  const HeadOperand values(head(arguments.v, arguments.keys), place.firstToken);
  float bias[Tile::kOwn];
  biasOf(arguments, tile, place.sample, place.firstToken, bias);
  Sums<kColumnBlocks> dk, dv;
  dk.clear();
  dv.clear();
#pragma unroll 1
  for (int64_t firstQuery = 0; firstQuery < arguments.queries; firstQuery += kBlock) {
    float scores[Tile::kOwn][Tile::kOwn], gradients[Tile::kOwn][Tile::kOwn];
    const HeadOperand queries(q, firstQuery), cotangents(dy, firstQuery);
    multiplyTile(tile, buffers[0], queries, keys, arguments.size, scores);
    multiplyTile(tile, buffers[0], cotangents, values, arguments.size, gradients);
    const RowStates rows(arguments, tile, place, y, dy, firstQuery);
    rows.differentiate(arguments.scale, bias, scores, gradients);
    putDown(tile, scores, weights[0]);
    dv.add(tile, weights[0], buffers[0], dy, firstQuery, place.firstElement);
    putDown(tile, gradients, weights[0]);
    dk.add(tile, weights[0], buffers[0], q, firstQuery, place.firstElement);
  }
  const float scale = arguments.scale;
  dk.store(tile, head(arguments.dk, arguments.keys), place.firstToken, place.firstElement,
           {scale, scale, scale, scale});
  dv.store(tile, head(arguments.dv, arguments.keys), place.firstToken, place.firstElement,
           {1.0f, 1.0f, 1.0f, 1.0f});
}

template <class Arguments>
bool onTensorCores(const Arguments& arguments) {
  return arguments.dtype == DType::kBFloat16 && arguments.size <= kMostTensorCoreElements;
}

// Four elements are aligned in every operand.
template <class... Pointers>
bool isVector(int64_t size, DType dtype, const Pointers*... pointers) {
  const uintptr_t bytes = 4 * sizeOf(dtype);
  return size % 4 == 0 && ((reinterpret_cast<uintptr_t>(pointers) % bytes == 0) && ...);
}

template <class Arguments>
void launchBlocks(const char* name, void (*narrow)(Arguments, bool), void (*wide)(Arguments, bool),
                  int64_t tokens, const Arguments& arguments, bool vector, CudaContext& context) {
  const int64_t blocks =
      arguments.batch * arguments.heads * Place::blocksOf(tokens) * Place::partsOf(arguments.size);
  if (blocks == 0) return;
  context.launch(name, arguments.size <= kBlock ? narrow : wide,
                 dim3(static_cast<unsigned>(blocks)), kGemmThreads, arguments, vector);
}

}  // namespace

void attentionCuda(const AttentionArgs& arguments, CudaContext& context) {
  if (onTensorCores(arguments)) return attentionBFloat16(arguments, context);
  const bool vector =
      isVector(arguments.size, arguments.dtype, arguments.q, arguments.k, arguments.v, arguments.y);
  launchBlocks("attention", attentionKernel<1>, attentionKernel<2>, arguments.queries, arguments,
               vector, context);
}

void attentionBackwardCuda(const AttentionBackwardArgs& arguments, CudaContext& context) {
  if (onTensorCores(arguments)) return attentionBackwardBFloat16(arguments, context);
  const bool vector =
      isVector(arguments.size, arguments.dtype, arguments.q, arguments.k, arguments.v, arguments.y,
               arguments.dy, arguments.dq, arguments.dk, arguments.dv);
  launchBlocks("attentionBackward: queries", attentionBackwardQueriesKernel<1>,
               attentionBackwardQueriesKernel<2>, arguments.queries, arguments, vector, context);
  launchBlocks("attentionBackward: keys", attentionBackwardKeysKernel<1>,
               attentionBackwardKeysKernel<2>, arguments.keys, arguments, vector, context);
}

}  // namespace didr
