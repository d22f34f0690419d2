// The fused ops of the method. Samples are the first axis; the rest of a shape is one sample's elements.
#include <initializer_list>
#include <optional>

#include "native/addon/call.h"
#include "native/ops/didr/denoising_loss.h"
#include "native/ops/didr/diffused_reward_score.h"
#include "native/ops/didr/integral_kl.h"
#include "native/ops/didr/perturb.h"
#include "native/ops/didr/report_nonfinite.h"

namespace didr::addon {
namespace {

// What every one of these ops has: a model tensor that gives device, dtype, batch and sample size.
struct Samples {
  TensorRecord x;
  int device;
  int64_t batch;
  int64_t sampleSize;

  Samples(const Call& call, size_t index, const char* name)
      : x(call.tensor(index, name)), device(x.storage->device) {
    if (x.dtype != DType::kFloat32 && x.dtype != DType::kBFloat16)
      fail(Code::kDtype,
           std::string(name) + ": expected float32 or bfloat16, got " + nameOf(x.dtype));
    if (x.shape.rank == 0) fail(Code::kShape, std::string(name) + ": expected a batch axis");
    batch = x.shape[0];
    sampleSize = x.shape.product(1, x.shape.rank);
  }

  // A tensor of the same device, dtype and element count.
  const void* like(const Call& call, size_t index, const char* name) const {
    return call.tensorOf(index, name, device, x.dtype, x.count()).data();
  }
  const void* likeOrNull(const Call& call, size_t index, const char* name) const {
    return call.isNull(index) ? nullptr : like(call, index, name);
  }
  // `perSample` numbers for each sample.
  const float* floats(const Call& call, size_t index, const char* name, int64_t perSample) const {
    return static_cast<const float*>(
        call.tensorOf(index, name, device, DType::kFloat32, batch * perSample).data());
  }
};

Shape shapeOf(std::initializer_list<int64_t> sizes) {
  Shape shape;
  for (const int64_t size : sizes) shape.push(size);
  return shape;
}

// Memory that only the op and its report use: freed when the call returns, reused in queue order.
class Scratch {
 public:
  Scratch(const Call& call, int device, int64_t bytes)
      : output_(call, device, DType::kUint8, shapeOf({bytes})) {}
  template <class T>
  T* as() const {
    return static_cast<T*>(output_.data());
  }

 private:
  Output output_;
};

class NonFiniteCounts {
 public:
  NonFiniteCounts(const Call& call, int device, int64_t batch)
      : call_(call), device_(device), batch_(batch), counts_(call, device, batch * 4) {}
  int32_t* data() const { return counts_.as<int32_t>(); }
  // After the op: has its failure reported if it counted any.
  void report(const char* name) const {
    submit(call_, device_, Op::reportNonFinite, ReportNonFiniteArgs{data(), batch_, name});
  }

