// The Integral KL's cotangent and score differences on the CPU, see integral_kl.h for the maths and
// shapes.
//
// Parallel over runs of kIntegralKLRun elements, counted from each sample's start, so that a
// sample's sums do not depend on where in a batch it is. With dmd a sample that fits in one run is
// read twice from the first-level caches; for a larger one all runs' |x0 - xhat0| sums come first,
// in a loop of their own.
// Bytes per float32 element: 4 for each of assistant, teacher, teacherUncond, drs and xt that is
// read, 4 written (no line of the gradient is read when it is stored past the caches). A handful of
// multiply-adds per element: bound by memory.
#include "native/ops/didr/integral_kl.h"

#include "native/core/op.h"
#include "native/ops/didr/samples.cpu.h"

namespace didr {
namespace DIDR_LEVEL {
namespace {

using simd::F32;
using simd::kLanes;
using simd::LaneSum;

// The arrays at the start of a run, and the scalars of its sample.
template <class T>
struct Run {
  const T* x0;
  const T* xt;
  const T* assistant;
  const T* teacher;
  const T* teacherUncond;
  const T* drs;
  T* gradient;
  int64_t count;
  F32 xtDifference;  // of the two denoisers' coefficients on x_t
  F32 assistantOutput;
  F32 teacherXt;
  F32 teacherOutput;
  F32 guidance;
  F32 drsFactor;  // -sigma^2 / alpha
};

template <class T>
DIDR_SIMD const T* advance(const T* p, int64_t elements) {
  return p == nullptr ? p : p + elements;
}

// One vector of an input; `lanes` only where kWhole is false.
template <bool kWhole, class T>
DIDR_SIMD F32 read(const T* p, int lanes) {
  if constexpr (kWhole)
    return simd::load(p);
  else
    return simd::loadPartial(p, lanes);
}

template <bool kUncond, bool kWhole, class T>
DIDR_SIMD F32 guidedTeacher(const Run<T>& run, int64_t i, int lanes) {
  const F32 cond = read<kWhole>(run.teacher + i, lanes);
  if constexpr (!kUncond) return cond;
  const F32 uncond = read<kWhole>(run.teacherUncond + i, lanes);
  return simd::fma(run.guidance, cond - uncond, uncond);
}

struct Sums {
  LaneSum target, reference;
};

// kSame: both networks predict the same thing, so that x_t drops out and outputs are subtracted
// before they are scaled, which keeps the digits of a small difference.
template <bool kSame, bool kUncond, bool kDrs, bool kStreaming, bool kWhole, class T>
DIDR_SIMD void cotangentVector(const Run<T>& run, F32 gradientFactor, int64_t i, int lanes,
                               F32& target, F32& reference) {
  const F32 teacher = guidedTeacher<kUncond, kWhole>(run, i, lanes);
  const F32 assistant = read<kWhole>(run.assistant + i, lanes);
  F32 difference;
  if constexpr (kSame) {
    difference = run.assistantOutput * (assistant - teacher);
  } else {
    const F32 xt = read<kWhole>(run.xt + i, lanes);
    difference = simd::fma(run.assistantOutput, assistant,
                           simd::fma(-run.teacherOutput, teacher, run.xtDifference * xt));
  }
  F32 residual = difference;
  if constexpr (kDrs) {
    residual = simd::fma(run.drsFactor, read<kWhole>(run.drs + i, lanes), difference);
    reference = simd::fma(difference, difference, reference);
  }
  target = simd::fma(residual, residual, target);
  const F32 gradient = gradientFactor * residual;
  if constexpr (kWhole)
    simd::storeOutput<kStreaming>(run.gradient + i, gradient);
  else
    simd::storePartial(run.gradient + i, gradient, lanes);
}

template <bool kSame, bool kUncond, bool kDrs, bool kStreaming, class T>
DIDR_SIMD Sums cotangentRun(const Run<T>& run, F32 gradientFactor) {
  Sums sums;
  int64_t i = 0;
  for (; i + simd::kLogicalLanes <= run.count; i += simd::kLogicalLanes)
    for (int v = 0; v < simd::kLaneVectors; ++v)
      cotangentVector<kSame, kUncond, kDrs, kStreaming, true>(run, gradientFactor, i + v * kLanes,
                                                              kLanes, sums.target.parts[v],
                                                              sums.reference.parts[v]);
  for (int v = 0; i + v * kLanes < run.count; ++v)
    cotangentVector<kSame, kUncond, kDrs, false, false>(
        run, gradientFactor, i + v * kLanes, simd::lanesLeft(run.count - i - v * kLanes),
        sums.target.parts[v], sums.reference.parts[v]);
  if constexpr (!kDrs) sums.reference = sums.target;
  return sums;
}

// |x0 - xhat0_teacher|.
template <bool kUncond, bool kWhole, class T>
DIDR_SIMD F32 distanceVector(const Run<T>& run, int64_t i, int lanes) {
  const F32 teacher = guidedTeacher<kUncond, kWhole>(run, i, lanes);
  const F32 denoised =
      simd::fma(run.teacherOutput, teacher, run.teacherXt * read<kWhole>(run.xt + i, lanes));
  return simd::abs(read<kWhole>(run.x0 + i, lanes) - denoised);
}

template <bool kUncond, class T>
DIDR_SIMD float distanceRun(const Run<T>& run) {
  LaneSum sum;
  int64_t i = 0;
  for (; i + simd::kLogicalLanes <= run.count; i += simd::kLogicalLanes)
    for (int v = 0; v < simd::kLaneVectors; ++v)
      sum.parts[v] += distanceVector<kUncond, true>(run, i + v * kLanes, kLanes);
  for (int v = 0; i + v * kLanes < run.count; ++v)
    sum.parts[v] += distanceVector<kUncond, false>(run, i + v * kLanes,
                                                   simd::lanesLeft(run.count - i - v * kLanes));
  return sum.total();
}

template <class T>
class IntegralKL {
 public:
  explicit IntegralKL(const IntegralKLArgs& arguments)
      : arguments_(arguments),
        runs_(integralKLRunsPerSample(arguments.sampleSize)),
        items_(arguments.batch * runs_),
        readsXt_(integralKLReadsXt(arguments)),
        streaming_(simd::streamingPays(arguments.gradient, arguments.batch * arguments.sampleSize *
                                                               static_cast<int64_t>(sizeof(T))) &&
                   arguments.sampleSize % kLanes == 0) {}

