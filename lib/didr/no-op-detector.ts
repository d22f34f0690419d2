/**
 * Counts for how many steps a term has had a gradient of exactly zero. Losses that silently do nothing, because of a
 * detached tensor, a weight of zero or a clipped reward, are a known failure of reward training.
 */
export class NoOpDetector {
  readonly #after: number
  readonly #zeros = new Map<string, number>()

  /** @param after steps of zero after which a term is reported */
  constructor(after: number) {
    this.#after = after
  }

  /** Notes one step's norms. @returns the terms whose last `after` norms were all exactly zero */
  observe(norms: Readonly<Record<string, number | undefined>>): string[] {
    const reported: string[] = []
    for (const [term, norm] of Object.entries(norms)) {
      if (norm === undefined) continue
      const zeros = norm === 0 ? (this.#zeros.get(term) ?? 0) + 1 : 0
      this.#zeros.set(term, zeros)
      if (zeros >= this.#after) reported.push(term)
    }
    return reported
  }

  /** Plain JSON, for checkpoints. */
  state(): Record<string, number> {
    return Object.fromEntries(this.#zeros)
  }

  load(state: Readonly<Record<string, number>>): void {
    this.#zeros.clear()
    for (const [term, zeros] of Object.entries(state)) this.#zeros.set(term, zeros)
  }
}
