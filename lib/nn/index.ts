export {
  type AttentionOptions,
  attention,
  type Conv2dOptions,
  conv2d,
  crossEntropy,
  embedding,
  type GroupNormOptions,
  gatedResidual,
  groupNorm,
  type LayerNormOptions,
  layerNorm,
  linear,
  mse,
  type RmsNormOptions,
  rmsNorm,
  rope,
  swiGlu,
  upsampleNearest2x,
} from './functional.js'
export { Initializer, type InitializerOptions } from './initializer.js'
export {
  Conv2d,
  type Conv2dLayerOptions,
  Embedding,
  GroupNorm,
  LayerNorm,
  Linear,
  type LinearOptions,
  RmsNorm,
} from './layers.js'
export { type Adapted, LoraAdapters, type LoraOptions, lora } from './lora.js'
export { Module } from './module.js'
