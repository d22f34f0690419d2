import { fail } from '../errors.js'
import { Tensor } from './tensor.js'

/** The tensors made since the innermost `tidy` began; undefined outside. */
let scope: Set<Tensor> | undefined

/** Called for every new tensor. @internal */
export function enterScope(tensor: Tensor): void {
  scope?.add(tensor)
}

/** Lets a tensor outlive the `tidy` it is made in; returns it. */
export function keep<T extends Tensor>(tensor: T): T {
  scope?.delete(tensor)
  return tensor
}

function* tensorsIn(value: unknown): Generator<Tensor> {
  if (value instanceof Tensor) yield value
  else if (Array.isArray(value)) for (const item of value) yield* tensorsIn(item)
  else if (value instanceof Map) for (const item of value.values()) yield* tensorsIn(item)
  else if (typeof value === 'object' && value !== null) {
    const prototype = Object.getPrototypeOf(value)
    if (prototype === Object.prototype || prototype === null)
      for (const item of Object.values(value)) yield* tensorsIn(item)
  }
}

/**
 * Runs `fn` and disposes every tensor made inside, except those it returns (in arrays, maps and plain objects, too)
 * and those given to {@link keep}. Nested calls hand what they return to the outer one.
 *
 * @param fn a synchronous function; for asynchronous code use `using` or `dispose()`.
 * @throws {DidrError} ERR_CONFIG if `fn` returns a promise. If `fn` throws, everything made inside is disposed.
 * @example
 * const loss = tidy(() => x.sub(y).square().mean())
 */
export function tidy<T>(fn: () => T): T {
  const outer = scope
  const inner = new Set<Tensor>()
  scope = inner
  try {
    const result = fn()
    if (result instanceof Promise)
      fail('ERR_CONFIG', 'fn: expected a synchronous function, got one that returns a promise')
    for (const tensor of tensorsIn(result)) if (inner.delete(tensor)) outer?.add(tensor)
    return result
  } finally {
    scope = outer
    for (const tensor of inner) tensor.dispose()
  }
}