 private:
  const Call& call_;
  int device_;
  int64_t batch_;
  Scratch counts_;
};

Napi::Value list(const Call& call, std::initializer_list<Napi::Value> values) {
  Napi::Array result = Napi::Array::New(call.env(), values.size());
  uint32_t i = 0;
  for (const Napi::Value& value : values) result.Set(i++, value);
  return result;
}

Prediction predictionOf(const Call& call, size_t index) {
  return static_cast<Prediction>(call.integer(index, "prediction", 0, 3));
}

// perturb(x0, coefficients, seed, offset, returnNoise) -> [xt, noise or null]
Napi::Value perturb(const Call& call) {
  const Samples samples(call, 0, "x0");
  PerturbArgs arguments{};
  arguments.x0 = samples.x.data();
  arguments.coefficients = samples.floats(call, 1, "coefficients", 2);
  arguments.seed = call.natural(2, "seed");
  arguments.offset = call.natural(3, "offset");
  const bool returnNoise = call.flag(4, "returnNoise");
  arguments.batch = samples.batch;
  arguments.sampleSize = samples.sampleSize;
  arguments.dtype = samples.x.dtype;
  Output xt(call, samples.device, samples.x.dtype, samples.x.shape);
  arguments.xt = xt.data();
  std::optional<Output> noise;
  if (returnNoise) noise.emplace(call, samples.device, samples.x.dtype, samples.x.shape);
  if (noise) arguments.noise = noise->data();
  const NonFiniteCounts counts(call, samples.device, samples.batch);
  arguments.nonFinite = counts.data();
  submit(call, samples.device, Op::perturb, arguments);
  counts.report("perturb");
  return list(call, {xt.id(call), noise ? noise->id(call) : call.env().Null()});
}

// denoisingLoss(x0, output, coefficients, weights or null, prediction, seed, offset) -> [per-sample loss, gradient]
Napi::Value denoisingLoss(const Call& call) {
  const Samples samples(call, 0, "x0");
  DenoisingLossArgs arguments{};
  arguments.x0 = samples.x.data();
  arguments.output = samples.like(call, 1, "output");
  arguments.coefficients = samples.floats(call, 2, "coefficients", 2);
  arguments.weights = call.isNull(3) ? nullptr : samples.floats(call, 3, "weights", 1);
  arguments.prediction = predictionOf(call, 4);
  arguments.seed = call.natural(5, "seed");
  arguments.offset = call.natural(6, "offset");
  arguments.batch = samples.batch;
  arguments.sampleSize = samples.sampleSize;
  arguments.dtype = samples.x.dtype;
  Output loss(call, samples.device, DType::kFloat32, shapeOf({samples.batch}));
  Output gradient(call, samples.device, samples.x.dtype, samples.x.shape);
  arguments.loss = static_cast<float*>(loss.data());
  arguments.gradient = gradient.data();
  const NonFiniteCounts counts(call, samples.device, samples.batch);
  arguments.nonFinite = counts.data();
  const Scratch workspace(call, samples.device,
                          8 * denoisingLossWorkspace(samples.batch, samples.sampleSize));
  arguments.workspace = workspace.as<double>();
  submit(call, samples.device, Op::denoisingLoss, arguments);
  counts.report("denoisingLoss");
  return list(call, {loss.id(call), gradient.id(call)});
}

// integralKL(xt, x0 or null, assistant, teacher, teacherUncond or null, drs or null, coefficients, weights or null,
//   bins or null, accumulator or null, guidance, gradientScale, assistantPrediction, teacherPrediction, weighting)
// -> [gradient, per-sample target, per-sample reference]
Napi::Value integralKL(const Call& call) {
  const Samples samples(call, 0, "xt");
  IntegralKLArgs arguments{};
  arguments.xt = samples.x.data();
  arguments.x0 = samples.likeOrNull(call, 1, "x0");
  arguments.assistant = samples.like(call, 2, "assistant");
  arguments.teacher = samples.like(call, 3, "teacher");
  arguments.teacherUncond = samples.likeOrNull(call, 4, "teacherUncond");
  arguments.drs = samples.likeOrNull(call, 5, "drs");
  arguments.coefficients = samples.floats(call, 6, "coefficients", 2);
  arguments.weights = call.isNull(7) ? nullptr : samples.floats(call, 7, "weights", 1);
  if (!call.isNull(9)) {
    const TensorRecord accumulator = call.tensor(9, "accumulator");
    // The largest bin count whose three rows of doubles fit.
    const int64_t bins = accumulator.count() / 24;
    if (bins < 1 || bins > INT32_MAX)
      fail(Code::kShape, "accumulator: expected 24 bytes for each bin");
    arguments.accumulator = static_cast<double*>(const_cast<void*>(
        call.tensorOf(9, "accumulator", samples.device, DType::kUint8, 24 * bins).data()));
    arguments.binCount = static_cast<int32_t>(bins);
    arguments.bins = static_cast<const int32_t*>(
        call.tensorOf(8, "bins", samples.device, DType::kInt32, samples.batch).data());
  }
  arguments.guidance = static_cast<float>(call.number(10, "guidance"));
  arguments.gradientScale = static_cast<float>(call.number(11, "gradientScale"));
  arguments.assistantPrediction = predictionOf(call, 12);
  arguments.teacherPrediction = predictionOf(call, 13);
  arguments.weighting = static_cast<Weighting>(call.integer(14, "weighting", 0, 4));
  if (arguments.weighting == Weighting::kDmd && arguments.x0 == nullptr)
    fail(Code::kConfig, "x0: the dmd weighting needs it");
  if (arguments.weighting == Weighting::kCustom && arguments.weights == nullptr)
    fail(Code::kConfig, "weights: the custom weighting needs them");
  arguments.batch = samples.batch;
  arguments.sampleSize = samples.sampleSize;
  arguments.dtype = samples.x.dtype;
  Output gradient(call, samples.device, samples.x.dtype, samples.x.shape);
  Output target(call, samples.device, DType::kFloat32, shapeOf({samples.batch}));
  Output reference(call, samples.device, DType::kFloat32, shapeOf({samples.batch}));
  arguments.gradient = gradient.data();
  arguments.target = static_cast<float*>(target.data());
  arguments.reference = static_cast<float*>(reference.data());
  const NonFiniteCounts counts(call, samples.device, samples.batch);
  arguments.nonFinite = counts.data();
  const Scratch workspace(call, samples.device,
                          8 * integralKLWorkspace(samples.batch, samples.sampleSize));
  arguments.workspace = workspace.as<double>();
  submit(call, samples.device, Op::integralKL, arguments);
  counts.report("integralKL");
  return list(call, {gradient.id(call), target.id(call), reference.id(call)});
}

// Particles or reward gradients: [particleCount, batch, ...].
struct Particles {
  TensorRecord x;
  int device;
  int64_t particleCount;
  int64_t batch;
  int64_t sampleSize;
  Shape sampleShape;  // [batch, ...]

