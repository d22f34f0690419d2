import { checkInteger } from '../checks.js'
import { hostUniform } from '../didr/philox.js'

/**
 * Batches of indices: epoch after epoch each index once, in an order that depends on the seed and the epoch alone. A
 * batch may reach into the next epoch. There is nothing to save: batch n is the same whenever it is asked for.
 *
 * @example
 * const batches = new ShuffledBatches(1911, 32, { seed: 1 })
 * batches.at(step)   // 32 integers below 1911
 */
export class ShuffledBatches {
  readonly count: number
  readonly batchSize: number
  readonly #seed: number
  #epoch = -1
  #order: readonly number[] = []

  constructor(count: number, batchSize: number, { seed }: { seed: number }) {
    checkInteger('count', count, 1)
    checkInteger('batchSize', batchSize, 1)
    checkInteger('seed', seed, 0)
    this.count = count
    this.batchSize = batchSize
    this.#seed = seed
  }

  at(step: number): number[] {
    checkInteger('step', step, 0)
    return Array.from({ length: this.batchSize }, (_, i) => {
      const position = step * this.batchSize + i
      return this.#orderOf(Math.floor(position / this.count))[position % this.count] as number
    })
  }

  /** Fisher and Yates's shuffle. */
  #orderOf(epoch: number): readonly number[] {
    if (epoch === this.#epoch) return this.#order
    const chances = hostUniform(this.count, this.#seed, epoch)
    const order = Array.from({ length: this.count }, (_, i) => i)
    for (let i = this.count - 1; i > 0; i--) {
      const j = Math.floor((chances[i] as number) * (i + 1))
      const [a, b] = [order[i] as number, order[j] as number]
      order[i] = b
      order[j] = a
    }
    this.#epoch = epoch
    this.#order = order
    return order
  }
}
