/** The diffused reward score s_r = ∇ log E[exp(r(x0)/β) | x_t] from particles, and the pieces its estimators share. */
import { checkFinite, checkOptions } from '../checks.js'
import { fail } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import type { FloatDType } from '../tensor/dtype.js'
import { showShape } from '../tensor/shape.js'
import { checkFloat, checkSameDevice, checkTensorShape, idOf, Tensor } from '../tensor/tensor.js'
import { checkTimes, noiseLevels, uploadFloats, uploadLevels, withTemporaries } from './samples.js'
import type { Schedule } from './schedules.js'

/** Softmax weights of r/β over the particles, and what they say about the estimate. */
export interface RewardWeights {
  /** [N, B], summing to 1 over the particles. */
  weights: Tensor<'float32', [number, number]>
  /**
   * 1/Σw² of each sample, [B]. N when all particles count alike, 1 when a single one decides: then the estimate has
   * collapsed, and more particles or a larger β are needed.
   */
  effectiveSampleSize: Tensor<'float32', [number]>
}

/** What {@link rewardWeights} is given. */
export interface RewardWeightsOptions {
  /** [N, B], float32. */
  rewards: Tensor<'float32'>
  /** The temperature of the reward, above 0. */
  beta: number
}

/**
 * Stable softmax of r/β over N particles.
 * @throws {DidrError} ERR_SHAPE, ERR_DTYPE, ERR_RANGE at the call; ERR_NONFINITE at the next wait for NaN or infinite
 *   rewards.
 */
export function rewardWeights(options: RewardWeightsOptions): RewardWeights {
  checkOptions('options', options, ['rewards', 'beta'])
  const { rewards, beta } = options
  const id = idOf('rewards', rewards as Tensor)
  if (rewards.rank !== 2 || rewards.shape[0] === 0)
    fail('ERR_SHAPE', `rewards: expected [particles, batch], got ${showShape(rewards.shape)}`)
  checkRewardDType(rewards)
  checkBeta(beta)
  const [weights, effective] = binding.softmaxWeights(id, 1 / beta)
  return wrapWeights(rewards.shape as [number, number], rewards, weights, effective)
}

/** What {@link diffusedRewardScore} is given. */
export interface DiffusedRewardScoreOptions<D extends FloatDType> {
  /** Samples of the posterior p_ref(x0 | x_t): [N, B, ...], float32 or bfloat16. */
  particles: Tensor<D>
  /** Their rewards [N, B], float32. Only the numbers: the reward may be a black box. */
  rewards: Tensor<'float32'>
  /** One time per sample, each in [0, 1]. */
  t: Float32Array
  schedule: Schedule
  /** The temperature of the reward, above 0. */
  beta: number
}

/**
 * The `particles` estimator, in one pass over the particles:
 * s_r = (α/σ²) (Σ_n softmax_n(r_n/β) x0⁽ⁿ⁾ - mean_n x0⁽ⁿ⁾). Consistent as N grows if the particles are exact posterior
 * samples.
 *
 * @returns `score` [B, ...], with {@link RewardWeights}
 * @throws {DidrError} ERR_SHAPE, ERR_DTYPE, ERR_DEVICE, ERR_RANGE, ERR_CONFIG at the call; ERR_NONFINITE at the next
 *   wait for NaN or infinite particles or rewards.
 */
export function diffusedRewardScore<D extends FloatDType>(
  options: DiffusedRewardScoreOptions<D>,
): { score: Tensor<D, number[]> } & RewardWeights {
  checkOptions('options', options, ['particles', 'rewards', 't', 'schedule', 'beta'])
  const { particles, rewards, t, schedule, beta } = options
  const { id, rewardsId, batch } = checkParticles('particles', particles, rewards)
  checkTimes(t, 'particles', batch)
  checkBeta(beta)
  const levels = noiseLevels(t, schedule, { positive: true })
  const [score, weights, effective] = withTemporaries((keep) =>
    binding.diffusedRewardScore(
      id,
      rewardsId,
      keep(uploadLevels(particles.device, levels)),
      1 / beta,
    ),
  )
  return {
    score: new Tensor(score, particles.shape.slice(1), particles.dtype, particles.device),
    ...wrapWeights([particles.shape[0] as number, batch], particles, weights, effective),
  }
}

/** The `damped` factor 1/(β + κ v_t), v_t = σ_d² σ² / (α² σ_d² + σ²) (arXiv 2606.02884). */
export interface Damping {
  /** κ: the curvature of the reward, from 0 on. */
  curvature: number
  /** σ_d: the standard deviation of the data, above 0. */
  dataStd: number
}

/** What {@link weightedRewardGradient} is given. */
export interface WeightedRewardGradientOptions<D extends FloatDType> {
  /** ∇_{x_t} r of each particle: [N, B, ...], float32 or bfloat16. */
  gradients: Tensor<D>
  /** [N, B], float32. */
  rewards: Tensor<'float32'>
  /** The temperature of the reward, above 0. */
  beta: number
  /** Replaces the factor 1/β by the damped one; needs `t` and `schedule`. */
  damping?: Damping
  t?: Float32Array
  schedule?: Schedule
  /** Scales a sample's score down to this L2 norm where it is above it. Default: never. */
  maxNorm?: number
}

