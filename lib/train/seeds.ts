import { checkInteger } from '../checks.js'
import { fail } from '../errors.js'

/** Seeds of each run. */
const most = 64

/** A seed for each name, different for each seed and place in the list, for draws that are to be independent. */
export function seedsFrom<const N extends string>(
  seed: number,
  names: readonly N[],
): Record<N, number> {
  checkInteger('seed', seed, 0, 2 ** 47 - 1)
  if (names.length > most) fail('ERR_RANGE', `names: expected at most ${most}, got ${names.length}`)
  return Object.fromEntries(names.map((name, i) => [name, seed * most + i])) as Record<N, number>
}
