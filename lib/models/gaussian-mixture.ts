/**
 * Gaussian mixtures, diffused, tilted by quadratic rewards and sampled in closed form: the exact answers that the
 * estimators of the diffused reward score are measured against.
 *
 * With p_0 = Σ_k w_k N(μ_k, s_k² I), the diffused p_t = Σ_k w_k N(α μ_k, v_k I), v_k = α² s_k² + σ². With
 * d_k = x_t - α μ_k and the posterior γ_k(x_t) ∝ w_k v_k^(-D/2) exp(-|d_k|² / 2 v_k) of the components,
 *
 *     ∇ log p_t(x_t) = -Σ_k γ_k d_k / v_k
 *     E[x0 | x_t] = Σ_k γ_k (μ_k + (α s_k² / v_k) d_k)
 *     p(x0 | x_t) = Σ_k γ_k N(μ_k + (α s_k² / v_k) d_k, (s_k² σ² / v_k) I)
 *
 * (products of Gaussians; Bishop, "Pattern Recognition and Machine Learning", 2.3.3). Distances are taken directly, not
 * expanded into squares and products, which would cancel at low noise.
 */
import { checkFinite, checkInteger, checkOptions } from '../checks.js'
import { denoiserCoefficients, type Prediction, predictionIndex } from '../didr/prediction.js'
import { checkSamples, checkTimes, type NoiseLevels, noiseLevels } from '../didr/samples.js'
import { checkSchedule, flow, type Schedule } from '../didr/schedules.js'
import { fail, show } from '../errors.js'
import { normal, tensor, uniform } from '../tensor/create.js'
import type { Device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import { concat } from '../tensor/layout.js'
import { tidy } from '../tensor/scope.js'
import { type Shape, showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import type { ScoreModel } from './score-model.js'

type Float = Tensor<FloatDType>
type Float32 = Tensor<'float32'>

/** The components of a {@link GaussianMixture}, and how it answers as a score model. */
export interface GaussianMixtureOptions {
  /** K centres of D numbers each. */
  means: readonly (readonly number[])[]
  /** The standard deviation of all components, or one each; above 0. */
  std: number | readonly number[]
  /** K numbers above 0, scaled to sum to 1. Default: all alike. */
  weights?: readonly number[]
  /** Default `schedules.flow()`. */
  schedule?: Schedule
  /** What `forward` returns. Default x0. */
  prediction?: Prediction
}

/** r(x) = -curvature/2 · |x - center|² */
export interface QuadraticReward {
  /** From 0 on. */
  curvature: number
  /** D numbers. */
  center: readonly number[]
}

/** Per component and sample, what the formulas above need: arrays [B, K], or [B, 1] where all components are as wide. */
interface Coefficients {
  /** log(v_k^(-D/2)) + log (2π)^(-D/2) */
  logScale: Float32Array
  /** -1 / (2 v_k) */
  halfPrecision: Float32Array
  /** α s_k² / v_k */
  gain: Float32Array
  /** s_k σ / √v_k */
  posteriorStd: Float32Array
  /** α, one per sample. */
  alpha: Float32Array
}

/** What the score and the denoiser at x_t are made of. */
interface Components {
  /** The log of the joint density of component and x_t, [B, K]. */
  logits: Float32
  /** [B, K] */
  gamma: Float32
  /** x_t - α μ_k, [B, K, D] */
  offset: Float32
  /** A coefficient as a tensor [B, K] or [B, 1]. */
  of(name: Exclude<keyof Coefficients, 'alpha'>): Float32
}

/** A mixture of isotropic Gaussians, diffused in closed form: see {@link gaussianMixture}. */
export class GaussianMixture implements ScoreModel {
  readonly prediction: Prediction
  readonly schedule: Schedule
  readonly means: readonly (readonly number[])[]
  /** One per component. */
  readonly stds: readonly number[]
  /** Summing to 1. */
  readonly weights: readonly number[]

  /** Use {@link gaussianMixture}. */
  constructor(options: GaussianMixtureOptions) {
    checkOptions('options', options, ['means', 'std', 'weights', 'schedule', 'prediction'])
    const { means, std, weights, schedule = flow(), prediction = 'x0' } = options
    if (!Array.isArray(means) || means.length === 0 || !means.every(Array.isArray))
      fail('ERR_CONFIG', `options.means: expected an array of points, got ${show(means)}`)
    const dimension = (means[0] as readonly number[]).length
    for (const [k, mean] of means.entries()) {
      if (mean.length !== dimension || dimension === 0)
        fail(
          'ERR_SHAPE',
          `options.means[${k}]: expected ${dimension || 'at least one'} numbers, got ${mean.length}`,
        )
      for (const value of mean) checkFinite(`options.means[${k}]`, value)
    }
    this.means = means.map((mean) => [...mean])
    this.stds = typeof std === 'number' ? means.map(() => std) : [...std]
    checkPositive('options.std', this.stds, means.length)
    const given = weights ?? means.map(() => 1)
    checkPositive('options.weights', given, means.length)
    const total = given.reduce((sum, weight) => sum + weight, 0)
    this.weights = given.map((weight) => weight / total)
    checkSchedule('options.schedule', schedule)
    this.schedule = schedule
    predictionIndex('options.prediction', prediction)
    this.prediction = prediction
  }

  /** D, the elements of a sample. */
  get dimension(): number {
    return (this.means[0] as readonly number[]).length
  }

  /** None: everything is known. */
  parameters(): [] {
    return []
  }

  /** The output a network of this prediction type would have to give. @param xt float32 [B, ...] with D elements each */
  forward(xt: Float, t: Float32Array): Float {
    const levels = this.#levels(xt, t, true)
    return tidy(() => this.#output(xt, this.#denoise(xt, levels), levels))
  }

  /** What `forward` and `score` return, from one evaluation of the components. @internal */
  forwardAndScore(xt: Float, t: Float32Array): { output: Float; score: Float } {
    const levels = this.#levels(xt, t, true)
    return tidy(() => {
      const components = this.#components(xt, levels)
      const output = this.#output(xt, this.#denoise(xt, levels, components), levels)
      return { output, score: this.#score(xt, levels, components) }
    })
  }

  /** E[x0 | x_t], like xt; differentiable. @param xt float32 [B, ...] with D elements each */
  denoise(xt: Float, t: Float32Array): Float {
    const levels = this.#levels(xt, t, false)
    return tidy(() => this.#denoise(xt, levels))
  }

  /** ∇ log p_t(x_t), like xt; differentiable. @param xt float32 [B, ...] with D elements each */
  score(xt: Float, t: Float32Array): Float {
    const levels = this.#levels(xt, t, false)
    return tidy(() => this.#score(xt, levels, this.#components(xt, levels)))
  }

  /**
   * log p_t(x) of each sample, [B], float32; differentiable.
   * @param t default: the clean distribution
   */
  logProb(x: Float, t?: Float32Array): Float32 {
    const levels = t === undefined ? this.#cleanLevels(x) : this.#levels(x, t, false)
    return tidy(() => this.#components(x, levels).logits.logSumExp(1))
  }

  /**
   * Independent draws.
   * @returns float32 [count, D]; the same seed and offset give the same bits
   */
  sample(options: { count: number; seed: number; offset?: number; device?: Device }): Float32 {
    checkOptions('options', options, ['count', 'seed', 'offset', 'device'])
    const { count, seed, offset = 0, device } = options
    checkInteger('options.count', count, 0)
    checkInteger('options.offset', offset, 0, 2 ** 52 - 1)
    const place = device === undefined ? {} : { device }
    const [components, dimension] = [this.means.length, this.dimension]
    return tidy(() => {
      const which = uniform([count, 1], { seed, offset: 2 * offset, ...place })
      const noise = normal([count, dimension], { seed, offset: 2 * offset + 1, ...place })
      let sum = 0
      const upper = Float32Array.from(this.weights, (weight) => {
        sum += weight
        return sum
      })
      // The draw is below 1, whatever the weights' sum was rounded to.
      upper[components - 1] = 2
      const bounds = tensor(upper, { shape: [1, components], ...place })
      const chosen = indicators(which as Float32, bounds as Float32)
      const centres = chosen.matmul(this.#matrix(place) as Float32)
      const stds = tensor(Float32Array.from(this.stds), { shape: [components, 1], ...place })
      return centres.add((noise as Float32).mul(chosen.matmul(stds as Float32))) as Float32
    })
  }

  /**
   * Exact draws from p(x0 | x_t).
   * @param xt float32 [B, ...] with D elements each
   * @returns float32 [particles, B, ...]
   */
  posteriorSample(
    xt: Float,
    t: Float32Array,
    options: { particles: number; seed: number; offset?: number },
  ): Float32 {
    checkOptions('options', options, ['particles', 'seed', 'offset'])
    const { particles, seed, offset = 0 } = options
    checkInteger('options.particles', particles, 1)
    checkInteger('options.offset', offset, 0, 2 ** 52 - 1)
    const levels = this.#levels(xt, t, false)
    const [batch, components, dimension] = [t.length, this.means.length, this.dimension]
    const { device } = xt
    return tidy(() => {
      const { gamma, offset: apart, of } = this.#components(xt, levels)
      const draws = { seed, device }
      const which = uniform([particles, batch, 1], { ...draws, offset: 2 * offset })
      const noise = normal([particles, batch, dimension], { ...draws, offset: 2 * offset + 1 })
      // Running sums of γ; past the last component there is nothing, so its bound is out of reach.
      const running = new Float32Array(components * components)
      const last = new Float32Array(components)
      for (let row = 0; row < components; row++)
        for (let column = row; column < components; column++) running[row * components + column] = 1
      last[components - 1] = 2
      const bounds = gamma
        .matmul(tensor(running, { shape: [components, components], device }) as Float32)
        .add(tensor(last, { shape: [1, components], device }) as Float32)
      const chosen = indicators(which as Float32, bounds as Float32)
      const means = this.#matrix({ device })
        .reshape([1, components, dimension])
        .add(apart.mul(of('gain').reshape([batch, this.#widths.length, 1])))
      const centre = chosen
        .reshape([particles, batch, components, 1])
        .mul(means.reshape([1, batch, components, dimension]))
        .sum(2)
      const std = chosen.mul(of('posteriorStd')).sum(2, { keepDims: true })
      return centre.add((noise as Float32).mul(std)).reshape([particles, ...xt.shape]) as Float32
    })
  }

  /**
   * p* ∝ p · exp(r/β): again a mixture. With a = curvature/β, component k has variance s²/(1 + a s²), mean
   * (μ + a s² c)/(1 + a s²) and weight w (1 + a s²)^(-D/2) exp(-a |μ - c|² / 2(1 + a s²)), up to a common factor.
   */
  tilt(reward: QuadraticReward, beta: number): GaussianMixture {
    checkOptions('reward', reward, ['curvature', 'center'])
    const { curvature, center } = reward
    checkFinite('reward.curvature', curvature)
    if (curvature < 0)
      fail('ERR_RANGE', `reward.curvature: expected a number from 0 on, got ${curvature}`)
    if (!Array.isArray(center) || center.length !== this.dimension)
      fail('ERR_SHAPE', `reward.center: expected ${this.dimension} numbers, got ${show(center)}`)
    for (const value of center) checkFinite('reward.center', value)
    checkFinite('beta', beta)
    if (beta <= 0) fail('ERR_RANGE', `beta: expected a number above 0, got ${beta}`)
    const a = curvature / beta
    const shrink = this.stds.map((std) => 1 + a * std * std)
    const logWeights = this.means.map((mean, k) => {
      const factor = shrink[k] as number
      const distance = mean.reduce((sum, value, i) => sum + (value - (center[i] as number)) ** 2, 0)
      return (
        Math.log(this.weights[k] as number) -
        (this.dimension / 2) * Math.log(factor) -
        (a * distance) / (2 * factor)
      )
    })
    const largest = Math.max(...logWeights)
    return new GaussianMixture({
      means: this.means.map((mean, k) => {
        const pull = a * (this.stds[k] as number) ** 2
        return mean.map((value, i) => (value + pull * (center[i] as number)) / (1 + pull))
      }),
      std: this.stds.map((std, k) => std / Math.sqrt(shrink[k] as number)),
      // Components that the reward rules out keep a weight above 0: the smallest there is.
      weights: logWeights.map((weight) => Math.max(Math.exp(weight - largest), Number.MIN_VALUE)),
      schedule: this.schedule,
      prediction: this.prediction,
    })
  }

  /**
   * The exact diffused reward score ∇ log p*_t - ∇ log p_t for p* = `tilt(reward, beta)`, like xt; differentiable.
   * @param xt float32 [B, ...] with D elements each
   */
  rewardScore(xt: Float, t: Float32Array, reward: QuadraticReward, beta: number): Float {
    const target = this.tilt(reward, beta)
    return tidy(() => target.score(xt, t).sub(this.score(xt, t)) as Float)
  }

  /** The standard deviations that coefficients are computed for: a single one where all are alike. */
  get #widths(): readonly number[] {
    return new Set(this.stds).size === 1 ? this.stds.slice(0, 1) : this.stds
  }

  #matrix(place: { device?: Device }): Tensor<'float32', number[]> {
    return tensor(Float32Array.from(this.means.flat()), {
      shape: [this.means.length, this.dimension],
      ...place,
    })
  }

  #checkSamples(x: Float): void {
    checkSamples('xt', x)
    if (x.dtype !== 'float32') fail('ERR_DTYPE', `xt: expected float32, got ${x.dtype}`)
    if (x.size !== (x.shape[0] as number) * this.dimension)
      fail(
        'ERR_SHAPE',
        `xt: expected [batch, ...] with ${this.dimension} elements in a sample, got ${showShape(x.shape)}`,
      )
  }

  #levels(xt: Float, t: Float32Array, positive: boolean): NoiseLevels {
    this.#checkSamples(xt)
    checkTimes(t, 'xt', xt.shape[0] as number)
    return noiseLevels(t, this.schedule, { positive })
  }

  #cleanLevels(x: Float): NoiseLevels {
    this.#checkSamples(x)
    const batch = x.shape[0] as number
    return { alpha: new Float64Array(batch).fill(1), sigma: new Float64Array(batch) }
  }

  #coefficients({ alpha, sigma }: NoiseLevels): Coefficients {
    const batch = alpha.length
    const widths = this.#widths
    const array = () => new Float32Array(batch * widths.length)
    const result: Coefficients = {
      logScale: array(),
      halfPrecision: array(),
      gain: array(),
      posteriorStd: array(),
      alpha: Float32Array.from(alpha),
    }
    for (let b = 0; b < batch; b++)
      for (const [k, std] of widths.entries()) {
        const [a, s] = [alpha[b] as number, sigma[b] as number]
        const variance = a * a * std * std + s * s
        const at = b * widths.length + k
        result.logScale[at] = -(this.dimension / 2) * Math.log(2 * Math.PI * variance)
        result.halfPrecision[at] = -0.5 / variance
        result.gain[at] = (a * std * std) / variance
        result.posteriorStd[at] = (std * s) / Math.sqrt(variance)
      }
    return result
  }

  #components(xt: Float, levels: NoiseLevels): Components {
    const coefficients = this.#coefficients(levels)
    const [batch, components, dimension] = [levels.alpha.length, this.means.length, this.dimension]
    const { device } = xt
    const upload = (values: Float32Array, shape: Shape) =>
      tensor(values, { shape, device }) as Float32
    const of = (name: Exclude<keyof Coefficients, 'alpha'>) =>
      upload(coefficients[name], [batch, this.#widths.length])
    const logWeights = upload(
      Float32Array.from(this.weights, (weight) => Math.log(weight)),
      [1, components],
    )
    const centres = (this.#matrix({ device }).reshape([1, components, dimension]) as Float32).mul(
      upload(coefficients.alpha, [batch, 1, 1]),
    )
    const offset = (xt.reshape([batch, 1, dimension]) as Float32).sub(centres as Float32)
    const logits = offset
      .square()
      .sum(2)
      .mul(of('halfPrecision'))
      .add(of('logScale'))
      .add(logWeights)
    return { logits, gamma: logits.softmax(1), offset, of }
  }

  /** The raw output of this prediction type: x̂0 = a·x_t + b·o, solved for o. */
  #output(xt: Float, denoised: Float, levels: NoiseLevels): Float {
    if (this.prediction === 'x0') return denoised
    const batch = levels.alpha.length
    const [own, scale] = [new Float32Array(batch), new Float32Array(batch)]
    for (let i = 0; i < batch; i++) {
      const [alpha, sigma] = [levels.alpha[i] as number, levels.sigma[i] as number]
      const { xt: a, output: b } = denoiserCoefficients(this.prediction, alpha, sigma)
      own[i] = a
      scale[i] = 1 / b
    }
    const shape = [batch, ...xt.shape.slice(1).fill(1)]
    const column = (values: Float32Array) => tensor(values, { shape, device: xt.device })
    const rest = denoised.sub(xt.mul(column(own) as Float)) as Float
    return rest.mul(column(scale) as Float) as Float
  }

  /** Σ γ_k (α μ_k - x_t) / v_k */
  #score(xt: Float, levels: NoiseLevels, { gamma, of }: Components): Float {
    // -1/v_k
    const precision = of('halfPrecision').mul(2) as Float32
    return this.#pulled(xt, levels, gamma.mul(precision) as Float32).reshape(xt.shape) as Float
  }

  /** Σ γ_k (μ_k + gain_k (x_t - α μ_k)) */
  #denoise(xt: Float, levels: NoiseLevels, components = this.#components(xt, levels)): Float {
    const { gamma, of } = components
    const towards = this.#pulled(xt, levels, gamma.mul(of('gain')) as Float32)
    const centre = gamma.matmul(this.#matrix({ device: xt.device }) as Float32)
    return centre.add(towards).reshape(xt.shape) as Float
  }

  /** Σ c_k (x_t - α μ_k) for coefficients [B, K]: as a sum over k of what is small, not of tensors [B, K, D]. */
  #pulled(xt: Float, { alpha }: NoiseLevels, coefficients: Float32): Float32 {
    const { device } = xt
    const [batch, dimension] = [alpha.length, this.dimension]
    const scale = tensor(Float32Array.from(alpha), { shape: [batch, 1], device }) as Float32
    const centres = coefficients.matmul(this.#matrix({ device }) as Float32).mul(scale)
    const own = (xt.reshape([batch, dimension]) as Float32).mul(
      coefficients.sum(1, { keepDims: true }),
    )
    return own.sub(centres) as Float32
  }
}

/** 1 for the first bound above the draw, 0 for the others: draws [..., 1], ascending bounds [..., K]. */
function indicators(draws: Float32, bounds: Float32): Float32 {
  const below = draws.less(bounds).cast('float32') as Float32
  const components = bounds.shape.at(-1) as number
  if (components === 1) return below
  const start = below.shape.map(() => 0)
  const before = below.slice(start, below.shape.with(-1, components - 1)) as Float32
  const none = below.slice(start, below.shape.with(-1, 1)).mul(0) as Float32
  return below.sub(concat([none, before], -1) as Float32) as Float32
}

function checkPositive(name: string, list: readonly number[], count: number): void {
  if (!Array.isArray(list) || list.length !== count)
    fail('ERR_SHAPE', `${name}: expected ${count} numbers, one per component, got ${show(list)}`)
  for (const value of list) {
    checkFinite(name, value)
    if (value <= 0) fail('ERR_RANGE', `${name}: expected numbers above 0, got ${value}`)
  }
}

/**
 * A mixture of isotropic Gaussians as a score model in closed form.
 * @example
 * const ring = gaussianMixture({
 *   means: Array.from({ length: 8 }, (_, k) => [4 * Math.cos((k * Math.PI) / 4), 4 * Math.sin((k * Math.PI) / 4)]),
 *   std: 0.5,
 * })
 * const target = ring.tilt({ curvature: 1, center: [4, 0] }, 1)
 */
export function gaussianMixture(options: GaussianMixtureOptions): GaussianMixture {
  return new GaussianMixture(options)
}