/**
 * The sum that the gradient estimators (`tweedie`, `drp`, `damped`) end with, in one pass over the gradients:
 * Σ_n softmax_n(r_n/β) ∇r_n, times 1/β or the damped factor, clipped per sample.
 *
 * @returns `score` [B, ...]; `norm` [B], its L2 norm before clipping; and {@link RewardWeights}
 * @throws {DidrError} as {@link diffusedRewardScore}
 */
export function weightedRewardGradient<D extends FloatDType>(
  options: WeightedRewardGradientOptions<D>,
): { score: Tensor<D, number[]>; norm: Tensor<'float32', [number]> } & RewardWeights {
  checkOptions('options', options, [
    'gradients',
    'rewards',
    'beta',
    'damping',
    't',
    'schedule',
    'maxNorm',
  ])
  const { gradients, rewards, beta, maxNorm } = options
  const { id, rewardsId, batch } = checkParticles('gradients', gradients, rewards)
  checkBeta(beta)
  if (maxNorm !== undefined && !(maxNorm > 0))
    fail('ERR_RANGE', `maxNorm: expected a number above 0, got ${maxNorm}`)
  const factor = factorsOf(options, batch)
  const [score, weights, effective, norm] = withTemporaries((keep) =>
    binding.weightedRewardGradient(
      id,
      rewardsId,
      keep(uploadFloats(gradients.device, factor, [batch])),
      1 / beta,
      maxNorm ?? 0,
    ),
  )
  return {
    score: new Tensor(score, gradients.shape.slice(1), gradients.dtype, gradients.device),
    norm: new Tensor(norm, [batch], 'float32', gradients.device),
    ...wrapWeights([gradients.shape[0] as number, batch], gradients, weights, effective),
  }
}

function factorsOf(
  { beta, damping, t, schedule }: WeightedRewardGradientOptions<FloatDType>,
  batch: number,
): Float32Array {
  if (damping === undefined) return new Float32Array(batch).fill(1 / beta)
  checkOptions('damping', damping, ['curvature', 'dataStd'])
  checkFinite('damping.curvature', damping.curvature)
  checkFinite('damping.dataStd', damping.dataStd)
  if (damping.curvature < 0 || damping.dataStd <= 0)
    fail(
      'ERR_RANGE',
      `damping: expected curvature >= 0 and dataStd > 0, got ${damping.curvature} and ${damping.dataStd}`,
    )
  if (schedule === undefined) fail('ERR_CONFIG', 'schedule: the damped factor needs it')
  checkTimes(t, 'gradients', batch)
  const { alpha, sigma } = noiseLevels(t, schedule, { positive: false })
  const variance = damping.dataStd ** 2
  return Float32Array.from(t, (_, i) => {
    const [a, s] = [alpha[i] as number, sigma[i] as number]
    const spread = a * a * variance + s * s
    const posteriorVariance = spread === 0 ? 0 : (variance * s * s) / spread
    return 1 / (beta + damping.curvature * posteriorVariance)
  })
}

function checkBeta(beta: unknown): asserts beta is number {
  checkFinite('beta', beta)
  if (beta <= 0) fail('ERR_RANGE', `beta: expected a number above 0, got ${beta}`)
}

function checkRewardDType(rewards: Tensor<'float32'>): void {
  if (rewards.dtype !== 'float32')
    fail('ERR_DTYPE', `rewards: expected float32, got ${rewards.dtype as string}`)
}

function checkParticles(
  name: string,
  particles: Tensor<FloatDType>,
  rewards: Tensor<'float32'>,
): { id: TensorId; rewardsId: TensorId; batch: number } {
  const id = idOf(name, particles as Tensor)
  checkFloat(name, particles as Tensor)
  if (particles.rank < 2 || particles.shape[0] === 0)
    fail(
      'ERR_SHAPE',
      `${name}: expected [particles, batch, ...] with at least one particle, got ${showShape(particles.shape)}`,
    )
  const rewardsId = idOf('rewards', rewards as Tensor)
  checkSameDevice('rewards', rewards as Tensor, particles as Tensor)
  checkRewardDType(rewards)
  checkTensorShape('rewards', rewards as Tensor, particles.shape.slice(0, 2))
  return { id, rewardsId, batch: particles.shape[1] as number }
}

function wrapWeights(
  shape: [number, number],
  { device }: { device: Tensor['device'] },
  weights: TensorId,
  effective: TensorId,
): RewardWeights {
  return {
    weights: new Tensor(weights, shape, 'float32', device),
    effectiveSampleSize: new Tensor<'float32', [number]>(effective, [shape[1]], 'float32', device),
  }
}
