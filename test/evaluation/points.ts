/** Sets of features, and what the tests compare with: plain loops over rows. Nothing here is shared with lib/. */
import type { evaluation } from '../../lib/index.js'

export type Rows = readonly (readonly number[])[]

export function featuresFrom(rows: Rows): evaluation.Features {
  const columns = rows[0]?.length ?? 0
  return { rows: rows.length, columns, values: Float64Array.from(rows.flat()) }
}

export function rowsOf({ rows, columns, values }: evaluation.Features): number[][] {
  return Array.from({ length: rows }, (_, i) => [
    ...values.subarray(i * columns, (i + 1) * columns),
  ])
}

/** Independent standard normal numbers by Box and Muller. */
export function gaussianRows(draw: () => number, rows: number, columns: number): number[][] {
  const one = () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw())
  return Array.from({ length: rows }, () => Array.from({ length: columns }, one))
}

export const distance = (a: readonly number[], b: readonly number[]) =>
  Math.sqrt(a.reduce((sum, x, k) => sum + (x - (b[k] as number)) ** 2, 0))
