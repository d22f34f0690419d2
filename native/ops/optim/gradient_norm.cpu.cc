// The norm of a list of gradients on the CPU, see gradient_norm.h for the maths.
//
// Parallel over blocks; each leaves the sum of its squares in partials, which the calling thread
// then adds up in order. Bytes: 4 read per float32 element, 2 per bfloat16; 8 written and read per
// block of 8192.
#include "native/ops/optim/gradient_norm.h"

#include <cmath>

#include "native/core/op.h"
#include "native/core/report_nonfinite.h"
#include "native/core/simd_double.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::F64;
using simd::kLanes;
using simd::kLogicalLanes;

// Blocks worth a thread.
constexpr int64_t kGrain = 2;

constexpr int kHalves = 2 * simd::kLaneVectors;

DIDR_SIMD void addSquares(F64 (&sums)[kHalves], int v, F32 x) {
  const F64 low = simd::widenLow(x);
  const F64 high = simd::widenHigh(x);
  sums[2 * v] += low * low;
  sums[2 * v + 1] += high * high;
}

template <class T>
DIDR_SIMD double sumOfSquares(const T* x, int64_t count) {
  F64 sums[kHalves] = {};
  int64_t i = 0;
  for (; i + kLogicalLanes <= count; i += kLogicalLanes)
    for (int v = 0; v < simd::kLaneVectors; ++v)
      addSquares(sums, v, simd::load(x + i + v * kLanes));
  for (int v = 0; i < count; ++v, i += kLanes)
    addSquares(sums, v, simd::loadPartial(x + i, simd::lanesLeft(count - i)));
  double lanes[kLogicalLanes];
  for (int h = 0; h < kHalves; ++h) memcpy(lanes + h * (kLanes / 2), &sums[h], sizeof sums[h]);
  for (int half = kLogicalLanes / 2; half >= 1; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

template <class T>
int64_t countNonFinite(const T* x, int64_t count) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i)
    found += (bitsOf(toFloat(x[i])) & 0x7fffffffu) >= 0x7f800000u ? 1 : 0;
  return found;
}

int64_t countNonFinite(const GradientRow& row) {
  return row.dtype == DType::kBFloat16
             ? countNonFinite(static_cast<const BFloat16*>(row.gradient), row.count)
             : countNonFinite(static_cast<const float*>(row.gradient), row.count);
}

// Says which gradient is at fault; runs only when one is.
void refuseNorm(const GradientNormArgs& arguments, CpuContext& context) {
  for (int64_t i = 0; i < arguments.tensors; ++i)
    if (const int64_t found = countNonFinite(arguments.rows[i]); found > 0)
      return refuseGradients(context, arguments.tensors, i, found);
  refuseGradients(context, arguments.tensors, -1, 0);
}

}  // namespace

void gradientNormCpu(const GradientNormArgs& arguments, CpuContext& context) {
  context.pool.parallelFor(arguments.blocks, kGrain, [&](int64_t first, int64_t last) {
    forEachListBlock(
        arguments.rows, arguments.tensors, first, last,
        [&](const GradientRow& row, int64_t begin, int64_t end, int64_t block) {
          arguments.partials[block] =
              row.dtype == DType::kBFloat16
                  ? sumOfSquares(static_cast<const BFloat16*>(row.gradient) + begin, end - begin)
                  : sumOfSquares(static_cast<const float*>(row.gradient) + begin, end - begin);
        });
  });
  double sum = 0;
  for (int64_t block = 0; block < arguments.blocks; ++block) sum += arguments.partials[block];
  const float norm = static_cast<float>(__builtin_sqrt(sum));
  *arguments.norm = norm;
  if (!(norm < INFINITY)) {
    *arguments.clip = NAN;
    refuseNorm(arguments, context);
    return;
  }
  const double wanted = arguments.maxNorm / (static_cast<double>(norm) + 1e-6);
  *arguments.clip = wanted < 1 ? static_cast<float>(wanted) : 1.0f;
}

}  // namespace DIDR_LEVEL
}  // namespace didr
