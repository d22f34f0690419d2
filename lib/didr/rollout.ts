/**
 * Short denoising from x_t towards x0: the samplers behind the `drp` and `particles` estimators.
 *
 * A step from log-SNR λ to λ' > λ is DDIM's (arXiv 2010.02502, eq. 12) for any schedule: with x̂0 the denoiser at x,
 *
 *     x' = α' x̂0 + √(σ'² - d²) (x - α x̂0)/σ + d ξ,    d = η σ' √(1 - exp(λ - λ')),    ξ ~ N(0, I)
 *
 * η = 0 is deterministic (for a rectified flow an Euler step of the probability-flow ODE), η = 1 draws from
 * q(x' | x, x0 = x̂0), as ancestral sampling does. Few such steps spread too little, since x̂0 stands for all of p(x0 | x);
 * η a little above 1 gives that back: 8 steps with η = 1.2 are as close to posterior samples as 64 with η = 1 (`didr verify
 * --scores` measures it). Steps are spaced evenly in λ and end with a denoiser call.
 */
import { noGrad, stopGradient } from '../autograd/vjp.js'
import type { ScoreModel } from '../models/score-model.js'
import { normal } from '../tensor/create.js'
import {
  type Conditions,
  type Float,
  guided,
  outputOf,
  perSample,
  repeatCondition,
} from './denoiser.js'
import type { RandomStream } from './philox.js'
import { denoiserCoefficients } from './prediction.js'
import type { Schedule } from './schedules.js'

export interface RolloutOptions {
  model: ScoreModel
  schedule: Schedule
  /** Guidance of the model inside the rollout. */
  guidance: number
  conditions: Conditions
  /** K, denoiser calls. */
  steps: number
  /** N particles of each sample; more than one only with noise between steps, as they would all be the same. */
  particles: number
  /** η: 0 deterministic, 1 ancestral; above 1 more noise than that. */
  eta: number
  /** The log-SNR towards which the steps are spaced. */
  logSnrEnd: number
  /** Of the last so many denoiser calls gradients are computed; in those before the output counts as a constant. */
  gradientSteps: number
  random: RandomStream
}

/** Times and affine coefficients of one step, per sample. */
interface Step {
  t: Float32Array
  /** Of x, of the network's output and of ξ in what comes next: x', or after the last step x̂0. */
  own: Float64Array
  output: Float64Array
  noise: Float64Array
}

/**
 * @param xt [B, ...]
 * @param first the model's raw outputs at x_t, which the caller has: with and, for guidance other than 1, without the
 *   condition
 * @returns x̂0 of the particles, [N · B, ...] in the order [N, B]; differentiable by x_t
 */
export function rollout(
  xt: Float,
  t: Float32Array,
  first: { conditional: Float; unconditional: Float | undefined },
  options: RolloutOptions,
): Float {
  const { model, guidance, conditions, particles, gradientSteps, random } = options
  const steps = stepsOf(t, options)
  const batch = t.length
  const sample = xt.shape.slice(1)
  let x = xt
  let repeated: Conditions = conditions
  let { conditional, unconditional } = first
  for (const [k, step] of steps.entries()) {
    const constant = k < steps.length - gradientSteps
    const of = (model_: () => Float) => (constant ? stopGradient(noGrad(model_)) : model_())
    if (k > 0) {
      conditional = of(() => outputOf('teacher', model, x, step.t, repeated.condition))
      if (guidance !== 1)
        unconditional = of(() => outputOf('teacher', model, x, step.t, repeated.unconditional))
    } else if (constant) {
      conditional = stopGradient(conditional)
      unconditional = unconditional === undefined ? undefined : stopGradient(unconditional)
    }
    const output =
      guidance === 1 || unconditional === undefined
        ? conditional
        : guided(conditional, unconditional, guidance)
    x = combine(x, output, step)
    if (k === steps.length - 1) break
    if (k === 0 && particles > 1) {
      // From here on there are N of each sample; so far all are alike.
      x = x.reshape([1, ...x.shape]).broadcastTo([particles, ...xt.shape]) as Float
      x = x.reshape([particles * batch, ...sample]) as Float
      repeated = {
        condition: repeatCondition(conditions.condition, particles),
        unconditional: repeatCondition(conditions.unconditional, particles),
      }
      for (const [i, later] of steps.entries()) if (i > 0) steps[i] = repeatStep(later, particles)
    }
    if (options.eta > 0) {
      const { dtype, device } = x
      const noise = normal(x.shape, { ...random.next(), dtype, device }) as Float
      const scale = k === 0 && particles > 1 ? repeatStep(step, particles).noise : step.noise
      x = x.add(noise.mul(perSample(scale, x))) as Float
    }
  }
  return x
}

function combine(x: Float, output: Float, step: Step): Float {
  const scaled = output.mul(perSample(step.output, x)) as Float
  // The x0 prediction after the last step has nothing of x.
  if (step.own.every((value) => value === 0)) return scaled
  return x.mul(perSample(step.own, x)).add(scaled) as Float
}

function repeatStep(step: Step, times: number): Step {
  const repeat64 = (values: Float64Array) =>
    Float64Array.from(
      { length: times * values.length },
      (_, i) => values[i % values.length] as number,
    )
  return {
    t: Float32Array.from(
      { length: times * step.t.length },
      (_, i) => step.t[i % step.t.length] as number,
    ),
    own: repeat64(step.own),
    output: repeat64(step.output),
    noise: repeat64(step.noise),
  }
}

/** A sample that starts at, or beyond, `logSnrEnd` is denoised by this much log-SNR all the same. */
const leastSpan = 4

/** Coefficients of the K steps from each sample's time on. */
function stepsOf(
  t: Float32Array,
  { model, schedule, steps, eta, logSnrEnd }: RolloutOptions,
): Step[] {
  const batch = t.length
  const timeOf = (b: number, k: number) => {
    const time = t[b] as number
    if (k === 0) return time
    const start = schedule.logSnr(time)
    return schedule.timeOfLogSnr(start + (Math.max(logSnrEnd - start, leastSpan) * k) / steps)
  }
  return Array.from({ length: steps }, (_, k) => {
    const step: Step = {
      t: Float32Array.from({ length: batch }, (_, b) => timeOf(b, k)),
      own: new Float64Array(batch),
      output: new Float64Array(batch),
      noise: new Float64Array(batch),
    }
    for (let b = 0; b < batch; b++) {
      const time = step.t[b] as number
      const [alpha, sigma] = [schedule.alpha(time), schedule.sigma(time)]
      const denoiser = denoiserCoefficients(model.prediction, alpha, sigma)
      let [ofDenoised, ofX] = [1, 0]
      if (k < steps - 1) {
        const next = Math.fround(timeOf(b, k + 1))
        const [nextAlpha, nextSigma] = [schedule.alpha(next), schedule.sigma(next)]
        const shrink = -Math.expm1(schedule.logSnr(time) - schedule.logSnr(next))
        // More than σ' there cannot be: then the step forgets x and keeps x̂0 alone.
        const noise = nextSigma * Math.min(eta * Math.sqrt(Math.max(shrink, 0)), 1)
        const kept = Math.sqrt(Math.max(nextSigma * nextSigma - noise * noise, 0))
        ofDenoised = nextAlpha - (kept * alpha) / sigma
        ofX = kept / sigma
        step.noise[b] = noise
      }
      step.own[b] = ofDenoised * denoiser.xt + ofX
      step.output[b] = ofDenoised * denoiser.output
    }
    return step
  })
}
