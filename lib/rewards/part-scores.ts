import { stopGradient } from '../autograd/vjp.js'
import { keep } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'

/**
 * What the parts of a reward said, each part's own scores before weights and normalisation. Parts of parts have names
 * like `outer/inner`. Scores of several batches are joined end to end.
 *
 * Holds tensors: release it with `dispose()` or `using`.
 *
 * @example
 * using parts = new rewards.PartScores()
 * using total = await rewards.scoreNumbers(reward, images, condition, parts)
 * await parts.means() // { colourfulness: 0.21, sharpness: 0.04 }
 * await reward.observe?.(parts)
 */
export class PartScores {
  readonly #batches = new Map<string, Tensor<'float32'>[]>()
  readonly #inner = new Map<string, PartScores>()

  /** Notes the scores [B] of one part. The tensor stays the caller's; no gradient flows through what is noted. */
  add(part: string, scores: Tensor<'float32'>): void {
    const constant = keep(stopGradient(scores))
    const batches = this.#batches.get(part)
    if (batches === undefined) this.#batches.set(part, [constant])
    else batches.push(constant)
  }

  /** Where the parts of a part note theirs. */
  of(part: string): PartScores {
    let inner = this.#inner.get(part)
    if (inner === undefined) {
      inner = new PartScores()
      this.#inner.set(part, inner)
    }
    return inner
  }

  /** The scores by part, when they have been computed. */
  async read(): Promise<Map<string, Float32Array>> {
    const scores = new Map<string, Float32Array>()
    for (const [part, batches] of this.#batches) {
      const read = await Promise.all(batches.map((batch) => batch.data()))
      scores.set(part, Float32Array.from(read.flatMap((values) => [...values])))
    }
    for (const [part, inner] of this.#inner)
      for (const [name, values] of await inner.read()) scores.set(`${part}/${name}`, values)
    return scores
  }

  /** The mean score of each part, for metrics; NaN for a part that scored no samples. */
  async means(): Promise<Record<string, number>> {
    return Object.fromEntries(
      Array.from(await this.read(), ([part, scores]) => [
        part,
        scores.reduce((sum, score) => sum + score, 0) / scores.length,
      ]),
    )
  }

  /** Releases the scores and forgets them. */
  dispose(): void {
    for (const batches of this.#batches.values()) for (const batch of batches) batch.dispose()
    this.#batches.clear()
    for (const inner of this.#inner.values()) inner.dispose()
    this.#inner.clear()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
