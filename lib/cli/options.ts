import { fail } from '../errors.js'

/** The value of an option that is a number; undefined where it is not given. */
export function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value))
    fail('ERR_CONFIG', `${option}: expected a number, got ${JSON.stringify(text)}`)
  return value
}
