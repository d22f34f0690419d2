import { keep } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'

/** Copies of tensors, from which they can be put back as they were. */
export class Snapshot {
  readonly #pairs: readonly (readonly [tensor: Tensor, copy: Tensor])[]

  constructor(tensors: Iterable<Tensor>) {
    this.#pairs = Array.from(tensors, (tensor) => [tensor, keep(tensor.clone() as Tensor)] as const)
  }

  restore(): void {
    for (const [tensor, copy] of this.#pairs) tensor.copyFrom(copy)
  }

  [Symbol.dispose](): void {
    for (const [, copy] of this.#pairs) copy.dispose()
  }
}
