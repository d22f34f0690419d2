import type { Device } from '../tensor/device.js'
import type { Tensor } from '../tensor/tensor.js'
import { KlAccumulator, type KlEstimate } from './kl-accumulator.js'

/**
 * The KL over the last steps, for a generator that changes: two accumulators, of which one fills while the other still
 * counts. The estimate looks back on at least `steps` steps, once there were as many, and on fewer than twice as many.
 */
export class KlWindow {
  readonly steps: number
  /** Steps in the current accumulator. */
  filled = 0
  readonly #current: KlAccumulator
  readonly #previous: KlAccumulator

  constructor(steps: number, logSnrRange: readonly [number, number], device: Device) {
    this.steps = steps
    this.#current = new KlAccumulator({ logSnrRange, device })
    this.#previous = new KlAccumulator({ logSnrRange, device })
  }

  /** Where this step's samples go. Call it once a step. */
  next(): KlAccumulator {
    // A saved window may have been longer than this one.
    if (this.filled >= this.steps) {
      this.#previous.sums.copyFrom(this.#current.sums)
      this.#current.reset()
      this.filled = 0
    }
    this.filled++
    return this.#current
  }

  /** Forgets everything. */
  reset(): void {
    this.#current.reset()
    this.#previous.reset()
    this.filled = 0
  }

  read(): Promise<KlEstimate> {
    return this.#current.read(this.#previous)
  }

  /** The sums of both, for checkpoints. */
  tensors(): Record<'current' | 'previous', Tensor> {
    return { current: this.#current.sums, previous: this.#previous.sums }
  }

  dispose(): void {
    this.#current.dispose()
    this.#previous.dispose()
  }
}
