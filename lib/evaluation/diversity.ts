import { fail } from '../errors.js'
import { checkFeatures, type Features, squaredDistance } from './features.js'

/** Means over all pairs of two different rows. */
export interface PairwiseDistances {
  /** Of ‖x - y‖. */
  euclidean: number
  /**
   * Of 1 - cos(x, y), from 0 to 2; computed as ½ ‖x/‖x‖ - y/‖y‖‖², where a row of zeros, which has no direction, stays as
   * it is.
   */
  cosine: number
}

/** How different images are from one another; see {@link diversity}. */
export interface Diversity {
  /** Over all images. */
  all: PairwiseDistances
  /**
   * Over images of the same prompt, from different noise; the mean over prompts that have two images or more, each
   * counting once. Absent if there is no such prompt.
   */
  withinPrompt?: PairwiseDistances
}

/**
 * How different images are, as distances of their features.
 *
 * @param features two rows or more
 * @param prompts what each row's image was made for
 * @throws {DidrError} ERR_RANGE for fewer than two rows, ERR_SHAPE for another number of prompts, ERR_CONFIG,
 *   ERR_NONFINITE
 */
export function diversity(features: Features, prompts?: readonly string[]): Diversity {
  checkFeatures('features', features, 2)
  const everyRow = Array.from({ length: features.rows }, (_, row) => row)
  const all = distancesAmong(features, everyRow)
  if (prompts === undefined) return { all }
  if (prompts.length !== features.rows)
    fail('ERR_SHAPE', `prompts: expected ${features.rows}, one per row, got ${prompts.length}`)
  const groups = new Map<string, number[]>()
  for (const row of everyRow) {
    const prompt = prompts[row] as string
    const group = groups.get(prompt)
    if (group === undefined) groups.set(prompt, [row])
    else group.push(row)
  }
  const several = [...groups.values()].filter((group) => group.length > 1)
  if (several.length === 0) return { all }
  const withinPrompt = { euclidean: 0, cosine: 0 }
  for (const group of several) {
    const { euclidean, cosine } = distancesAmong(features, group)
    withinPrompt.euclidean += euclidean / several.length
    withinPrompt.cosine += cosine / several.length
  }
  return { all, withinPrompt }
}

/** @param rows two or more */
function distancesAmong(features: Features, rows: readonly number[]): PairwiseDistances {
  let sum = 0
  for (const [n, i] of rows.entries())
    for (let m = n + 1; m < rows.length; m++)
      sum += Math.sqrt(squaredDistance(features, i, features, rows[m] as number))
  const pairs = (rows.length * (rows.length - 1)) / 2
  return { euclidean: sum / pairs, cosine: spreadOfDirections(features, rows) }
}

/**
 * The mean of ½ ‖u - v‖² over pairs is the variance Σ ‖u - ū‖² / (n - 1), without a loop over pairs, and without the
 * cancellation of 1 - cos for rows of nearly one direction.
 */
function spreadOfDirections({ columns, values }: Features, rows: readonly number[]): number {
  const directions = rows.map((row) => {
    const x = values.subarray(row * columns, (row + 1) * columns)
    const length = Math.hypot(...x)
    return length === 0 ? x : x.map((value) => value / length)
  })
  const mean = new Float64Array(columns)
  for (const direction of directions)
    for (const [k, value] of direction.entries())
      mean[k] = (mean[k] as number) + value / rows.length
  let sum = 0
  for (const direction of directions)
    for (const [k, value] of direction.entries()) sum += (value - (mean[k] as number)) ** 2
  return sum / (rows.length - 1)
}
