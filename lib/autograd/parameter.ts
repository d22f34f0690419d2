import { checkBoolean } from '../checks.js'
import { fail, show } from '../errors.js'
import { binding } from '../native/binding.js'
import type { FloatDType } from '../tensor/dtype.js'
import { keep } from '../tensor/scope.js'
import type { Shape } from '../tensor/shape.js'
import {
  checkFloat,
  checkSameDevice,
  checkSameDType,
  checkTensorShape,
  idOf,
  Tensor,
} from '../tensor/tensor.js'

// From the tensor to the parameter that holds it, so that the tape knows a parameter when it meets one.
const parameters = new WeakMap<Tensor, Parameter>()

/** Whether parameters are constants: inside {@link frozen}. */
let allFrozen = false

/**
 * Runs `fn` with every parameter a constant: a `vjp` inside tracks its inputs alone, and computes no gradients that nobody
 * wants. Call the pullback inside as well.
 *
 * @param fn a synchronous function
 * @example
 * const [dx] = frozen(() => {
 *   const { pullback } = vjp((x) => network.forward(x), [x])
 *   return pullback(cotangent)
 * })
 */
export function frozen<T>(fn: () => T): T {
  if (typeof fn !== 'function') fail('ERR_CONFIG', `fn: expected a function, got ${show(fn)}`)
  const before = allFrozen
  allFrozen = true
  try {
    return fn()
  } finally {
    allFrozen = before
  }
}

/** The trainable parameter whose value `x` is, if any. @internal */
export function trainableParameterOf(x: Tensor): Parameter | undefined {
  if (allFrozen) return undefined
  const parameter = parameters.get(x)
  return parameter?.trainable ? parameter : undefined
}

/** A new handle on the memory of `x`, outside every `tidy` and unknown to every tape. @internal */
export function handleOn<T extends Tensor>(x: T): T {
  return keep(new Tensor(binding.view(idOf('tensor', x), x.shape), x.shape, x.dtype, x.device)) as T
}

/** How a {@link Parameter} starts. */
export interface ParameterOptions {
  /** Whether gradients are computed for it. Default true. */
  trainable?: boolean
}

/**
 * A tensor that is trained: `pullback`s of {@link vjp} add to its `grad`, optimisers change its `value` in place.
 *
 * The parameter owns its value and gradient: no `tidy` disposes them; `dispose()` does.
 *
 * @example
 * const scale = new Parameter('scale', ones([4]))
 * const { value, gradients } = valueAndGrad(() => x.mul(scale.value).square().mean())
 * await scale.grad?.data()
 */
export class Parameter<D extends FloatDType = FloatDType, S extends Shape = Shape> {
  #name: string
  #value: Tensor<D, S>
  #grad: Tensor<D, S> | undefined
  #trainable: boolean

  /** @param value float32 or bfloat16; owned by the parameter from here on */
  constructor(name: string, value: Tensor<D, S>, options: ParameterOptions = {}) {
    if (typeof name !== 'string') fail('ERR_CONFIG', `name: expected a string, got ${show(name)}`)
    idOf('value', value as Tensor)
    checkFloat('value', value as Tensor)
    const { trainable = true } = options
    checkBoolean('options.trainable', trainable)
    this.#name = name
    this.#value = keep(value as Tensor) as Tensor<D, S>
    this.#trainable = trainable
    parameters.set(value as Tensor, this as Parameter)
  }

  /** Where it is: `layers.0.attention.to_q.weight`. A module gives its parameters their paths. */
  get name(): string {
    return this.#name
  }

  /** Names the parameter by its path in a module, unless a longer path is known. @internal */
  nameByPath(path: string): void {
    if (path.length > this.#name.length) this.#name = path
  }

  /** The elements. Change them with `value.copyFrom`, or set another tensor of the same shape, dtype and device. */
  get value(): Tensor<D, S> {
    return this.#value
  }
  set value(value: Tensor<D, S>) {
    if (value === this.#value) return
    idOf('value', value as Tensor)
    checkTensorShape('value', value as Tensor, this.shape)
    checkSameDType('value', value as Tensor, this.#value as Tensor)
    checkSameDevice('value', value as Tensor, this.#value as Tensor)
    parameters.delete(this.#value as Tensor)
    this.#value = keep(value as Tensor) as Tensor<D, S>
    parameters.set(value as Tensor, this as Parameter)
  }

  /** The sum of the gradients since it was last cleared; undefined when there are none. */
  get grad(): Tensor<D, S> | undefined {
    return this.#grad
  }
  set grad(grad: Tensor<D, S> | undefined) {
    if (grad !== undefined) {
      idOf('grad', grad as Tensor)
      checkTensorShape('grad', grad as Tensor, this.shape)
      keep(grad as Tensor)
    }
    this.#grad = grad
  }

  get shape(): S {
    return this.#value.shape
  }

  get trainable(): boolean {
    return this.#trainable
  }
  set trainable(trainable: boolean) {
    checkBoolean('trainable', trainable)
    this.#trainable = trainable
  }

  /** Adds a gradient of the value's shape; takes the handle over. @internal */
  addGradient(gradient: Tensor): void {
    if (this.#grad === undefined || this.#grad.disposed) {
      const owned = binding.isShared(idOf('gradient', gradient)) ? gradient.clone() : gradient
      if (owned !== gradient) gradient.dispose()
      this.grad = owned as Tensor<D, S>
    } else {
      binding.accumulate(idOf('grad', this.#grad as Tensor), idOf('gradient', gradient))
      gradient.dispose()
    }
  }

  /** Forgets the gradient and releases its memory. */
  zeroGrad(): void {
    this.#grad?.dispose()
    this.#grad = undefined
  }

  /** Releases value and gradient. */
  dispose(): void {
    this.zeroGrad()
    this.#value.dispose()
  }

  toString(): string {
    return `Parameter(${this.name}, ${this.#value})`
  }
}
