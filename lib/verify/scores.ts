/** How far the estimators of the diffused reward score are from the exact one, noise level by noise level. */
import { checkFinite, checkInteger, checkOptions } from '../checks.js'
import { type DrsOptions, resolveDrs } from '../didr/drs-config.js'
import { estimateScore } from '../didr/estimators.js'
import { perturb } from '../didr/perturb.js'
import { RandomStream } from '../didr/philox.js'
import { fail } from '../errors.js'
import { PartScores } from '../rewards/part-scores.js'
import { ringProblem } from './ring.js'
import { ringEstimators } from './verify.js'

/** Settings of {@link scoreErrors}. */
export interface ScoreErrorOptions {
  /** Default 1. */
  beta?: number
  /** Noise levels, each a time in (0, 1). Default 0.1, 0.3, 0.5, 0.7, 0.9, 0.97. */
  times?: readonly number[]
  /** Points x_t at each level, drawn from the diffused reference. Default 1024. */
  points?: number
  /** Estimates at each point, from which bias and variance are told apart. Default 16. */
  repeats?: number
  /** Default 0. */
  seed?: number
  /** Default: all that `verify` knows. */
  estimators?: Readonly<Record<string, DrsOptions>>
}

/** Errors relative to the exact score, √(E‖·‖² / E‖s_r‖²). */
export interface ScoreError {
  estimator: string
  t: number
  /** The root mean square of the exact score. */
  exact: number
  /** Of the mean over repeats, with what the variance adds to it taken off. */
  bias: number
  /** The standard deviation of a single estimate about its mean. */
  deviation: number
}

/**
 * Bias and spread of each estimator on the ring against the closed form.
 * @throws {DidrError} (as a rejection) ERR_CONFIG, ERR_RANGE with the path of the option
 */
export async function scoreErrors(options: ScoreErrorOptions = {}): Promise<ScoreError[]> {
  checkOptions('options', options, ['beta', 'times', 'points', 'repeats', 'seed', 'estimators'])
  const { beta = 1, times = [0.1, 0.3, 0.5, 0.7, 0.9, 0.97], points = 1024 } = options
  const { repeats = 16, seed = 0, estimators } = options
  checkFinite('options.beta', beta)
  checkInteger('options.points', points, 1)
  checkInteger('options.repeats', repeats, 2)
  checkInteger('options.seed', seed, 0)
  for (const [i, time] of times.entries())
    if (!(time > 0 && time < 1))
      fail('ERR_RANGE', `options.times[${i}]: expected a time between 0 and 1, got ${time}`)
  const { exact: _, ...others } = ringEstimators
  const compared: Record<string, DrsOptions> = { ...(estimators ?? others) }
  const { schedule, reference, reward } = ringProblem(beta)
  const random = new RandomStream(seed)
  const errors: ScoreError[] = []
  for (const time of times) {
    const t = new Float32Array(points).fill(time)
    using x0 = reference.sample({ count: points, ...random.nextPair() })
    using xt = perturb(x0, { t, schedule, ...random.next() }).xt
    using exactScore = reference.rewardScore(xt, t, reward.quadratic, beta)
    const exact = await exactScore.data()
    const power = exact.reduce((sum, value) => sum + value * value, 0)
    for (const [estimator, settings] of Object.entries(compared)) {
      const drs = resolveDrs(`options.estimators.${estimator}`, settings)
      const sums = new Float64Array(exact.length)
      const squares = new Float64Array(exact.length)
      for (let repeat = 0; repeat < repeats; repeat++) {
        using parts = new PartScores()
        const estimate = await estimateScore(xt, t, {
          drs,
          teacher: reference,
          reward,
          decode: (samples) => samples,
          schedule,
          beta,
          conditions: { condition: undefined, unconditional: undefined },
          withUnconditional: false,
          random,
          parts,
        })
        const values = await estimate.score.data()
        for (const tensor of Object.values(estimate)) tensor?.dispose()
        for (const [i, value] of values.entries()) {
          sums[i] = (sums[i] as number) + value
          squares[i] = (squares[i] as number) + value * value
        }
      }
      let [offset, spread] = [0, 0]
      for (const [i, sum] of sums.entries()) {
        const mean = sum / repeats
        offset += (mean - (exact[i] as number)) ** 2
        spread += Math.max((squares[i] as number) - repeats * mean * mean, 0) / (repeats - 1)
      }
      errors.push({
        estimator,
        t: time,
        exact: Math.sqrt(power / points),
        bias: Math.sqrt(Math.max(offset - spread / repeats, 0) / power),
        deviation: Math.sqrt(spread / power),
      })
    }
  }
  return errors
}
