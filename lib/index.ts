export { DidrError, type ErrorCode } from './errors.js'
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
