/**
 * The estimators of the diffused reward score s_r(x_t) = ∇ log E[exp(r(x0)/β) | x_t], behind one call.
 *
 * The gradient estimators (`tweedie`, `damped`, `drp`) differentiate the reward through the teacher: for particles
 * x̂0⁽ⁿ⁾ of the rollout, s_r = Σ_n softmax_n(r_n/β) ∇_{x_t} r_n/β, whose weights are a cotangent, so that one pullback
 * serves all particles. The `particles` estimator needs only numbers of the reward.
 */
import { frozen } from '../autograd/parameter.js'
import { noGrad, stopGradient, vjp } from '../autograd/vjp.js'
import type { GaussianMixture } from '../models/gaussian-mixture.js'
import type { ScoreModel } from '../models/score-model.js'
import type { PartScores } from '../rewards/part-scores.js'
import type { Quadratic } from '../rewards/quadratic.js'
import { type Reward, scoreDifferentiably, scoreNumbers } from '../rewards/reward.js'
import { zeros } from '../tensor/create.js'
import { tidy } from '../tensor/scope.js'
import { Tensor } from '../tensor/tensor.js'
import { type Conditions, type Float, outputOf, repeatCondition } from './denoiser.js'
import {
  diffusedRewardScore,
  rewardWeights,
  weightedRewardGradient,
} from './diffused-reward-score.js'
import type { ResolvedDrs } from './drs-config.js'
import type { RandomStream } from './philox.js'
import { rollout } from './rollout.js'
import type { Schedule } from './schedules.js'

/** What the estimate is made with. */
export interface EstimateOptions {
  drs: ResolvedDrs
  teacher: ScoreModel
  reward: Reward
  /** From samples to the images that the reward sees. */
  decode: (samples: Float) => Float
  schedule: Schedule
  beta: number
  conditions: Conditions
  /** Also return the teacher's output without the condition, for guidance of the stage that asks. */
  withUnconditional: boolean
  random: RandomStream
  /** What the parts of the reward said of the particles, for rewards that learn from it. */
  parts: PartScores
}

/** The estimate at x_t, with the teacher's outputs there, which the Integral KL needs too. */
export interface ScoreEstimate {
  /** s_r, like x_t. */
  score: Float
  /** Raw, with the condition. */
  teacher: Float
  /** Raw, without the condition, where it was needed. */
  teacherUncond: Float | undefined
  /** [B]: 1/Σw² of the particles' weights; undefined for estimators without particles. */
  effectiveSampleSize: Tensor<'float32', [number]> | undefined
  /** [B]: the norm of s_r before clipping; undefined for estimators that do not clip. */
  norm: Tensor<'float32', [number]> | undefined
  /** [N · B]: rewards that nobody has looked at yet; undefined where they have been checked or none were asked for. */
  rewards: Tensor<'float32', [number]> | undefined
}

/** The raw outputs of the teacher at x_t. */
function teacherAt(
  xt: Float,
  t: Float32Array,
  { teacher, conditions, withUnconditional }: EstimateOptions,
  guidance: number,
): { conditional: Float; unconditional: Float | undefined } {
  const conditional = outputOf('teacher', teacher, xt, t, conditions.condition)
  const ask = () => outputOf('teacher', teacher, xt, t, conditions.unconditional)
  if (guidance !== 1) return { conditional, unconditional: ask() }
  // Not in the reward's path: a constant, for which no tape has to keep anything.
  return { conditional, unconditional: withUnconditional ? noGrad(ask) : undefined }
}

/**
 * @param xt [B, ...]
 * @param t one time per sample
 * @throws {DidrError} what the reward's answer is refused for; see {@link Reward}
 */
export async function estimateScore(
  xt: Float,
  t: Float32Array,
  options: EstimateOptions,
): Promise<ScoreEstimate> {
  switch (options.drs.estimator) {
    case 'exact':
      return tidy(() => noGrad(() => exact(xt, t, options)))
    case 'particles':
      return fromParticles(xt, t, options, options.drs)
    default:
      return fromGradient(xt, t, options, options.drs)
  }
}

function exact(xt: Float, t: Float32Array, options: EstimateOptions): ScoreEstimate {
  // createDidr has made sure of both. A mixture has no conditions, so both of its outputs are the same.
  const teacher = options.teacher as GaussianMixture
  const { quadratic } = options.reward as Quadratic
  const { output, score } = teacher.forwardAndScore(xt, t)
  return {
    score: teacher.tilt(quadratic, options.beta).score(xt, t).sub(score) as Float,
    teacher: output,
    teacherUncond: options.withUnconditional ? stopGradient(output) : undefined,
    effectiveSampleSize: undefined,
    norm: undefined,
    rewards: undefined,
  }
}

