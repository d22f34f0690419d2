export {
  type Cotangents,
  type CustomOp,
  checkpoint,
  customOp,
  noGrad,
  Parameter,
  type ParameterOptions,
  type Pullback,
  stopGradient,
  valueAndGrad,
  vjp,
} from './autograd/index.js'
export {
  type DenoisingLossOptions,
  type DenoisingWeighting,
  denoisingLoss,
} from './didr/denoising-loss.js'
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
export { DidrError, type ErrorCode } from './errors.js'
export * as io from './io/index.js'
export * as models from './models/index.js'
export * as nn from './nn/index.js'
export * as optim from './optim/index.js'
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
export { Device, device, type MemoryReport, memory } from './tensor/device.js'
export type { DataOf, DType, FloatDType } from './tensor/dtype.js'
export { where } from './tensor/elementwise.js'
export { concat, stack } from './tensor/layout.js'
export type { Activation, MatmulOptions } from './tensor/matmul.js'
export type { Axes, ReduceOptions } from './tensor/reduce.js'
export { keep, tidy } from './tensor/scope.js'
export type { Broadcast, Multiplied, Reshaped, Shape } from './tensor/shape.js'
export { Tensor } from './tensor/tensor.js'
