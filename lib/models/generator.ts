/** One- and few-step generators: networks that turn noise into samples in one or a few calls. */
import type { Parameter } from '../autograd/parameter.js'
import { checkFinite, checkInteger, checkOptions } from '../checks.js'
import { denoiserCoefficients, predictionIndex } from '../didr/prediction.js'
import { checkSchedule, type Schedule } from '../didr/schedules.js'
import { fail, show } from '../errors.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import { sameShape, showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Condition, ScoreModel } from './score-model.js'

type Float = Tensor<FloatDType>

/** What is aligned: a map from normal noise, and what the samples should show, to samples. */
export interface Generator {
  /**
   * @param z normal noise, `inputShape(batch)`
   * @returns samples [B, ...]; differentiable
   */
  forward(z: Tensor<FloatDType>, condition?: Condition): Tensor<FloatDType>
  parameters(): Parameter[]
  inputShape(batch: number): number[]
}

/** How {@link oneStep} asks a score model. */
export interface OneStepOptions {
  /** The schedule that the score model was trained with. */
  schedule: Schedule
  /** The sizes of one sample, without the batch axis. */
  sampleShape: readonly number[]
  /** The time at which the model is asked, in [0, 1]. Default 1. */
  tInit?: number
  /** What the noise is scaled by before the model sees it. Default √(α² + σ²) at `tInit`: as data of unit variance is. */
  inputScale?: number
}

/** How {@link fewStep} asks a score model. */
export interface FewStepOptions extends Omit<OneStepOptions, 'tInit'> {
  /** The times at which the model is asked, falling, each in [0, 1]. */
  times: readonly number[]
}

/**
 * A score model as a one-step generator: x0 = x̂0(z at t_init), as Diff-Instruct (arXiv 2305.18455) and DMD2
 * (arXiv 2405.14867) use it. The parameters are the model's own.
 * @example const generator = models.oneStep(model, { schedule: schedules.flow(), sampleShape: [4, 16, 16] })
 */
export function oneStep(model: ScoreModel, options: OneStepOptions): Generator {
  checkOptions('options', options, ['schedule', 'sampleShape', 'tInit', 'inputScale'])
  const { tInit = 1, ...rest } = options
  checkTime('options.tInit', tInit)
  const generator = fewStepGenerator(model, { ...rest, times: [tInit] })
  // One slice of noise needs no axis of its own.
  return {
    parameters: () => model.parameters(),
    inputShape: (batch) => [batch, ...options.sampleShape],
    forward: (z, condition) => {
      checkNoise(z, options.sampleShape)
      const [batch, ...sample] = z.shape as [number, ...number[]]
      return tidy(() => generator.forward(z.reshape([batch, 1, ...sample]) as Float, condition))
    },
  }
}

/**
 * A score model as a generator of a few steps: x̂0 at the first time, noised to the next, x̂0 there, and so on
 * (multi-step consistency sampling, arXiv 2303.01469, algorithm 1). Its input [B, times, ...] holds the noise of every
 * step, so that a sample is a function of its input alone. The parameters are the model's own.
 * @example const generator = models.fewStep(model, { schedule, sampleShape: [2], times: [1, 0.5] })
 */
export function fewStep(model: ScoreModel, options: FewStepOptions): Generator {
  checkOptions('options', options, ['schedule', 'sampleShape', 'times', 'inputScale'])
  return fewStepGenerator(model, options)
}

function fewStepGenerator(model: ScoreModel, options: FewStepOptions): Generator {
  const { schedule, sampleShape, times } = options
  checkModel(model)
  checkSchedule('options.schedule', schedule)
  if (!Array.isArray(sampleShape))
    fail('ERR_CONFIG', `options.sampleShape: expected an array of sizes, got ${show(sampleShape)}`)
  for (const [i, size] of sampleShape.entries()) checkInteger(`options.sampleShape[${i}]`, size, 1)
  if (!Array.isArray(times) || times.length === 0)
    fail('ERR_CONFIG', `options.times: expected an array of times, got ${show(times)}`)
  for (const [i, time] of times.entries()) {
    checkTime(`options.times[${i}]`, time)
    if (i > 0 && !(time < (times[i - 1] as number)))
      fail('ERR_RANGE', `options.times: expected falling times, got ${show(times)}`)
  }
  const levels = times.map((time) => ({ alpha: schedule.alpha(time), sigma: schedule.sigma(time) }))
  const first = levels[0] as (typeof levels)[number]
  const { inputScale = Math.hypot(first.alpha, first.sigma) } = options
  checkFinite('options.inputScale', inputScale)
  const coefficients = levels.map(({ alpha, sigma }, i) => {
    const { xt, output } = denoiserCoefficients(model.prediction, alpha, sigma)
    if (!Number.isFinite(xt) || !Number.isFinite(output))
      fail(
        'ERR_RANGE',
        `options.times[${i}]: the ${model.prediction} prediction has no denoiser at ${times[i]}, where alpha is ${alpha}`,
      )
    return { xt, output }
  })
  return {
    parameters: () => model.parameters(),
    inputShape: (batch) => [batch, times.length, ...sampleShape],
    forward(z, condition) {
      checkNoise(z, [times.length, ...sampleShape])
      const batch = z.shape[0] as number
      return tidy(() => {
        let x0: Float | undefined
        for (const [i, time] of times.entries()) {
          const noise = sliceOf(z, i)
          const { alpha, sigma } = levels[i] as (typeof levels)[number]
          const xt = x0 === undefined ? scaled(noise, inputScale) : mixed(x0, alpha, noise, sigma)
          const output = model.forward(xt, new Float32Array(batch).fill(time), condition)
          const { xt: own, output: scale } = coefficients[i] as (typeof coefficients)[number]
          x0 = own === 0 ? scaled(output, scale) : mixed(xt, own, output, scale)
        }
        return x0 as Float
      })
    },
  }
}

/** Slice i of the axis after the batch, [B, ...]. */
function sliceOf(z: Float, i: number): Float {
  const [batch, count, ...sample] = z.shape as [number, number, ...number[]]
  if (count === 1) return z.reshape([batch, ...sample]) as Float
  const begin = [0, i, ...sample.map(() => 0)]
  return z.slice(begin, [batch, 1, ...sample]).reshape([batch, ...sample]) as Float
}

function scaled(x: Float, scale: number): Float {
  return scale === 1 ? x : (x.mul(scale) as Float)
}

function mixed(x: Float, a: number, y: Float, b: number): Float {
  return scaled(x, a).addScaled(y, b) as Float
}

function checkTime(name: string, time: unknown): void {
  checkFinite(name, time)
  if (time < 0 || time > 1) fail('ERR_RANGE', `${name}: expected a time from 0 to 1, got ${time}`)
}

function checkNoise(z: Float, shape: readonly number[]): void {
  if (!sameShape(z.shape.slice(1), shape))
    fail(
      'ERR_SHAPE',
      `z: expected [batch, ${shape.join(', ')}], got ${showShape(z.shape)}; inputShape(batch) has the shape`,
    )
}

/** Refuses what is no score model. */
export function checkModel(model: unknown, name = 'model'): asserts model is ScoreModel {
  const { forward, parameters, prediction } = (model ?? {}) as Partial<ScoreModel>
  if (typeof forward !== 'function' || typeof parameters !== 'function')
    fail(
      'ERR_CONFIG',
      `${name}: expected a score model with forward, parameters and prediction, got ${show(model)}`,
    )
  predictionIndex(`${name}.prediction`, prediction)
}
