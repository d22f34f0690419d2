/** The usual layers as modules. Each holds the parameters of one function of functional.ts. */
import { Parameter } from '../autograd/parameter.js'
import { checkBoolean, checkInteger, checkOptions } from '../checks.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Activation } from '../tensor/matmul.js'
import type { Tensor } from '../tensor/tensor.js'
import {
  conv2d,
  embedding,
  type GroupNormOptions,
  groupNorm,
  type LayerNormOptions,
  layerNorm,
  linear,
  type RmsNormOptions,
  rmsNorm,
} from './functional.js'
import type { Initializer } from './initializer.js'
import { Module } from './module.js'

type Float = Tensor<FloatDType>

/** Settings of a {@link Linear} layer. */
export interface LinearOptions {
  /** Default true. */
  bias?: boolean
  /** Start with zeros, so that the layer gives its bias alone at first. Default false. */
  zero?: boolean
}

/** y = activation(x Wᵀ + b); `weight` [out, in] and `bias` [out] start uniform in ±1/√in. */
export class Linear extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | null

  constructor(init: Initializer, inputs: number, outputs: number, options: LinearOptions = {}) {
    super()
    checkInteger('inputs', inputs, 1)
    checkInteger('outputs', outputs, 1)
    checkOptions('options', options, ['bias', 'zero'])
    const { bias = true, zero = false } = options
    checkBoolean('options.bias', bias)
    checkBoolean('options.zero', zero)
    const start = (shape: number[]) =>
      zero ? init.zeros(shape) : init.uniform(shape, 1 / Math.sqrt(inputs))
    this.weight = new Parameter('weight', start([outputs, inputs]))
    this.bias = bias ? new Parameter('bias', start([outputs])) : null
  }

  /** @param x [..., in] @param activation applied in the same pass where no gradient is kept */
  forward(x: Float, activation: Activation = 'none'): Float {
    return linear(x, this.weight.value, this.bias?.value, activation)
  }
}

/** Rows of `weight` [entries, size], which start standard normal. */
export class Embedding extends Module {
  readonly weight: Parameter

  constructor(init: Initializer, entries: number, size: number) {
    super()
    checkInteger('entries', entries, 1)
    checkInteger('size', size, 1)
    this.weight = new Parameter('weight', init.normal([entries, size], 1))
  }

  /** @param ids int32 [...] @returns [..., size] */
  forward(ids: Tensor<'int32'>): Float {
    return embedding(ids, this.weight.value)
  }
}

/** RMS norm over the last axis with `weight` [size] of ones. */
export class RmsNorm extends Module {
  readonly weight: Parameter
  readonly eps: number

  constructor(init: Initializer, size: number, options: { eps?: number } = {}) {
    super()
    checkInteger('size', size, 1)
    checkOptions('options', options, ['eps'])
    this.eps = options.eps ?? 1e-5
    this.weight = new Parameter('weight', init.ones([size]))
  }

  /** @param modulation scale [B, size]: see {@link rmsNorm} */
  forward(x: Float, modulation: Pick<RmsNormOptions, 'scale'> = {}): Float {
    return rmsNorm(x, { eps: this.eps, weight: this.weight.value, ...modulation })
  }
}

/** Layer norm over the last axis with `weight` of ones and `bias` of zeros, [size], or without both. */
export class LayerNorm extends Module {
  readonly weight: Parameter | null
  readonly bias: Parameter | null
  readonly eps: number

  /** @param options `eps`, default 1e-5; `affine`: with weight and bias, default true */
  constructor(init: Initializer, size: number, options: { eps?: number; affine?: boolean } = {}) {
    super()
    checkInteger('size', size, 1)
    checkOptions('options', options, ['eps', 'affine'])
    const { eps = 1e-5, affine = true } = options
    checkBoolean('options.affine', affine)
    this.eps = eps
    this.weight = affine ? new Parameter('weight', init.ones([size])) : null
    this.bias = affine ? new Parameter('bias', init.zeros([size])) : null
  }

  /** @param modulation scale and shift [B, size]: see {@link layerNorm} */
  forward(x: Float, modulation: Pick<LayerNormOptions, 'scale' | 'shift'> = {}): Float {
    const [weight, bias] = [this.weight?.value, this.bias?.value]
    return layerNorm(x, { eps: this.eps, weight, bias, ...modulation })
  }
}

/** Group norm of [B, C, ...] with `weight` of ones and `bias` of zeros, [C]. */
export class GroupNorm extends Module {
  readonly weight: Parameter
  readonly bias: Parameter
  readonly groups: number
  readonly eps: number

  constructor(init: Initializer, groups: number, channels: number, options: { eps?: number } = {}) {
    super()
    checkInteger('groups', groups, 1)
    checkInteger('channels', channels, 1)
    checkOptions('options', options, ['eps'])
    this.groups = groups
    this.eps = options.eps ?? 1e-5
    this.weight = new Parameter('weight', init.ones([channels]))
    this.bias = new Parameter('bias', init.zeros([channels]))
  }

  /** @param activation applied in the same pass */
  forward(x: Float, activation: NonNullable<GroupNormOptions['activation']> = 'none'): Float {
    const { groups, eps, weight, bias } = this
    return groupNorm(x, { groups, eps, weight: weight.value, bias: bias.value, activation })
  }
}

/** Settings of a {@link Conv2d} layer. */
export interface Conv2dLayerOptions {
  /** Default 1. */
  stride?: 1 | 2
  /** As for {@link conv2d}. Default 0. */
  padding?: number | readonly [top: number, bottom: number, left: number, right: number]
  /** Default true. */
  bias?: boolean
}

/** Convolution with `weight` [outputs, inputs, size, size] and `bias` [outputs], uniform in ±1/√(inputs · size²). */
export class Conv2d extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | null
  readonly stride: 1 | 2
  readonly padding: number | readonly [top: number, bottom: number, left: number, right: number]

  constructor(
    init: Initializer,
    inputs: number,
    outputs: number,
    size: number,
    options: Conv2dLayerOptions = {},
  ) {
    super()
    checkInteger('inputs', inputs, 1)
    checkInteger('outputs', outputs, 1)
    checkInteger('size', size, 1)
    checkOptions('options', options, ['stride', 'padding', 'bias'])
    const { stride = 1, padding = 0, bias = true } = options
    checkBoolean('options.bias', bias)
    const bound = 1 / Math.sqrt(inputs * size * size)
    this.stride = stride
    this.padding = padding
    this.weight = new Parameter('weight', init.uniform([outputs, inputs, size, size], bound))
    this.bias = bias ? new Parameter('bias', init.uniform([outputs], bound)) : null
  }

  /** @param x [B, inputs, H, W] */
  forward(x: Float): Float {
    const { stride, padding, bias } = this
    return conv2d(x, this.weight.value, { bias: bias?.value, stride, padding })
  }
}
