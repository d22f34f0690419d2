import { fail, show } from '../errors.js'

/** What a checkpoint stores of running statistics. */
export interface RunningState {
  count: number
  mean: number
  /** The sum of squared distances from the mean. */
  squares: number
}

/**
 * Mean and standard deviation of all numbers seen so far, in float64, batch by batch (Chan, Golub and LeVeque, "Algorithms
 * for computing the sample variance", 1983).
 */
export class RunningStatistics {
  #count = 0
  #mean = 0
  #squares = 0

  get count(): number {
    return this.#count
  }

  get mean(): number {
    return this.#mean
  }

  /** Of the population: the root of the mean squared distance from the mean; 0 for no numbers. */
  get std(): number {
    return this.#count === 0 ? 0 : Math.sqrt(this.#squares / this.#count)
  }

  /** @param batch finite numbers */
  add(batch: Float32Array): void {
    if (batch.length === 0) return
    let sum = 0
    for (const value of batch) sum += value
    const mean = sum / batch.length
    let squares = 0
    for (const value of batch) squares += (value - mean) ** 2
    const count = this.#count + batch.length
    const apart = mean - this.#mean
    this.#squares += squares + apart * apart * (this.#count / count) * batch.length
    this.#mean += apart * (batch.length / count)
    this.#count = count
  }

  state(): RunningState {
    return { count: this.#count, mean: this.#mean, squares: this.#squares }
  }

  /** @param state checked by {@link checkRunningState} */
  load({ count, mean, squares }: RunningState): void {
    this.#count = count
    this.#mean = mean
    this.#squares = squares
  }
}

export function checkRunningState(name: string, state: unknown): asserts state is RunningState {
  const { count, mean, squares } = (state ?? {}) as Partial<RunningState>
  const good =
    Number.isSafeInteger(count) &&
    (count as number) >= 0 &&
    Number.isFinite(mean) &&
    Number.isFinite(squares) &&
    (squares as number) >= 0
  if (!good)
    fail(
      'ERR_CONFIG',
      `${name}: expected a count, a mean and a sum of squares, got ${show(count)}, ${show(mean)} and ${show(squares)}`,
    )
}
