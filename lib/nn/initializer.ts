import { checkBoolean, checkInteger, checkOptions } from '../checks.js'
import { normal, ones, type PlaceOptions, uniform, zeros } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Shape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/** Where an {@link Initializer} puts parameters and what they start from. */
export interface InitializerOptions extends PlaceOptions<FloatDType> {
  /** Of all draws, an integer from 0 to 2^53 - 1. */
  seed: number
  /**
   * Whether there are draws: false gives zeros in their place, for parameters that are filled from a file next, where
   * drawing billions of numbers would be time for nothing. Default true.
   */
  draw?: boolean
}

/**
 * Where modules get their first parameters: dtype, device, and a seed whose draws are handed out one after another. The
 * same modules built in the same order from the same seed start with the same bits.
 */
export class Initializer {
  readonly #seed: number
  readonly #place: PlaceOptions<FloatDType>
  readonly #draw: boolean
  #draws = 0

  /** @example const init = new Initializer({ seed: 1, dtype: 'bfloat16' }) */
  constructor(options: InitializerOptions) {
    checkOptions('options', options, ['seed', 'dtype', 'device', 'draw'])
    const { seed, draw = true, ...place } = options
    checkInteger('options.seed', seed, 0)
    checkBoolean('options.draw', draw)
    this.#seed = seed
    this.#place = place
    this.#draw = draw
  }

  /** Uniform in [-bound, bound). */
  uniform(shape: Shape, bound: number): Tensor<FloatDType> {
    if (!this.#draw) return this.zeros(shape)
    return uniform(shape, { ...this.#place, ...this.#next(), low: -bound, high: bound })
  }

  /** Normal with mean 0. */
  normal(shape: Shape, std: number): Tensor<FloatDType> {
    if (!this.#draw) return this.zeros(shape)
    return normal(shape, { ...this.#place, ...this.#next(), std })
  }

  zeros(shape: Shape): Tensor<FloatDType> {
    return zeros(shape, this.#place)
  }

  ones(shape: Shape): Tensor<FloatDType> {
    return ones(shape, this.#place)
  }

  #next(): { seed: number; offset: number } {
    return { seed: this.#seed, offset: this.#draws++ }
  }
}
