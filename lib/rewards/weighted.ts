import { stopGradient } from '../autograd/vjp.js'
import { checkFinite, checkNumber, checkOneOf, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import type { Condition } from '../models/score-model.js'
import { ones } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { where } from '../tensor/elementwise.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import type { PartScores } from './part-scores.js'
import {
  checkName,
  checkReward,
  type Reward,
  refuseNonFinite,
  scoreDifferentiably,
  scoreNumbers,
} from './reward.js'
import { checkRunningState, type RunningState, RunningStatistics } from './running-statistics.js'

type Scores = Tensor<'float32', [number]>

/** A reward in a sum, as w · min((r - mean)/std, margin). */
export interface WeightedPart {
  reward: Reward
  /** w. Default 1. */
  weight?: number
  /** Default 0. */
  mean?: number
  /** Above 0. Default 1. */
  std?: number
  /**
   * `running`: mean and standard deviation are those of all scores that the reward has observed; a batch scored before
   * there are any is normalised by its own. They are constants: no gradient flows through them. Where all scores are
   * equal (std at most 1e-6 of the mean) there is no spread to divide by, and std is 1.
   */
  normalize?: 'running'
  /** Past this normalised score the part gives nothing more, and no gradient. Default: it never stops. */
  margin?: number
}

/** Settings of {@link weighted}. */
export interface WeightedOptions {
  /** Default `weighted`. */
  name?: string
}

/** What a checkpoint stores of a weighted reward: for each part, what it has learnt. */
export interface WeightedState {
  parts: { name: string; running?: RunningState; own?: unknown }[]
}

interface Part {
  readonly reward: Reward
  readonly weight: number
  readonly mean: number
  readonly std: number
  readonly margin: number
  readonly running: RunningStatistics | undefined
}

/** Standard deviations below this share of the mean, or below the least, are rounding errors of equal scores. */
const [leastShare, leastStd] = [1e-6, 1e-12]

/** A sum of rewards. Make it with {@link weighted}. */
export class WeightedReward implements Reward {
  readonly name: string
  readonly differentiable: boolean
  readonly #parts: readonly Part[]

  constructor(parts: readonly WeightedPart[], options: WeightedOptions = {}) {
    if (!Array.isArray(parts) || parts.length === 0)
      fail('ERR_CONFIG', `parts: expected an array of at least one part, got ${show(parts)}`)
    checkOptions('options', options, ['name'])
    const { name = 'weighted' } = options
    checkName('options.name', name)
    this.name = name
    this.#parts = parts.map((part, i) => partOf(`parts[${i}]`, part))
    const names = this.#parts.map(({ reward }) => reward.name)
    for (const [i, own] of names.entries())
      if (names.indexOf(own) !== i)
        fail(
          'ERR_CONFIG',
          `parts[${i}]: a reward named ${show(own)} is there already; metrics and states go by names`,
        )
    this.differentiable = this.#parts.every(({ reward }) => reward.differentiable)
  }

  score(
    images: Tensor<FloatDType>,
    condition?: Condition,
    parts?: PartScores,
  ): Scores | Promise<Scores> {
    if (!this.differentiable) return this.#scoreLater(images, condition, parts)
    return tidy(() =>
      this.#combine(
        this.#parts.map(({ reward }) =>
          scoreDifferentiably(reward, images, condition, parts?.of(reward.name)),
        ),
        parts,
      ),
    )
  }

  async #scoreLater(
    images: Tensor<FloatDType>,
    condition?: Condition,
    parts?: PartScores,
  ): Promise<Scores> {
    const scores: Scores[] = []
    try {
      for (const { reward } of this.#parts)
        scores.push(await scoreNumbers(reward, images, condition, parts?.of(reward.name)))
      return tidy(() => this.#combine(scores, parts))
    } finally {
      for (const own of scores) own.dispose()
    }
  }

  #combine(scores: readonly Scores[], parts?: PartScores): Scores {
    const terms = this.#parts.map((part, i) => {
      const own = scores[i] as Scores
      parts?.add(part.reward.name, own)
      const normalised = normalise(own, part)
      const bounded =
        part.margin === Number.POSITIVE_INFINITY ? normalised : normalised.minimum(part.margin)
      return bounded.mul(part.weight)
    })
    return terms.reduce((sum, term) => sum.add(term))
  }

  /**
   * Adds the scores to the running statistics, also those of parts of parts.
   * @throws {DidrError} (as a rejection) ERR_NONFINITE for NaN and infinite scores, ERR_CONFIG where scores of a part are
   *   missing; nothing is changed then
   */
  async observe(parts: PartScores): Promise<void> {
    const seen = await parts.read()
    const updates = this.#parts.flatMap(({ reward: { name }, running }) => {
      if (running === undefined) return []
      const scores = seen.get(name)
      if (scores === undefined)
        return fail('ERR_CONFIG', `parts: expected scores of ${show(name)}, got none`)
      refuseNonFinite(name, scores)
      return [{ running, scores }]
    })
    for (const { reward } of this.#parts) await reward.observe?.(parts.of(reward.name))
    for (const { running, scores } of updates) running.add(scores)
  }

  state(): WeightedState {
    return {
      parts: this.#parts.map(({ reward, running }) => {
        const own = reward.state?.()
        return {
          name: reward.name,
          ...(running === undefined ? {} : { running: running.state() }),
          ...(own === undefined ? {} : { own }),
        }
      }),
    }
  }

  loadState(state: unknown): void {
    const stored = (state as WeightedState | undefined)?.parts
    if (!Array.isArray(stored) || stored.length !== this.#parts.length)
      fail(
        'ERR_CONFIG',
        `state: expected that of ${this.#parts.length} parts, got ${Array.isArray(stored) ? stored.length : show(stored)}`,
      )
    for (const [i, { reward, running }] of this.#parts.entries()) {
      const name = `state.parts[${i}]`
      if (stored[i]?.name !== reward.name)
        fail(
          'ERR_CONFIG',
          `${name}: expected that of ${show(reward.name)}, got ${show(stored[i]?.name)}`,
        )
      if ((running === undefined) !== (stored[i].running === undefined))
        fail(
          'ERR_CONFIG',
          `${name}.running: expected ${running === undefined ? 'none' : 'statistics'}`,
        )
      if (running !== undefined) checkRunningState(`${name}.running`, stored[i].running)
    }
    for (const [i, { reward, running }] of this.#parts.entries()) {
      const { running: statistics, own } = stored[i] as WeightedState['parts'][number]
      if (own !== undefined) reward.loadState?.(own)
      if (statistics !== undefined) running?.load(statistics)
    }
  }
}

