export {
  type Cotangents,
  type CustomOp,
  checkpoint,
  customOp,
  frozen,
  noGrad,
  Parameter,
  type ParameterOptions,
  type Pullback,
  stopGradient,
  valueAndGrad,
  vjp,
} from './autograd/index.js'
export * as data from './data/index.js'
export type { DidrConfig, DidrOptions, Objective, OptimizerOptions } from './didr/config.js'
export {
  type DenoisingLossOptions,
  type DenoisingWeighting,
  denoisingLoss,
} from './didr/denoising-loss.js'
export { createDidr, Didr } from './didr/didr.js'
export {
  type Damping,
  type DiffusedRewardScoreOptions,
  diffusedRewardScore,
  type RewardWeights,
  type RewardWeightsOptions,
  rewardWeights,
  type WeightedRewardGradientOptions,
  weightedRewardGradient,
} from './didr/diffused-reward-score.js'
export type { DrsOptions, Estimator } from './didr/drs-config.js'
export { type IntegralKLOptions, integralKL, type Weighting } from './didr/integral-kl.js'
export {
  KlAccumulator,
  type KlAccumulatorOptions,
  type KlEstimate,
} from './didr/kl-accumulator.js'
export { type PerturbOptions, perturb } from './didr/perturb.js'
export type { Prediction } from './didr/prediction.js'
export type { Schedule } from './didr/schedules.js'
export { schedules } from './didr/schedules.js'
export { type DidrMetrics, type DidrStepOptions, didrStep } from './didr/step.js'
export type { TimeSampling } from './didr/time-sampling.js'
export { DidrError, type ErrorCode } from './errors.js'
export * as evaluation from './evaluation/index.js'
export * as io from './io/index.js'
export * as models from './models/index.js'
export * as nn from './nn/index.js'
export * as optim from './optim/index.js'
export * as rewards from './rewards/index.js'
export {
  type ArangeOptions,
  arange,
  type DrawOptions,
  full,
  type NormalOptions,
  normal,
  ones,
  type PlaceOptions,
  type TensorOptions,
  tensor,
  type UniformOptions,
  uniform,
  zeros,
} from './tensor/create.js'
export { Device, type DeviceName, device, type MemoryReport, memory } from './tensor/device.js'
export type { DataOf, DType, FloatDType } from './tensor/dtype.js'
export { where } from './tensor/elementwise.js'
export { concat, stack } from './tensor/layout.js'
export type { Activation, MatmulOptions } from './tensor/matmul.js'
export type { Axes, ReduceOptions } from './tensor/reduce.js'
export { keep, tidy } from './tensor/scope.js'
export type { Broadcast, Multiplied, Reshaped, Shape } from './tensor/shape.js'
export { Tensor } from './tensor/tensor.js'
export * as train from './train/index.js'
export { type ScoreError, type ScoreErrorOptions, scoreErrors } from './verify/scores.js'
export {
  type Measurement,
  type RingEstimator,
  type VerifyOptions,
  type VerifyReport,
  verify,
} from './verify/verify.js'
