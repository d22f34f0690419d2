import type { Parameter } from '../autograd/parameter.js'
import { checkFinite, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { binding } from '../native/binding.js'
import { cpuDevice, type Device } from '../tensor/device.js'
import { keep } from '../tensor/scope.js'
import { checkSameDevice, checkTensorShape, idOf, type Tensor } from '../tensor/tensor.js'
import { checkDistinct, checkParameters, type OptimState, restoreTensors } from './parameters.js'

/** Settings of {@link Ema}. */
export interface EmaOptions {
  /** How much of the averages each update keeps, from 0 to 1. Default 0.999. */
  decay?: number
}

/** What a checkpoint stores of the averages besides tensors. */
export interface EmaStateSettings {
  decay: number
  parameters: string[]
}

/**
 * Exponential moving averages of parameters, which usually generate better than the parameters themselves: average +=
 * (1 - decay) (value - average) at each update, starting from the values at hand. Averages are float32.
 *
 * @example
 * const ema = new optim.Ema(model.parameters(), { decay: 0.999 })
 * ema.update()                  // after each step of the optimiser
 * ema.swap()                    // the model now computes with the averages
 * ema.swap()                    // and with its own values again
 */
export class Ema {
  readonly parameters: readonly Parameter[]
  readonly decay: number
  readonly device: Device
  readonly #averages: readonly Tensor<'float32'>[]
  /** The parameters' own values while they are swapped out. */
  #own: readonly Tensor[] | undefined

  constructor(parameters: readonly Parameter[], options: EmaOptions = {}) {
    checkParameters('parameters', parameters)
    checkDistinct(parameters)
    checkOptions('options', options, ['decay'])
    const { decay = 0.999 } = options
    checkFinite('options.decay', decay)
    if (!(decay >= 0 && decay <= 1))
      fail('ERR_RANGE', `options.decay: expected a number from 0 to 1, got ${decay}`)
    this.parameters = [...parameters]
    this.decay = decay
    this.device = parameters[0]?.value.device ?? cpuDevice()
    this.#averages = parameters.map(({ value }) => keep(value.cast('float32') as Tensor<'float32'>))
  }

  /** Whether the parameters hold the averages. */
  get swapped(): boolean {
    return this.#own !== undefined
  }

  /** Enqueues one update. @throws {DidrError} ERR_CONFIG while {@link swapped} */
  update(): void {
    if (this.swapped)
      fail('ERR_CONFIG', 'update: the parameters hold the averages; swap() back first')
    binding.ema(
      this.device.id,
      this.#averages.map((average, i) => idOf(`averages[${i}]`, average as Tensor)),
      this.parameters.map(({ name, value }) => idOf(name, value as Tensor)),
      this.decay,
    )
  }

  /**
   * Gives the parameters the averages; called again, gives them back the values that they had. The averages stay.
   * Optimiser steps in between are lost.
   */
  swap(): void {
    if (this.#own === undefined) {
      this.#own = this.parameters.map(({ value }) => keep(value.clone() as Tensor))
      this.copyTo(this.parameters)
      return
    }
    for (const [i, { value }] of this.parameters.entries()) {
      const own = this.#own[i] as Tensor
      ;(value as Tensor).copyFrom(own)
      own.dispose()
    }
    this.#own = undefined
  }

  /** Writes the averages to other parameters, found by their names: those of a copy of the model. */
  copyTo(parameters: readonly Parameter[]): void {
    checkParameters('parameters', parameters)
    const averages = new Map(
      this.parameters.map(({ name }, i) => [name, this.#averages[i] as Tensor]),
    )
    const pairs = parameters.map(({ name, value }) => {
      const average = averages.get(name)
      if (average === undefined)
        return fail('ERR_CONFIG', `parameters: ${show(name)} is not averaged here`)
      checkTensorShape(name, value as Tensor, average.shape)
      checkSameDevice(name, value as Tensor, average)
      return [value as Tensor, average] as const
    })
    for (const [value, average] of pairs) {
      using rounded = average.cast(value.dtype)
      value.copyFrom(rounded)
    }
  }

  /** The averages by parameter name; the object's own, so store or copy them before the next update. */
  state(): OptimState<EmaStateSettings> {
    return {
      tensors: this.#tensors(),
      settings: { decay: this.decay, parameters: this.parameters.map(({ name }) => name) },
    }
  }

  /**
   * Restores a state of averages of the same parameters. The decay stays as it is here.
   * @throws {DidrError} ERR_CONFIG, ERR_SHAPE, ERR_DTYPE, ERR_DEVICE if it does not fit; nothing is changed then
   */
  load(state: OptimState<EmaStateSettings>): void {
    restoreTensors(this.#tensors(), state.tensors)
  }

  #tensors(): Record<string, Tensor> {
    return Object.fromEntries(
      this.parameters.map(({ name }, i) => [name, this.#averages[i] as Tensor]),
    )
  }

  /** Releases the averages; swaps back first if need be. */
  dispose(): void {
    if (this.swapped) this.swap()
    for (const average of this.#averages) average.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
