/** Distributions in the plane as histograms, which is how the generator's is compared with one of known density. */
import { noGrad } from '../autograd/vjp.js'
import type { GaussianMixture } from '../models/gaussian-mixture.js'
import { tensor } from '../tensor/create.js'
import { tidy } from '../tensor/scope.js'

/** A square of cells around the origin. */
export interface Grid {
  /** Along each axis. */
  cells: number
  /** From -extent to extent. */
  extent: number
}

/** The share of points [n, 2] in each cell, row by row from below; what is outside belongs to no cell. */
export function histogramOf(points: Float32Array, { cells, extent }: Grid): Float64Array {
  const shares = new Float64Array(cells * cells)
  const count = points.length / 2
  const cellOf = (value: number) => Math.floor(((value + extent) / (2 * extent)) * cells)
  for (let i = 0; i < count; i++) {
    const [column, row] = [cellOf(points[2 * i] as number), cellOf(points[2 * i + 1] as number)]
    if (column < 0 || row < 0 || column >= cells || row >= cells) continue
    shares[row * cells + column] = (shares[row * cells + column] as number) + 1 / count
  }
  return shares
}

/** Points per cell and axis at which a density is taken for its mean over the cell. */
const subdivision = 4

/** The probability of each cell under a mixture in the plane. */
export async function probabilitiesOf(mixture: GaussianMixture, grid: Grid): Promise<Float64Array> {
  const { cells, extent } = grid
  const side = cells * subdivision
  const at = (i: number) => extent * ((2 * (i + 0.5)) / side - 1)
  const points = Float32Array.from({ length: 2 * side * side }, (_, i) =>
    at(i % 2 === 0 ? (i >> 1) % side : Math.floor(i / 2 / side)),
  )
  using densities = noGrad(() =>
    tidy(() => mixture.logProb(tensor(points, { shape: [side * side, 2] })).exp()),
  )
  const values = await densities.data()
  const area = (2 * extent) ** 2 / (side * side)
  const probabilities = new Float64Array(cells * cells)
  for (const [i, density] of values.entries()) {
    const [column, row] = [i % side, Math.floor(i / side)]
    const cell = Math.floor(row / subdivision) * cells + Math.floor(column / subdivision)
    probabilities[cell] = (probabilities[cell] as number) + density * area
  }
  return probabilities
}

/** The least probability that a cell counts as having: a sample where the density is as good as 0 costs this much. */
const leastProbability = 1e-12

/**
 * KL(p‖q) = Σ p log(p/q) in nats, of shares to probabilities of the same cells.
 *
 * A histogram of n points of q itself does not give 0 but about (cells that q fills)/2n.
 */
export function histogramKl(shares: Float64Array, probabilities: Float64Array): number {
  let sum = 0
  for (const [i, share] of shares.entries())
    if (share > 0)
      sum += share * Math.log(share / Math.max(probabilities[i] as number, leastProbability))
  return sum
}

/** The share of points [n, 2] that are nearest to each of the centres. */
export function nearestShares(
  points: Float32Array,
  centres: readonly (readonly number[])[],
): number[] {
  const counts = centres.map(() => 0)
  for (let i = 0; i < points.length; i += 2) {
    let [nearest, least] = [0, Infinity]
    for (const [k, [x, y]] of (centres as readonly [number, number][]).entries()) {
      const distance = ((points[i] as number) - x) ** 2 + ((points[i + 1] as number) - y) ** 2
      if (distance < least) [nearest, least] = [k, distance]
    }
    counts[nearest] = (counts[nearest] as number) + 1
  }
  return counts.map((count) => (2 * count) / points.length)
}
