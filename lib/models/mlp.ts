import { checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { type Prediction, predictionIndex } from '../didr/prediction.js'
import { checkTimes } from '../didr/samples.js'
import { fail, show } from '../errors.js'
import { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/layers.js'
import { Module } from '../nn/module.js'
import { type PlaceOptions, tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { concat } from '../tensor/layout.js'
import { type Activation, activations } from '../tensor/matmul.js'
import { showShape } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import type { Condition, ScoreModel } from './score-model.js'
import { sinusoidalFeatures } from './timestep-embedding.js'

type Float = Tensor<FloatDType>

/** The sizes and inputs of an {@link Mlp}. */
export interface MlpOptions extends PlaceOptions<FloatDType> {
  /** Elements of a sample. */
  size: number
  /** Widths of the hidden layers. Default [128, 128, 128]. */
  hidden?: readonly number[]
  /** Default silu. */
  activation?: Activation
  /**
   * How the time comes in, beside the sample: `sinusoidal` features of 1000 t, `plain` as it is, or `none` at all.
   * Default sinusoidal.
   */
  time?: 'sinusoidal' | 'plain' | 'none'
  /** How many sinusoidal features, an even number. Default 64. */
  timeFeatures?: number
  /** Elements of a condition [B, conditionSize] that comes in beside the sample. Default 0: none. */
  conditionSize?: number
  /** What the output is. Default x0. */
  prediction?: Prediction
  /** Of the first parameters. Default 0. */
  seed?: number
}

/** A multilayer perceptron: see {@link mlp}. Parameters are `layers.0.weight` [out, in], `layers.0.bias` and so on. */
export class Mlp extends Module implements ScoreModel {
  readonly prediction: Prediction
  readonly layers: readonly Linear[]
  private readonly size: number
  private readonly activation: Activation
  private readonly timeFeatures: number
  private readonly conditionSize: number

  /** Use {@link mlp}. */
  constructor(options: MlpOptions) {
    super()
    checkOptions('options', options, [
      'size',
      'hidden',
      'activation',
      'time',
      'timeFeatures',
      'conditionSize',
      'prediction',
      'seed',
      'dtype',
      'device',
    ])
    const {
      size,
      hidden = [128, 128, 128],
      activation = 'silu',
      time = 'sinusoidal',
      timeFeatures = 64,
      conditionSize = 0,
      prediction = 'x0',
      seed = 0,
      ...place
    } = options
    checkInteger('options.size', size, 1)
    if (!Array.isArray(hidden))
      fail('ERR_CONFIG', `options.hidden: expected an array of widths, got ${show(hidden)}`)
    for (const [i, width] of hidden.entries()) checkInteger(`options.hidden[${i}]`, width, 1)
    checkOneOf('options.activation', activation, activations)
    checkOneOf('options.time', time, ['sinusoidal', 'plain', 'none'])
    checkInteger('options.timeFeatures', timeFeatures, 2)
    if (timeFeatures % 2 !== 0)
      fail('ERR_RANGE', `options.timeFeatures: expected an even number, got ${timeFeatures}`)
    checkInteger('options.conditionSize', conditionSize, 0)
    predictionIndex('options.prediction', prediction)
    this.prediction = prediction
    this.size = size
    this.activation = activation
    this.timeFeatures = { sinusoidal: timeFeatures, plain: 1, none: 0 }[time]
    this.conditionSize = conditionSize
    const init = new Initializer({ seed, ...place })
    const widths = [size + this.timeFeatures + conditionSize, ...hidden, size]
    this.layers = widths.slice(1).map((width, i) => new Linear(init, widths[i] as number, width))
  }

  /**
   * @param xt [B, ...] with `size` elements in each sample
   * @param t one time per sample; not needed if the network takes no time
   * @param condition [B, conditionSize], if the network takes one
   * @returns like xt
   */
  forward(xt: Float, t?: Float32Array, condition?: Condition): Float {
    const batch = xt.shape[0] ?? 0
    if (xt.rank < 1 || xt.size !== batch * this.size)
      fail(
        'ERR_SHAPE',
        `xt: expected [batch, ...] with ${this.size} elements in a sample, got ${showShape(xt.shape)}`,
      )
    if (this.timeFeatures > 0) checkTimes(t, 'xt', batch)
    if (this.conditionSize > 0) checkCondition(condition, batch, this.conditionSize)
    const parts: Float[] = [xt.reshape([batch, this.size]) as Float]
    if (t !== undefined && this.timeFeatures > 0) {
      const { dtype, device } = xt
      parts.push(
        this.timeFeatures === 1
          ? (tensor(t, { shape: [batch, 1], dtype, device }) as Float)
          : sinusoidalFeatures(
              t.map((time) => 1000 * time),
              this.timeFeatures,
              { dtype, device },
            ),
      )
    }
    if (this.conditionSize > 0) parts.push(condition as Float)
    let x = parts.length === 1 ? (parts[0] as Float) : (concat(parts, 1) as Float)
    const last = this.layers.length - 1
    for (const [i, layer] of this.layers.entries())
      x = layer.forward(x, i < last ? this.activation : 'none')
    return x.reshape(xt.shape) as Float
  }
}

function checkCondition(condition: unknown, batch: number, size: number): void {
  if (!(condition instanceof Tensor))
    fail('ERR_CONFIG', `condition: expected a tensor, got ${show(condition)}`)
  if (condition.rank !== 2 || condition.shape[0] !== batch || condition.shape[1] !== size)
    fail('ERR_SHAPE', `condition: expected [${batch}, ${size}], got ${showShape(condition.shape)}`)
}

/**
 * A multilayer perceptron as a score model, for small problems.
 * @example const model = mlp({ size: 2, hidden: [128, 128], prediction: 'x0', seed: 1 })
 */
export function mlp(options: MlpOptions): Mlp {
  return new Mlp(options)
}
