import { checkInteger, checkOptions } from '../checks.js'
import { checkFeatures, checkSameColumns, type Features, squaredDistance } from './features.js'

/** Settings of {@link precisionRecall}. */
export interface PrecisionRecallOptions {
  /** The radius about a point is the distance to its neighbour of this number. Default 3, as published. */
  neighbours?: number
}

/** Both shares, from 0 to 1; see {@link precisionRecall}. */
export interface PrecisionRecall {
  /** The share of generated images inside the reference's manifold: how many could be real. */
  precision: number
  /** The share of reference images inside the manifold of the generated ones: how much of the reference is covered. */
  recall: number
}

/**
 * Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991). The manifold of a set is the union of the
 * balls about its points that reach to their k-th nearest neighbours in the set, not counting the point itself; a copy of
 * it counts, at distance 0. Both shares grow with k and depend on the numbers of images: compare sets of one size.
 *
 * In float64, in a time of O((M² + N² + MN) · columns), and in memory of O((M + N) · k): no matrix of distances is held.
 *
 * @param generated features, more than k rows
 * @param reference features by the same network, more than k rows
 * @throws {DidrError} ERR_RANGE for too few rows, ERR_SHAPE for different columns, ERR_CONFIG, ERR_NONFINITE
 */
export function precisionRecall(
  generated: Features,
  reference: Features,
  options: PrecisionRecallOptions = {},
): PrecisionRecall {
  checkOptions('options', options, ['neighbours'])
  const { neighbours = 3 } = options
  checkInteger('options.neighbours', neighbours, 1)
  checkFeatures('generated', generated, neighbours + 1)
  checkFeatures('reference', reference, neighbours + 1)
  checkSameColumns('generated', generated, reference)
  const aboutGenerated = squaredRadii(generated, neighbours)
  const aboutReference = squaredRadii(reference, neighbours)
  const covered = new Uint8Array(reference.rows)
  let precise = 0
  for (let i = 0; i < generated.rows; i++) {
    const reach = aboutGenerated[i] as number
    let inside = false
    for (let j = 0; j < reference.rows; j++) {
      if (inside && covered[j] === 1) continue
      const distance = squaredDistance(generated, i, reference, j)
      if (distance <= (aboutReference[j] as number)) inside = true
      if (distance <= reach) covered[j] = 1
    }
    if (inside) precise++
  }
  const recalled = covered.reduce((sum, one) => sum + one, 0)
  return { precision: precise / generated.rows, recall: recalled / reference.rows }
}

/** The squared distance of each row to its k-th nearest other row. */
function squaredRadii(features: Features, k: number): Float64Array {
  const { rows } = features
  // The k smallest squared distances of each row so far, ascending.
  const nearest = new Float64Array(rows * k).fill(Number.POSITIVE_INFINITY)
  const insert = (row: number, distance: number) => {
    const first = row * k
    let place = first + k - 1
    if (distance >= (nearest[place] as number)) return
    for (; place > first && distance < (nearest[place - 1] as number); place--)
      nearest[place] = nearest[place - 1] as number
    nearest[place] = distance
  }
  for (let i = 0; i < rows; i++)
    for (let j = i + 1; j < rows; j++) {
      const distance = squaredDistance(features, i, features, j)
      insert(i, distance)
      insert(j, distance)
    }
  return Float64Array.from({ length: rows }, (_, i) => nearest[(i + 1) * k - 1] as number)
}