function fromGradient(
  xt: Float,
  t: Float32Array,
  options: EstimateOptions,
  drs: Exclude<ResolvedDrs, { estimator: 'exact' | 'particles' }>,
): ScoreEstimate {
  const { reward, decode, schedule, beta, conditions, parts } = options
  const { guidance, maxNorm } = drs
  const { steps, particles, eta, logSnrEnd, gradientSteps } =
    drs.estimator === 'drp' ? drs : { ...oneStep, logSnrEnd: 0 }
  const batch = t.length
  const estimate = () => {
    const { value, pullback } = vjp(
      (x: Float) => {
        const first = teacherAt(x, t, options, guidance)
        const denoised = rollout(x, t, first, {
          ...options,
          model: options.teacher,
          guidance,
          steps,
          particles,
          eta,
          logSnrEnd,
          gradientSteps,
        })
        const condition = repeatCondition(conditions.condition, particles)
        const scores = scoreDifferentiably(reward, decode(denoised), condition, parts)
        const { conditional, unconditional } = first
        return unconditional === undefined
          ? [scores, conditional]
          : [scores, conditional, unconditional]
      },
      [xt],
    )
    const [scores, teacher, teacherUncond] = value as [
      Tensor<'float32', [number]>,
      Float,
      Float | undefined,
    ]
    const rewards = scores.reshape([particles, batch]) as Tensor<'float32'>
    const { weights, effectiveSampleSize } = rewardWeights({ rewards, beta })
    const cotangents = [
      weights.reshape([particles * batch]),
      ...value.slice(1).map(() => undefined),
    ]
    const [gradient] = pullback(cotangents as Parameters<typeof pullback>[0]) as [Float]
    const { score, norm } = weightedRewardGradient({
      // The particles are summed already: one is left.
      gradients: gradient.reshape([1, ...xt.shape]) as Float,
      rewards: zeros([1, batch], { device: xt.device }) as Tensor<'float32'>,
      beta,
      t,
      schedule,
      ...(drs.estimator === 'damped'
        ? { damping: { curvature: drs.curvature, dataStd: drs.dataStd } }
        : {}),
      ...(maxNorm === null ? {} : { maxNorm }),
    })
    return {
      score: score as Float,
      teacher,
      teacherUncond,
      effectiveSampleSize: particles > 1 ? effectiveSampleSize : undefined,
      norm,
      rewards: scores,
    }
  }
  return tidy(() => frozen(estimate))
}

/** The plug-in estimators are a rollout of one step. */
const oneStep = { steps: 1, particles: 1, eta: 0, gradientSteps: 1 } as const

async function fromParticles(
  xt: Float,
  t: Float32Array,
  options: EstimateOptions,
  drs: Extract<ResolvedDrs, { estimator: 'particles' }>,
): Promise<ScoreEstimate> {
  const { reward, decode, schedule, beta, conditions, parts, random } = options
  const count = drs.particles
  const batch = t.length
  const { teacher, particles, images, condition } = tidy(() =>
    noGrad(() => {
      const teacher = teacherAt(xt, t, options, drs.guidance)
      const particles =
        drs.sampler === 'posterior'
          ? (options.teacher as GaussianMixture)
              .posteriorSample(xt, t, { particles: count, ...random.nextPair() })
              .reshape([count * batch, ...xt.shape.slice(1)])
          : rollout(xt, t, teacher, {
              ...options,
              ...drs,
              model: options.teacher,
              gradientSteps: drs.steps,
            })
      return {
        teacher,
        particles: particles as Float,
        images: decode(particles as Float),
        condition: repeatCondition(conditions.condition, count),
      }
    }),
  )
  try {
    using scores = await scoreNumbers(reward, images, condition, parts)
    const { score, effectiveSampleSize } = tidy(() => {
      const { score, effectiveSampleSize } = diffusedRewardScore({
        particles: particles.reshape([count, ...xt.shape]) as Float,
        rewards: scores.reshape([count, batch]) as Tensor<'float32'>,
        t,
        schedule,
        beta,
      })
      return { score: score as Float, effectiveSampleSize }
    })
    return {
      score,
      teacher: teacher.conditional,
      teacherUncond: teacher.unconditional,
      effectiveSampleSize,
      norm: undefined,
      rewards: undefined,
    }
  } catch (error) {
    teacher.conditional.dispose()
    teacher.unconditional?.dispose()
    throw error
  } finally {
    particles.dispose()
    if (images !== particles) images.dispose()
    // The repeated one; createDidr asks for at least two particles.
    const repeated = condition instanceof Tensor ? condition : condition?.features
    repeated?.dispose()
  }
}
