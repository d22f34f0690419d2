// `softmax` on the CPU: y = exp(x - m) / sum exp(x - m). Contract: softmax.h.
//
// The maxima and sums of a slice are those of logSumExp (columns.cpu.h); a second pass takes the
// exponentials again, which costs less than keeping them where they do not fit the cache. Parallel
// over slices, and over sections of the axis where there are fewer slices than threads.
#include "native/ops/reduce/softmax.h"

#include "native/core/op.h"
#include "native/core/simd.h"
#include "native/core/simd_math.h"
#include "native/ops/reduce/columns.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;

// y = exp(x - shift) scale over rows of `width` columns.
template <class T>
void normalise(const T* x, T* y, int64_t rows, int64_t rowStride, int64_t width,
               const float* shifts, const float* scales) {
  for (int64_t row = 0; row < rows; ++row, x += rowStride, y += rowStride) {
    int64_t c = 0;
    for (; c + kLanes <= width; c += kLanes)
      simd::store(y + c,
                  simd::exp(simd::load(x + c) - simd::load(shifts + c)) * simd::load(scales + c));
    if (c < width) {
      const int rest = static_cast<int>(width - c);
      const F32 e = simd::exp(simd::loadPartial(x + c, rest) - simd::load(shifts + c));
      simd::storePartial(y + c, e * simd::load(scales + c), rest);
    }
  }
}

// Rows of a few elements each, the same arithmetic without the machinery of columns.
constexpr int64_t kShortRow = 16;

template <class T>
void softmaxShortRows(const SoftmaxArgs& arguments, CpuContext& context) {
  const auto* x = static_cast<const T*>(arguments.x);
  T* y = static_cast<T*>(arguments.y);
  const int64_t axis = arguments.axis;
  context.pool.parallelFor(
      arguments.outer, kReduceGrain / kShortRow / 4, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          float e[kShortRow] = {};
          float largest = -__builtin_inff();
          for (int64_t i = 0; i < axis; ++i) {
            e[i] = toFloat(x[row * axis + i]);
            // A NaN stays, once it is there.
            if (!(e[i] <= largest) && largest == largest) largest = e[i];
          }
          const float shift = __builtin_isinf(largest) ? 0.0f : largest;
          double sum = 0;
          for (int64_t c = 0; c < axis; c += kLanes)
            simd::store(e + c, simd::exp(simd::load(e + c) - shift));
          for (int64_t i = 0; i < axis; ++i) sum += static_cast<double>(e[i]);
          const float total = static_cast<float>(sum);
          const float scale = __builtin_isfinite(total) ? 1.0f / total : total - total;
          for (int64_t i = 0; i < axis; ++i) storeElement(y + row * axis + i, e[i] * scale);
        }
      });
}

template <class T>
void softmaxOf(const SoftmaxArgs& arguments, CpuContext& context) {
  if (arguments.inner == 1 && arguments.axis <= kShortRow)
    return softmaxShortRows<T>(arguments, context);
  const Slices s(arguments.outer, arguments.axis, arguments.inner);
  const T* x = static_cast<const T*>(arguments.x);
  T* y = static_cast<T*>(arguments.y);
  forEachSlice<LogSumExpColumns>(
      s, x, context, [&](const Slice& slice, const LogSumExpColumns& total) {
        const int64_t columns = slice.columns;
        const int64_t width = s.fold * columns;
        float shifts[kColumnRoom], scales[kColumnRoom];
        for (int64_t c = 0; c < columns; c += kLanes) {
          const F32 sum = total.sum(c);
          // A sum that is infinite or 0 has no quotients.
          const F32 scale = simd::select(simd::isNonFinite(sum), sum - sum, 1.0f / sum);
          simd::store(shifts + c, total.shift(c));
          simd::store(scales + c, scale);
        }
        repeatColumns(shifts, columns, width);
        repeatColumns(scales, columns, width);
        const int64_t offset = slice.offset;
        // Runs on this thread when the slices themselves are shared out.
        context.pool.parallelFor(
            s.rows, atLeastOne(kReduceGrain / 4 / width), [&](int64_t begin, int64_t end) {
              const int64_t at = offset + begin * s.rowStride();
              normalise(x + at, y + at, end - begin, s.rowStride(), width, shifts, scales);
            });
        const int64_t at = offset + s.rows * s.rowStride();
        const int64_t tail = (s.axis - s.rows * s.fold) * s.inner;
        if (tail > 0) normalise(x + at, y + at, 1, 0, tail, shifts, scales);
      });
}

}  // namespace

void softmaxCpu(const SoftmaxArgs& arguments, CpuContext& context) {
  if (arguments.outer * arguments.axis * arguments.inner == 0) return;
  switch (arguments.dtype) {
    case DType::kFloat32:
      return softmaxOf<float>(arguments, context);
    case DType::kBFloat16:
      return softmaxOf<BFloat16>(arguments, context);
    default:
      return;
  }
}

}  // namespace DIDR_LEVEL
}  // namespace didr
