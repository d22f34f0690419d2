import { checkOneOf, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'

/** Which checkpoint of a run is its best one. */
export interface BestOptions {
  /** The name of a number among the metrics: `reward`, `rewardParts/aesthetic`. */
  metric: string
  mode: 'max' | 'min'
  /**
   * What the weight of a step is multiplied by with each later step in the metric's average, from 0 (the last step alone)
   * to below 1. Steps without the metric are left out. Default 0.9: about ten steps.
   */
  smoothing?: number
}

/** What a checkpoint keeps of it. */
export interface BestState {
  options: Required<BestOptions>
  /** The average so far, and the sum of the steps' weights in it. */
  mean: number
  weight: number
  best: { step: number; value: number } | null
}

/** Follows the average of a metric, and when it was best. */
export class BestTracker {
  readonly #options: Required<BestOptions>
  #mean = 0
  #weight = 0
  #best: BestState['best'] = null

  constructor(options: BestOptions) {
    checkOptions('options.best', options, ['metric', 'mode', 'smoothing'])
    const { metric, mode, smoothing = 0.9 } = options
    if (typeof metric !== 'string' || metric === '')
      fail('ERR_CONFIG', `options.best.metric: expected a metric's name, got ${show(metric)}`)
    checkOneOf('options.best.mode', mode, ['max', 'min'])
    if (!(typeof smoothing === 'number' && smoothing >= 0 && smoothing < 1))
      fail(
        'ERR_RANGE',
        `options.best.smoothing: expected a number from 0 to below 1, got ${show(smoothing)}`,
      )
    this.#options = { metric, mode, smoothing }
  }

  get best(): BestState['best'] {
    return this.#best
  }

  /** Takes a step's numbers in: Σ smoothing^(n - i) xᵢ / Σ smoothing^(n - i) over the n steps that have the metric. */
  update(numbers: Readonly<Record<string, number>>): void {
    const { metric, smoothing } = this.#options
    const value = Object.hasOwn(numbers, metric) ? numbers[metric] : undefined
    if (value === undefined) return
    this.#weight = smoothing * this.#weight + 1
    this.#mean += (value - this.#mean) / this.#weight
  }

  /** Whether the average is better now than it was at the steps compared before; `step` is the best one then. */
  compare(step: number): boolean {
    if (this.#weight === 0) return false
    const value = this.#mean
    const before = this.#best?.value
    const better =
      before === undefined || (this.#options.mode === 'max' ? value > before : value < before)
    if (better) this.#best = { step, value }
    return better
  }

  /** Whether no step has had the metric. */
  get empty(): boolean {
    return this.#weight === 0
  }

  state(): BestState {
    return {
      options: this.#options,
      mean: this.#mean,
      weight: this.#weight,
      best: this.#best,
    }
  }

  /** Goes on from a state, unless it is of other options: values of another metric or average do not compare. */
  load(state: BestState): void {
    if (JSON.stringify(state.options) !== JSON.stringify(this.#options)) return
    this.#mean = state.mean
    this.#weight = state.weight
    this.#best = state.best
  }
}