  Particles(const Call& call, size_t index, const char* name)
      : x(call.tensor(index, name)), device(x.storage->device) {
    if (x.dtype != DType::kFloat32 && x.dtype != DType::kBFloat16)
      fail(Code::kDtype,
           std::string(name) + ": expected float32 or bfloat16, got " + nameOf(x.dtype));
    if (x.shape.rank < 2 || x.shape[0] < 1)
      fail(Code::kShape,
           std::string(name) + ": expected [particles, batch, ...], got " + x.shape.text());
    particleCount = x.shape[0];
    batch = x.shape[1];
    sampleSize = x.shape.product(2, x.shape.rank);
    for (int axis = 1; axis < x.shape.rank; ++axis) sampleShape.push(x.shape[axis]);
  }

  const float* rewards(const Call& call, size_t index) const {
    return static_cast<const float*>(
        call.tensorOf(index, "rewards", device, DType::kFloat32, particleCount * batch).data());
  }
  const float* floats(const Call& call, size_t index, const char* name, int64_t perSample) const {
    return static_cast<const float*>(
        call.tensorOf(index, name, device, DType::kFloat32, batch * perSample).data());
  }
};

// softmaxWeights(rewards [particles, batch], inverseBeta) -> [weights, effective sample size]
Napi::Value softmaxWeights(const Call& call) {
  const TensorRecord rewards = call.tensor(0, "rewards");
  if (rewards.dtype != DType::kFloat32) fail(Code::kDtype, "rewards: expected float32");
  if (rewards.shape.rank != 2 || rewards.shape[0] < 1)
    fail(Code::kShape, "rewards: expected [particles, batch], got " + rewards.shape.text());
  const int device = rewards.storage->device;
  const int64_t batch = rewards.shape[1];
  Output weights(call, device, DType::kFloat32, rewards.shape);
  Output effective(call, device, DType::kFloat32, shapeOf({batch}));
  const NonFiniteCounts counts(call, device, batch);
  SoftmaxWeightsArgs arguments{};
  arguments.rewards = static_cast<const float*>(rewards.data());
  arguments.weights = static_cast<float*>(weights.data());
  arguments.effectiveSampleSize = static_cast<float*>(effective.data());
  arguments.nonFinite = counts.data();
  arguments.particleCount = rewards.shape[0];
  arguments.batch = batch;
  arguments.inverseBeta = static_cast<float>(call.number(1, "inverseBeta"));
  submit(call, device, Op::softmaxWeights, arguments);
  counts.report("rewardWeights");
  return list(call, {weights.id(call), effective.id(call)});
}

// diffusedRewardScore(particles, rewards, coefficients, inverseBeta) -> [score, weights, effective sample size]
Napi::Value diffusedRewardScore(const Call& call) {
  const Particles particles(call, 0, "particles");
  DiffusedRewardScoreArgs arguments{};
  arguments.particles = particles.x.data();
  arguments.rewards = particles.rewards(call, 1);
  arguments.coefficients = particles.floats(call, 2, "coefficients", 2);
  arguments.inverseBeta = static_cast<float>(call.number(3, "inverseBeta"));
  arguments.particleCount = particles.particleCount;
  arguments.batch = particles.batch;
  arguments.sampleSize = particles.sampleSize;
  arguments.dtype = particles.x.dtype;
  Output score(call, particles.device, particles.x.dtype, particles.sampleShape);
  Output weights(call, particles.device, DType::kFloat32,
                 shapeOf({particles.particleCount, particles.batch}));
  Output effective(call, particles.device, DType::kFloat32, shapeOf({particles.batch}));
  arguments.score = score.data();
  arguments.weights = static_cast<float*>(weights.data());
  arguments.effectiveSampleSize = static_cast<float*>(effective.data());
  const NonFiniteCounts counts(call, particles.device, particles.batch);
  arguments.nonFinite = counts.data();
  submit(call, particles.device, Op::diffusedRewardScore, arguments);
  counts.report("diffusedRewardScore");
  return list(call, {score.id(call), weights.id(call), effective.id(call)});
}

// weightedRewardGradient(gradients, rewards, factor [batch], inverseBeta, maxNorm)
// -> [score, weights, effective sample size, norm before clipping]
Napi::Value weightedRewardGradient(const Call& call) {
  const Particles particles(call, 0, "gradients");
  WeightedRewardGradientArgs arguments{};
  arguments.gradients = particles.x.data();
  arguments.rewards = particles.rewards(call, 1);
  arguments.factor = particles.floats(call, 2, "factor", 1);
  arguments.inverseBeta = static_cast<float>(call.number(3, "inverseBeta"));
  arguments.maxNorm = static_cast<float>(call.number(4, "maxNorm"));
  arguments.particleCount = particles.particleCount;
  arguments.batch = particles.batch;
  arguments.sampleSize = particles.sampleSize;
  arguments.dtype = particles.x.dtype;
  Output score(call, particles.device, particles.x.dtype, particles.sampleShape);
  Output weights(call, particles.device, DType::kFloat32,
                 shapeOf({particles.particleCount, particles.batch}));
  Output effective(call, particles.device, DType::kFloat32, shapeOf({particles.batch}));
  Output norm(call, particles.device, DType::kFloat32, shapeOf({particles.batch}));
  arguments.score = score.data();
  arguments.weights = static_cast<float*>(weights.data());
  arguments.effectiveSampleSize = static_cast<float*>(effective.data());
  arguments.norm = static_cast<float*>(norm.data());
  const NonFiniteCounts counts(call, particles.device, particles.batch);
  arguments.nonFinite = counts.data();
  const Scratch workspace(
      call, particles.device,
      8 * weightedRewardGradientWorkspace(particles.batch, particles.sampleSize));
  arguments.workspace = workspace.as<double>();
  submit(call, particles.device, Op::weightedRewardGradient, arguments);
  counts.report("weightedRewardGradient");
  return list(call, {score.id(call), weights.id(call), effective.id(call), norm.id(call)});
}

}  // namespace

void exportDidrOps(Napi::Object exports) {
  exportFunction<perturb>(exports, "perturb");
  exportFunction<denoisingLoss>(exports, "denoisingLoss");
  exportFunction<integralKL>(exports, "integralKL");
  exportFunction<softmaxWeights>(exports, "softmaxWeights");
  exportFunction<diffusedRewardScore>(exports, "diffusedRewardScore");
  exportFunction<weightedRewardGradient>(exports, "weightedRewardGradient");
}

}  // namespace didr::addon
