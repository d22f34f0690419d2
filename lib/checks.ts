/** Checks of arguments, all with one form of message: `name: expected this, got that`. */
import { fail, show } from './errors.js'

export function checkNumber(name: string, value: unknown): asserts value is number {
  if (typeof value !== 'number')
    fail('ERR_CONFIG', `${name}: expected a number, got ${show(value)}`)
}

export function checkFinite(name: string, value: unknown): asserts value is number {
  checkNumber(name, value)
  if (!Number.isFinite(value)) fail('ERR_RANGE', `${name}: expected a finite number, got ${value}`)
}

export function checkInteger(
  name: string,
  value: unknown,
  least: number,
  most: number = Number.MAX_SAFE_INTEGER,
): asserts value is number {
  checkNumber(name, value)
  if (!Number.isInteger(value) || value < least || value > most) {
    const upTo = most === Number.MAX_SAFE_INTEGER ? `from ${least} on` : `from ${least} to ${most}`
    fail('ERR_RANGE', `${name}: expected an integer ${upTo}, got ${value}`)
  }
}

export function checkBoolean(name: string, value: unknown): asserts value is boolean {
  if (typeof value !== 'boolean')
    fail('ERR_CONFIG', `${name}: expected a boolean, got ${show(value)}`)
}

export function checkOneOf<const T extends string>(
  name: string,
  value: unknown,
  choices: readonly T[],
): asserts value is T {
  if (!choices.includes(value as T))
    fail('ERR_CONFIG', `${name}: expected one of ${choices.join(', ')}; got ${show(value)}`)
}

/** Refuses anything that is not a plain object whose fields are all in `known`: a misspelt option must not be ignored. */
export function checkOptions(name: string, value: unknown, known: readonly string[]): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    fail('ERR_CONFIG', `${name}: expected an object, got ${show(value)}`)
  for (const field of Object.keys(value))
    if (!known.includes(field))
      fail('ERR_CONFIG', `${name}.${field}: unknown option; known are ${known.join(', ')}`)
}
