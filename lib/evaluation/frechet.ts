import { checkFeatures, checkSameColumns, type Features } from './features.js'

/**
 * The Fréchet distance of two sets of features taken as Gaussians, ‖m₁ - m₂‖² + Tr(S₁ + S₂ - 2 (S₁ S₂)^½) with means m and
 * covariances S (over N - 1), in units of squared features (Heusel et al., "GANs trained by a two time-scale update rule
 * converge to a local Nash equilibrium", 2017, arXiv 1706.08500). On Inception's features it is known as FID; on others
 * its numbers are comparable only among themselves. Few images bias it upwards: compare sets of one size.
 *
 * In float64, and for any number of images from 2 on: with fewer than there are columns the covariances have no full
 * rank, and square roots of eigenvalues that should be 0 turn errors of 1e-16 into 1e-8. So no covariance is formed: with
 * S = RᵀR, from the QR decomposition of the centred features, the last trace is the sum of the singular values of
 * R₁R₂ᵀ, and its error stays at rounding relative to Tr S₁ + Tr S₂. The package's own few lines of Gram-Schmidt and
 * one-sided Jacobi do that; an installed linear-algebra library would be five packages for these two loops.
 *
 * @param a features of one set of images, two rows or more
 * @param b features of the other by the same network
 * @returns from 0 on
 * @throws {DidrError} ERR_RANGE for fewer than two rows, ERR_SHAPE for different columns, ERR_CONFIG, ERR_NONFINITE
 */
export function frechetDistance(a: Features, b: Features): number {
  checkFeatures('a', a, 2)
  checkFeatures('b', b, 2)
  checkSameColumns('b', b, a)
  const first = moments(a)
  const second = moments(b)
  let apart = 0
  for (const [k, mean] of first.mean.entries()) apart += (mean - (second.mean[k] as number)) ** 2
  const crossed = product(first.root, second.root)
  const traces = squareSum(first.root) + squareSum(second.root)
  // Rounding can leave equal covariances a little below 0.
  return apart + Math.max(0, traces - 2 * sumOfSingularValues(crossed))
}

/** @returns the mean [columns], and the rows of an R with RᵀR the covariance: as many as there are columns, or fewer */
function moments({ rows, columns, values }: Features): {
  mean: Float64Array
  root: Float64Array[]
} {
  const mean = new Float64Array(columns)
  for (let i = 0; i < values.length; i++)
    mean[i % columns] = (mean[i % columns] as number) + (values[i] as number) / rows
  const scale = 1 / Math.sqrt(rows - 1)
  const centred = (i: number, k: number) =>
    ((values[i * columns + k] as number) - (mean[k] as number)) * scale
  const root =
    rows <= columns
      ? Array.from({ length: rows }, (_, i) =>
          Float64Array.from({ length: columns }, (_, k) => centred(i, k)),
        )
      : triangle(
          Array.from({ length: columns }, (_, k) =>
            Float64Array.from({ length: rows }, (_, i) => centred(i, k)),
          ),
        )
  return { mean, root }
}

/**
 * The rows of R in A = QR by modified Gram-Schmidt. Its R is backward stable whatever the rank of A, unlike its Q
 * (Björck and Paige, "Loss and recapture of orthogonality in the modified Gram-Schmidt algorithm", 1992).
 * @param columns of A; overwritten
 */
function triangle(columns: Float64Array[]): Float64Array[] {
  return columns.map((column, k) => {
    const row = new Float64Array(columns.length)
    const norm = Math.sqrt(dot(column, column))
    row[k] = norm
    if (norm === 0) return row
    for (let i = 0; i < column.length; i++) column[i] = (column[i] as number) / norm
    for (let j = k + 1; j < columns.length; j++) {
      const other = columns[j] as Float64Array
      const along = dot(column, other)
      row[j] = along
      for (let i = 0; i < other.length; i++)
        other[i] = (other[i] as number) - along * (column[i] as number)
    }
    return row
  })
}

/** R₁R₂ᵀ or its transpose, whichever has fewer columns, as columns. */
function product(first: Float64Array[], second: Float64Array[]): Float64Array[] {
  const [long, short] = first.length < second.length ? [second, first] : [first, second]
  return short.map((row) => Float64Array.from(long, (other) => dot(row, other)))
}

/** Jacobi's method settles within about ten; this is where it would be given up. */
const mostSweeps = 60

/**
 * By one-sided Jacobi rotations: columns are turned against each other until all are orthogonal, and then their lengths
 * are the singular values (Hestenes 1958; Demmel and Veselić, "Jacobi's method is more accurate than QR", 1992).
 * @param columns overwritten
 */
function sumOfSingularValues(columns: Float64Array[]): number {
  // What rounding leaves of the product of orthogonal vectors of length 1.
  const tolerance = columns.length * Number.EPSILON
  let turned = true
  for (let sweep = 0; turned && sweep < mostSweeps; sweep++) {
    turned = false
    for (const [i, p] of columns.entries())
      for (const q of columns.slice(i + 1)) {
        const [pp, qq, pq] = [dot(p, p), dot(q, q), dot(p, q)]
        if (Math.abs(pq) <= tolerance * Math.sqrt(pp) * Math.sqrt(qq)) continue
        turned = true
        const zeta = (qq - pp) / (2 * pq)
        const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta))
        const cosine = 1 / Math.hypot(1, tangent)
        rotate(p, q, cosine, cosine * tangent)
      }
  }
  return columns.reduce((sum, column) => sum + Math.sqrt(dot(column, column)), 0)
}

function rotate(p: Float64Array, q: Float64Array, cosine: number, sine: number): void {
  for (let i = 0; i < p.length; i++) {
    const [x, y] = [p[i] as number, q[i] as number]
    p[i] = cosine * x - sine * y
    q[i] = sine * x + cosine * y
  }
}

function squareSum(rows: readonly Float64Array[]): number {
  return rows.reduce((sum, row) => sum + dot(row, row), 0)
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number)
  return sum
}