  void compute(CpuContext& context) const {
    for (int64_t b = 0; b < arguments_.batch; ++b) arguments_.nonFinite[b] = 0;
    const bool dmd = arguments_.weighting == Weighting::kDmd;
    const int64_t shortest =
        arguments_.sampleSize < kIntegralKLRun ? arguments_.sampleSize : kIntegralKLRun;
    const int64_t grain = shortest == 0 ? 1 : (kIntegralKLRun + shortest - 1) / shortest;
    if (dmd && runs_ > 1)
      context.pool.parallelFor(items_, grain, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) distance(item, runAt(item));
      });
    context.pool.parallelFor(items_, grain, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const Run<T> run = runAt(item);
        if (dmd && runs_ == 1) distance(item, run);
        cotangent(item, run);
      }
      if (streaming_) simd::streamFence();
    });
    accumulate();
  }

 private:
  Run<T> runAt(int64_t item) const {
    const int64_t sample = item / runs_;
    const int64_t begin = item % runs_ * kIntegralKLRun;
    const int64_t left = arguments_.sampleSize - begin;
    const int64_t first = sample * arguments_.sampleSize + begin;
    const IntegralKLCoefficients c = integralKLCoefficients(arguments_, sample);
    const bool dmd = arguments_.weighting == Weighting::kDmd;
    return {dmd ? static_cast<const T*>(arguments_.x0) + first : nullptr,
            readsXt_ ? static_cast<const T*>(arguments_.xt) + first : nullptr,
            static_cast<const T*>(arguments_.assistant) + first,
            static_cast<const T*>(arguments_.teacher) + first,
            advance(static_cast<const T*>(arguments_.teacherUncond), first),
            advance(static_cast<const T*>(arguments_.drs), first),
            static_cast<T*>(arguments_.gradient) + first,
            left < kIntegralKLRun ? left : kIntegralKLRun,
            simd::broadcast(static_cast<float>(c.assistantXt - c.teacherXt)),
            simd::broadcast(static_cast<float>(c.assistantOutput)),
            simd::broadcast(static_cast<float>(c.teacherXt)),
            simd::broadcast(static_cast<float>(c.teacherOutput)),
            simd::broadcast(arguments_.guidance),
            simd::broadcast(static_cast<float>(-c.drs))};
  }

  double* slot(int64_t item) const { return arguments_.workspace + 3 * item; }

  void distance(int64_t item, const Run<T>& run) const {
    slot(item)[2] = run.teacherUncond == nullptr ? distanceRun<false>(run) : distanceRun<true>(run);
  }

  double gradientFactor(int64_t sample) const {
    const double factor = integralKLCoefficients(arguments_, sample).gradient;
    if (arguments_.weighting != Weighting::kDmd) return factor;
    double sum = 0.0;
    for (int64_t r = 0; r < runs_; ++r) sum += slot(sample * runs_ + r)[2];
    const double mean = sum / static_cast<double>(arguments_.sampleSize);
    return factor / (mean < kDmdFloor ? kDmdFloor : mean);
  }

  void cotangent(int64_t item, const Run<T>& run) const {
    const int64_t sample = item / runs_;
    const F32 factor = simd::broadcast(static_cast<float>(gradientFactor(sample)));
    const bool same = arguments_.assistantPrediction == arguments_.teacherPrediction;
    const Sums sums = same ? withDrs<true>(run, factor) : withDrs<false>(run, factor);
    const float target = sums.target.total();
    const float reference = sums.reference.total();
    slot(item)[0] = static_cast<double>(target);
    slot(item)[1] = static_cast<double>(reference);
    const double distance = arguments_.weighting == Weighting::kDmd ? slot(item)[2] : 0.0;
    // A sum that is not finite is the sign of an input that is not, or of an overflow.
    if (!__builtin_isfinite(static_cast<double>(target) + reference + distance)) {
      int32_t found =
          countNonFinite(run.assistant, run.count) + countNonFinite(run.teacher, run.count);
      for (const T* x : {run.x0, run.xt, run.teacherUncond, run.drs})
        if (x != nullptr) found += countNonFinite(x, run.count);
      addCount(arguments_.nonFinite + sample, found);
    }
  }

  template <bool kSame>
  Sums withDrs(const Run<T>& run, F32 factor) const {
    return run.drs == nullptr ? withUncond<kSame, false>(run, factor)
                              : withUncond<kSame, true>(run, factor);
  }
  template <bool kSame, bool kDrs>
  Sums withUncond(const Run<T>& run, F32 factor) const {
    return run.teacherUncond == nullptr ? withStores<kSame, kDrs, false>(run, factor)
                                        : withStores<kSame, kDrs, true>(run, factor);
  }
  template <bool kSame, bool kDrs, bool kUncond>
  Sums withStores(const Run<T>& run, F32 factor) const {
    return streaming_ ? cotangentRun<kSame, kUncond, kDrs, true>(run, factor)
                      : cotangentRun<kSame, kUncond, kDrs, false>(run, factor);
  }

  // Samples in order, on one thread: the accumulator's bits do not depend on how samples came in
  // batches.
  void accumulate() const {
    for (int64_t b = 0; b < arguments_.batch; ++b) {
      double target = 0.0;
      double reference = 0.0;
      for (int64_t r = 0; r < runs_; ++r) {
        target += slot(b * runs_ + r)[0];
        reference += slot(b * runs_ + r)[1];
      }
      const double norm = integralKLCoefficients(arguments_, b).norm;
      target *= norm;
      reference *= norm;
      arguments_.target[b] = static_cast<float>(target);
      arguments_.reference[b] = static_cast<float>(reference);
      if (arguments_.accumulator == nullptr) continue;
      const int32_t bin = arguments_.bins[b];
      if (bin < 0 || bin >= arguments_.binCount) continue;
      if (!__builtin_isfinite(target) || !__builtin_isfinite(reference)) continue;
      double* const row = arguments_.accumulator + bin;
      row[0] += target;
      row[arguments_.binCount] += reference;
      row[2 * static_cast<int64_t>(arguments_.binCount)] += 1.0;
    }
  }

  const IntegralKLArgs& arguments_;
  const int64_t runs_;
  const int64_t items_;
  const bool readsXt_;
  const bool streaming_;
};

}  // namespace

void integralKLCpu(const IntegralKLArgs& arguments, CpuContext& context) {
  if (arguments.dtype == DType::kBFloat16)
    IntegralKL<BFloat16>(arguments).compute(context);
  else
    IntegralKL<float>(arguments).compute(context);
}

}  // namespace DIDR_LEVEL
}  // namespace didr
