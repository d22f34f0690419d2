/** What went wrong, in a word that programs can switch on. The codes are stable; the messages may get better. */
export type ErrorCode =
  /** Shapes that do not fit together, or an element count that does not match. */
  | 'ERR_SHAPE'
  /** A dtype that the operation does not take. */
  | 'ERR_DTYPE'
  /** Tensors of different devices, or an unknown device. */
  | 'ERR_DEVICE'
  /** A tensor that has been disposed. */
  | 'ERR_DISPOSED'
  /** A number outside its range. */
  | 'ERR_RANGE'
  /** An argument or option of the wrong kind, missing, or unknown. */
  | 'ERR_CONFIG'
  /** NaN or infinity where a finite number is needed. */
  | 'ERR_NONFINITE'
  /** A file whose contents are not what they should be. */
  | 'ERR_FORMAT'
  /** A file that could not be read or written. */
  | 'ERR_IO'
  /** The native addon or a device's driver is missing or broken. */
  | 'ERR_BACKEND'
  /** More memory than there is. */
  | 'ERR_OUT_OF_MEMORY'

/**
 * Every error that the package throws or rejects with.
 *
 * @example
 * try { await x.data() } catch (e) { if (e instanceof DidrError && e.code === 'ERR_NONFINITE') ... }
 */
export class DidrError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }

  override get name(): string {
    return `DidrError [${this.code}]`
  }
}

export function fail(code: ErrorCode, message: string, options?: ErrorOptions): never {
  throw new DidrError(code, message, options)
}

/** A short rendering of any value for an error message; arrays deeper than `depth` are left out. */
export function show(value: unknown, depth = 4): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'function') return value.name ? `the function ${value.name}` : 'a function'
  if (typeof value === 'bigint') return `${value}n`
  if (Array.isArray(value)) {
    if (depth === 0) return '[...]'
    const items = Array.from(value.slice(0, 8), (item) => show(item, depth - 1)).join(', ')
    return `[${items}${value.length > 8 ? ', ...' : ''}]`
  }
  if (typeof value === 'object' && value !== null) {
    const name = Object.getPrototypeOf(value)?.constructor?.name
    return name && name !== 'Object' ? `a ${name}` : 'an object'
  }
  return String(value)
}

/** The first few of a list and how many more there are. */
export function listed(items: readonly string[]): string {
  const shown = items.slice(0, 12).join(', ')
  return items.length > 12 ? `${shown} and ${items.length - 12} more` : shown
}
