import { fail, show } from '../errors.js'
import { Tensor } from './tensor.js'

/** One running `tidy`. */
interface Scope {
  /** The tensors it will dispose. */
  readonly made: Set<Tensor>
  readonly outer: Scope | undefined
}

/** The innermost `tidy`; undefined outside. */
let scope: Scope | undefined

/** Called for every new tensor. @internal */
export function enterScope(tensor: Tensor): void {
  scope?.made.add(tensor)
}

/** Lets a tensor outlive every `tidy` that is running; returns it. */
export function keep<T extends Tensor>(tensor: T): T {
  if (!(tensor instanceof Tensor))
    fail('ERR_CONFIG', `tensor: expected a tensor, got ${show(tensor)}`)
  for (let around = scope; around !== undefined; around = around.outer) around.made.delete(tensor)
  return tensor
}

function* tensorsIn(value: unknown, seen = new Set<unknown>()): Generator<Tensor> {
  if (value instanceof Tensor) {
    yield value
    return
  }
  if (typeof value !== 'object' || value === null || seen.has(value)) return
  seen.add(value)
  let items: Iterable<unknown> = []
  if (Array.isArray(value)) items = value
  else if (value instanceof Map) items = value.values()
  else {
    const prototype = Object.getPrototypeOf(value)
    if (prototype === Object.prototype || prototype === null) items = Object.values(value)
  }
  for (const item of items) yield* tensorsIn(item, seen)
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
  if (typeof fn !== 'function') fail('ERR_CONFIG', `fn: expected a function, got ${show(fn)}`)
  const outer = scope
  const inner: Scope = { made: new Set(), outer }
  scope = inner
  try {
    const result = fn()
    if (result instanceof Promise)
      fail('ERR_CONFIG', 'fn: expected a synchronous function, got one that returns a promise')
    for (const tensor of tensorsIn(result)) if (inner.made.delete(tensor)) outer?.made.add(tensor)
    return result
  } finally {
    scope = outer
    for (const tensor of inner.made) tensor.dispose()
  }
}