/**
 * A sum of rewards, Σ w · min((r - mean)/std, margin), each on a scale of its own. Differentiable if all parts are.
 *
 * The running statistics change in `observe` alone, so the scores of a batch do not depend on what is scored beside it.
 * The names of the parts are distinct.
 *
 * @throws {DidrError} ERR_CONFIG, ERR_RANGE; when scoring, what the parts throw
 * @example
 * const reward = rewards.weighted([
 *   { reward: rewards.colourfulness(), normalize: 'running', margin: 2 },
 *   { reward: rewards.sharpness(), weight: 0.5, mean: 0.02, std: 0.01 },
 * ])
 */
export function weighted(
  parts: readonly WeightedPart[],
  options: WeightedOptions = {},
): WeightedReward {
  return new WeightedReward(parts, options)
}

function partOf(name: string, part: WeightedPart): Part {
  checkOptions(name, part, ['reward', 'weight', 'mean', 'std', 'normalize', 'margin'])
  const { reward, weight = 1, normalize, margin = Number.POSITIVE_INFINITY } = part
  checkReward(`${name}.reward`, reward)
  checkFinite(`${name}.weight`, weight)
  checkNumber(`${name}.margin`, margin)
  if (Number.isNaN(margin) || margin === Number.NEGATIVE_INFINITY)
    fail('ERR_RANGE', `${name}.margin: expected a number, or infinity for none, got ${margin}`)
  if (normalize !== undefined) {
    checkOneOf(`${name}.normalize`, normalize, ['running'])
    if (part.mean !== undefined || part.std !== undefined)
      fail('ERR_CONFIG', `${name}.normalize: expected it alone, or mean and std, got both`)
  }
  const { mean = 0, std = 1 } = part
  checkFinite(`${name}.mean`, mean)
  checkFinite(`${name}.std`, std)
  if (std <= 0) fail('ERR_RANGE', `${name}.std: expected a number above 0, got ${std}`)
  const running = normalize === undefined ? undefined : new RunningStatistics()
  return { reward, weight, mean, std, margin, running }
}

function normalise(scores: Scores, { mean, std, running }: Part): Scores {
  if (running === undefined) return scores.sub(mean).div(std)
  if (running.count === 0) return normaliseByOwn(scores)
  const isSpread = running.std > Math.max(leastShare * Math.abs(running.mean), leastStd)
  return scores.sub(running.mean).div(isSpread ? running.std : 1)
}

/** By the mean and standard deviation of the batch, as constants. */
function normaliseByOwn(scores: Scores): Scores {
  const constant = stopGradient(scores)
  const mean = constant.mean()
  const std = constant.sub(mean).square().mean().sqrt()
  const least = mean.abs().mul(leastShare).maximum(leastStd)
  const one = ones([], { device: scores.device })
  const divisor = where(std.greater(least), std, one)
  return scores.sub(mean).div(divisor) as Scores
}
