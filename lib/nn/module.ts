import { Parameter } from '../autograd/parameter.js'
import { fail, listed, show } from '../errors.js'
import { type Shape, sameShape, showShape } from '../tensor/shape.js'
import { idOf, Tensor } from '../tensor/tensor.js'

/**
 * A part of a network: parameters and smaller modules, named by the fields that hold them.
 *
 * Public fields that are a Parameter, a Module, or an array or plain object of these are its children; the path of a
 * parameter joins field names and indices with dots: `layers.0.attention.to_q.weight`. So fields carry the names of the
 * published weights. Private (#) fields are not looked at: keep shared modules and caches there.
 *
 * @example
 * class Block extends Module {
 *   norm: RmsNorm
 *   to_out: [Linear]
 *   constructor(init: Initializer) {
 *     super()
 *     this.norm = new RmsNorm(init, 64)
 *     this.to_out = [new Linear(init, 64, 64)]
 *   }
 *   forward(x: Tensor) { return this.to_out[0].forward(this.norm.forward(x)) }
 * }
 */
export abstract class Module {
  /** Every parameter with its path, in the order of the fields; one that is held twice comes once. */
  namedParameters(): Map<string, Parameter> {
    const found = new Map<string, Parameter>()
    collect(this, '', found, new Set())
    return found
  }

  /** Every parameter. Their names become their paths in this module where those are longer than what they had. */
  parameters(): Parameter[] {
    const named = this.namedParameters()
    for (const [path, parameter] of named) parameter.nameByPath(path)
    return [...named.values()]
  }

  /** The parameters' values by path: the tensors themselves, not copies. */
  state(): Record<string, Tensor> {
    return Object.fromEntries(
      Array.from(this.namedParameters(), ([path, { value }]) => [path, value as Tensor]),
    )
  }

  /**
   * Copies values into the parameters, converted to their dtypes.
   * @param tensors by path: exactly the parameters' paths and shapes
   * @throws {DidrError} ERR_CONFIG or ERR_SHAPE naming every missing, unknown or ill-shaped tensor; nothing is changed.
   */
  loadState(tensors: Readonly<Record<string, Tensor>>): void {
    if (typeof tensors !== 'object' || tensors === null)
      fail('ERR_CONFIG', `tensors: expected tensors by name, got ${show(tensors)}`)
    const named = this.namedParameters()
    const names = wrongNames(named, Object.keys(tensors))
    if (names !== undefined) fail('ERR_CONFIG', `tensors: ${names}`)
    for (const [path, given] of Object.entries(tensors)) idOf(`tensors['${path}']`, given)
    const shapes = wrongShapes(named, (path) => (tensors[path] as Tensor).shape)
    if (shapes !== undefined) fail('ERR_SHAPE', `tensors: ${shapes}`)
    for (const [path, { value }] of named) {
      const given = tensors[path] as Tensor
      if (given.dtype === value.dtype) value.copyFrom(given as typeof value)
      else {
        using converted = given.cast(value.dtype)
        value.copyFrom(converted as typeof value)
      }
    }
  }

  /** Sets whether gradients are computed for the parameters. Returns this. */
  setTrainable(trainable: boolean): this {
    for (const parameter of this.namedParameters().values()) parameter.trainable = trainable
    return this
  }

  /** Forgets the parameters' gradients and releases their memory. */
  zeroGrad(): void {
    for (const parameter of this.namedParameters().values()) parameter.zeroGrad()
  }

  /** Releases the parameters, values and gradients. A module that holds more than its children overrides it. */
  dispose(): void {
    for (const [, child] of childrenOf(this)) child.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** The nearest modules and parameters in the fields of a value, through arrays and plain objects, by their path. */
function* childrenOf(value: object, path = ''): Generator<[string, Module | Parameter]> {
  for (const [field, child] of Object.entries(value)) {
    if (typeof child !== 'object' || child === null || child instanceof Tensor) continue
    const own = path === '' ? field : `${path}.${field}`
    if (child instanceof Module || child instanceof Parameter) yield [own, child]
    else if (Array.isArray(child) || Object.getPrototypeOf(child) === Object.prototype)
      yield* childrenOf(child, own)
  }
}

function collect(
  module: Module,
  path: string,
  found: Map<string, Parameter>,
  seen: Set<object>,
): void {
  for (const [own, child] of childrenOf(module, path)) {
    if (seen.has(child)) continue
    seen.add(child)
    if (child instanceof Parameter) found.set(own, child)
    else collect(child, own, found, seen)
  }
}

/** Says which of a module's parameters are not among the names, and which names are no parameter's. @internal */
export function wrongNames(
  parameters: ReadonlyMap<string, Parameter>,
  given: readonly string[],
): string | undefined {
  const known = new Set(given)
  const missing = [...parameters.keys()].filter((path) => !known.has(path))
  const unknown = given.filter((path) => !parameters.has(path))
  const parts = [
    ...(missing.length > 0 ? [`missing ${listed(missing)}`] : []),
    ...(unknown.length > 0 ? [`unknown ${listed(unknown)}`] : []),
  ]
  return parts.length > 0 ? parts.join('; ') : undefined
}

/** Says which shapes are not those of a module's parameters. @internal */
export function wrongShapes(
  parameters: ReadonlyMap<string, Parameter>,
  shapeOf: (path: string) => Shape,
): string | undefined {
  const wrong: string[] = []
  for (const [path, { shape }] of parameters) {
    const given = shapeOf(path)
    if (!sameShape(given, shape)) wrong.push(`${path} ${showShape(shape)}, got ${showShape(given)}`)
  }
  return wrong.length > 0 ? `expected ${listed(wrong)}` : undefined
}
