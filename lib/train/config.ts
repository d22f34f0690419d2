/** Configurations: plain JSON over a complete set of defaults. */
import { readFile } from 'node:fs/promises'
import { fail, show } from '../errors.js'

/** A configuration of which any part may be left out. */
export type Partly<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { [K in keyof T]?: Partly<T[K]> }
    : T

/**
 * The defaults with what is given in their place. Every field that is given must exist in the defaults and be of the
 * default's kind: a number, text, a boolean, an array of such, or an object of fields in turn.
 *
 * @throws {DidrError} ERR_CONFIG naming the field by its path: `config.optimizer.lr: expected a number, got "1e-3"`
 */
export function resolveConfig<T extends object>(
  defaults: T,
  given: unknown = {},
  path = 'config',
): T {
  if (!isObject(given)) fail('ERR_CONFIG', `${path}: expected an object, got ${show(given)}`)
  for (const field of Object.keys(given))
    if (!Object.hasOwn(defaults, field))
      fail(
        'ERR_CONFIG',
        `${path}.${field}: unknown field; known are ${Object.keys(defaults).join(', ')}`,
      )
  return Object.fromEntries(
    Object.entries(defaults).map(([field, value]) => [
      field,
      Object.hasOwn(given, field)
        ? resolved(value, (given as Record<string, unknown>)[field], `${path}.${field}`)
        : structuredClone(value),
    ]),
  ) as T
}

function resolved(model: unknown, given: unknown, path: string): unknown {
  if (isObject(model)) return resolveConfig(model, given, path)
  if (Array.isArray(model)) {
    if (!Array.isArray(given))
      return fail('ERR_CONFIG', `${path}: expected an array, got ${show(given)}`)
    // A list that is empty by default says nothing of its items: they are text.
    return given.map((item, i) => resolved(model[0] ?? '', item, `${path}[${i}]`))
  }
  if (typeof given !== typeof model)
    fail('ERR_CONFIG', `${path}: expected a ${typeof model}, got ${show(given)}`)
  if (typeof given === 'number' && !Number.isFinite(given))
    fail('ERR_CONFIG', `${path}: expected a finite number, got ${given}`)
  return given
}

/** A configuration from a JSON file. @throws {DidrError} (as a rejection) ERR_IO, ERR_FORMAT naming the file */
export async function readConfig(file: string): Promise<object> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    return fail('ERR_IO', `${file}: could not be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
  try {
    const config: unknown = JSON.parse(text)
    if (isObject(config)) return config
  } catch (error) {
    fail('ERR_FORMAT', `${file}: not JSON: ${(error as Error).message}`, { cause: error })
  }
  return fail('ERR_FORMAT', `${file}: expected a JSON object`)
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
