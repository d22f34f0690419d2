import { describe, expect, it } from 'vitest'
import { type ErrorCode, evaluation } from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'
import { generator } from '../reference.js'
import { featuresFrom, gaussianRows, type Rows } from './points.js'

const { frechetDistance } = evaluation

const at = (m: Rows, i: number, j: number) => m[i]?.[j] as number
const square = (n: number, f: (i: number, j: number) => number) =>
  Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => f(i, j)))
const multiply = (a: Rows, b: Rows) =>
  a.map((row) =>
    (b[0] as number[]).map((_, j) => row.reduce((sum, x, k) => sum + x * at(b, k, j), 0)),
  )
const transpose = (a: Rows) => (a[0] as number[]).map((_, j) => a.map((row) => row[j] as number))
const trace = (a: Rows) => a.reduce((sum, row, i) => sum + (row[i] as number), 0)

/** By Gauss and Jordan with pivots. */
function inverse(a: Rows): number[][] {
  const n = a.length
  const m = a.map((row, i) => [...row, ...Array.from({ length: n }, (_, j) => (i === j ? 1 : 0))])
  for (let k = 0; k < n; k++) {
    let pivot = k
    for (let i = k; i < n; i++) if (Math.abs(at(m, i, k)) > Math.abs(at(m, pivot, k))) pivot = i
    ;[m[k], m[pivot]] = [m[pivot] as number[], m[k] as number[]]
    const scale = at(m, k, k)
    m[k] = (m[k] as number[]).map((x) => x / scale)
    for (let i = 0; i < n; i++) {
      if (i === k) continue
      const factor = at(m, i, k)
      m[i] = (m[i] as number[]).map((x, j) => x - factor * at(m, k, j))
    }
  }
  return m.map((row) => row.slice(n))
}

/** A^½ by the iteration of Denman and Beavers (1976): Y' = (Y + Z⁻¹)/2, Z' = (Z + Y⁻¹)/2 from Y = A, Z = 1. */
function squareRoot(a: Rows): Rows {
  let y: Rows = a
  let z: Rows = square(a.length, (i, j) => (i === j ? 1 : 0))
  for (let step = 0; step < 40; step++) {
    const [byZ, byY] = [inverse(z), inverse(y)]
    y = square(a.length, (i, j) => (at(y, i, j) + at(byZ, i, j)) / 2)
    z = square(a.length, (i, j) => (at(z, i, j) + at(byY, i, j)) / 2)
  }
  return y
}

function momentsOf(rows: Rows) {
  const mean = transpose(rows).map((column) => column.reduce((a, b) => a + b, 0) / rows.length)
  const centred = rows.map((row) => row.map((x, k) => x - (mean[k] as number)))
  const covariance = multiply(transpose(centred), centred).map((row) =>
    row.map((x) => x / (rows.length - 1)),
  )
  return { mean, covariance }
}

/** The definition, for covariances of full rank. */
function reference(a: Rows, b: Rows): number {
  const [p, q] = [momentsOf(a), momentsOf(b)]
  const apart = p.mean.reduce((sum, m, k) => sum + (m - (q.mean[k] as number)) ** 2, 0)
  const root = squareRoot(multiply(p.covariance, q.covariance))
  return apart + trace(p.covariance) + trace(q.covariance) - 2 * trace(root)
}

/** Points whose sample mean is m and whose sample covariance is FFᵀ, exactly: m ± c times each column of F. */
function pointsWith(mean: readonly number[], factor: Rows): Rows {
  const columns = transpose(factor)
  const c = Math.sqrt((2 * columns.length - 1) / 2)
  return [1, -1].flatMap((sign) =>
    columns.map((column) => column.map((x, k) => (mean[k] as number) + sign * c * x)),
  )
}

/** A matrix of rotations in each plane of two axes. */
function rotation(n: number, draw: () => number): Rows {
  let result: Rows = square(n, (i, j) => (i === j ? 1 : 0))
  for (let p = 0; p < n; p++)
    for (let q = p + 1; q < n; q++) {
      const angle = 2 * Math.PI * draw()
      const turn = square(n, (i, j) => {
        if (i === j) return i === p || i === q ? Math.cos(angle) : 1
        if (i === p && j === q) return -Math.sin(angle)
        return i === q && j === p ? Math.sin(angle) : 0
      })
      result = multiply(result, turn)
    }
  return result
}

const diagonal = (values: readonly number[]) =>
  square(values.length, (i, j) => (i === j ? (values[i] as number) : 0))
const between = (a: Rows, b: Rows) => frechetDistance(featuresFrom(a), featuresFrom(b))

describe('closed forms', () => {
  it('covariances that commute: differences of the square roots', () => {
    const draw = generator(1)
    for (const n of [1, 2, 5, 33]) {
      const deviations = () => Array.from({ length: n }, () => 0.1 + 3 * draw())
      const [s, t, m] = [deviations(), deviations(), deviations()]
      const turned = rotation(n, draw)
      const of = (mean: readonly number[], d: readonly number[]) =>
        pointsWith(mean, multiply(turned, diagonal(d)))
      const zero = m.map(() => 0)
      const expected = s.reduce(
        (sum, x, k) => sum + (x - (t[k] as number)) ** 2 + (m[k] as number) ** 2,
        0,
      )
      expect(between(of(zero, s), of(m, t)) / expected).toBeCloseTo(1, 11)
    }
  })

  it('two dimensions that do not commute: Tr A^½ = √(Tr A + 2 √det A)', () => {
    const draw = generator(2)
    for (let trial = 0; trial < 20; trial++) {
      const factor = () => square(2, () => 4 * draw() - 2)
      const [f, g] = [factor(), factor()]
      const [s, t] = [multiply(f, transpose(f)), multiply(g, transpose(g))]
      const product = multiply(s, t)
      const determinant = (m: Rows) => at(m, 0, 0) * at(m, 1, 1) - at(m, 0, 1) * at(m, 1, 0)
      const root = Math.sqrt(trace(product) + 2 * Math.abs(determinant(f) * determinant(g)))
      const expected = 1 + trace(s) + trace(t) - 2 * root
      expect(between(pointsWith([0, 0], f), pointsWith([0, 1], g))).toBeCloseTo(expected, 11)
    }
  })

  it('two images each, in 128 dimensions: covariances of rank 1, Tr = |u·v|', () => {
    const [p, q, r, s] = gaussianRows(generator(3), 4, 128) as [number[], ...number[][]] as [
      ...[number[], number[], number[], number[]],
    ]
    const minus = (a: number[], b: number[]) => a.map((x, k) => (x - (b[k] as number)) / Math.SQRT2)
    const inner = (a: number[], b: number[]) =>
      a.reduce((sum, x, k) => sum + x * (b[k] as number), 0)
    const [u, v] = [minus(p, q), minus(r, s)]
    const means = p.map((x, k) => (x + at([q], 0, k) - at([r], 0, k) - at([s], 0, k)) / 2)
    const expected = inner(means, means) + inner(u, u) + inner(v, v) - 2 * Math.abs(inner(u, v))
    expect(between([p, q], [r, s]) / expected).toBeCloseTo(1, 12)
  })

  it('one direction, with products of equal length', () => {
    const along = (x: number) => [
      [x, 0],
      [-x, 0],
    ]
    expect(between(along(1), along(2))).toBeCloseTo(2 + 8 - 2 * 4, 12)
  })

  it('spread along different axes: nothing in common', () => {
    const a = pointsWith([0, 0, 0, 0], diagonal([1, 2, 0, 0]))
    const b = pointsWith([0, 0, 0, 0], diagonal([0, 0, 3, 0.5]))
    expect(between(a, b)).toBeCloseTo(1 + 4 + 9 + 0.25, 12)
  })

  it('images without spread: the distance of the means', () => {
    const copies = (row: number[], n: number) => Array.from({ length: n }, () => row)
    expect(between(copies([1, 2, 3], 9), copies([1, 0, 0], 2))).toBeCloseTo(13, 12)
    const b = pointsWith([0, 0, 0], diagonal([1, 2, 3]))
    expect(between(copies([1, 0, 0], 5), b)).toBeCloseTo(1 + 14, 12)
  })
})

describe('against the iteration of Denman and Beavers', () => {
  it.each([
    [40, 7, 25],
    [9, 8, 200],
    [300, 24, 151],
    [2, 1, 3],
  ])('%i images, %i columns, %i images', (m, columns, n) => {
    const draw = generator(m + columns)
    const mixed = (rows: number) => {
      const mixing = gaussianRows(draw, columns, columns)
      return multiply(gaussianRows(draw, rows, columns), mixing).map((row) =>
        row.map((x, k) => x + k / 10),
      )
    }
    const [a, b] = [mixed(m), mixed(n)]
    const expected = reference(a, b)
    expect(between(a, b) / expected).toBeCloseTo(1, 7)
    expect(between(b, a) / expected).toBeCloseTo(1, 7)
  })
})

describe('fewer images than columns', () => {
  it('columns of zeros add nothing', () => {
    const draw = generator(5)
    const [a, b] = [gaussianRows(draw, 9, 4), gaussianRows(draw, 6, 4)]
    const padded = (rows: Rows) => rows.map((row) => [...row, ...new Array<number>(20).fill(0)])
    expect(between(padded(a), padded(b))).toBeCloseTo(reference(a, b), 11)
  })

  it('turning the space changes nothing', () => {
    const draw = generator(6)
    const [a, b] = [gaussianRows(draw, 5, 12), gaussianRows(draw, 17, 12)]
    const turned = rotation(12, draw)
    const straight = between(a, b)
    expect(between(multiply(a, turned), multiply(b, turned)) / straight).toBeCloseTo(1, 11)
  })

  it('units come out squared', () => {
    const draw = generator(7)
    const [a, b] = [gaussianRows(draw, 5, 12), gaussianRows(draw, 30, 12)]
    for (const scale of [1e-6, 1e6]) {
      const scaled = (rows: Rows) => rows.map((row) => row.map((x) => scale * x))
      expect(between(scaled(a), scaled(b)) / between(a, b) / scale ** 2).toBeCloseTo(1, 11)
    }
  })
})

describe('the same images', () => {
  it.each([
    [2, 128],
    [40, 128],
    [128, 128],
    [129, 128],
    [500, 60],
    [7, 1],
  ])('%i of %i columns are 0 apart, in any order', (rows, columns) => {
    const a = gaussianRows(generator(rows), rows, columns)
    for (const again of [a, [...a].reverse()]) {
      const apart = between(a, again)
      expect(apart).toBeGreaterThanOrEqual(0)
      // The traces are about the number of columns.
      expect(apart).toBeLessThan(1e-13 * columns)
    }
  })

  it('when they have few directions, too', () => {
    const draw = generator(8)
    const low = multiply(gaussianRows(draw, 90, 3), gaussianRows(draw, 3, 50))
    expect(between(low, low)).toBeLessThan(1e-11)
    expect(between(low, [...low].reverse())).toBeLessThan(1e-11)
  })

  it('and a small difference is not lost beside them', () => {
    const a = gaussianRows(generator(9), 30, 64)
    const shift = 1e-5
    const moved = a.map(([x, ...others]) => [(x as number) + shift, ...others])
    expect(between(a, moved) / shift ** 2).toBeCloseTo(1, 2)
  })
})

it('leaves the features as they are', () => {
  const draw = generator(10)
  const [a, b] = [featuresFrom(gaussianRows(draw, 9, 4)), featuresFrom(gaussianRows(draw, 3, 4))]
  const before = [a.values.slice(), b.values.slice()]
  frechetDistance(a, b)
  expect([a.values, b.values]).toEqual(before)
})

describe('what it refuses', () => {
  const good = featuresFrom([
    [1, 2],
    [3, 4],
    [5, 6],
  ])
  it.each<[unknown, ErrorCode, string]>([
    [null, 'ERR_CONFIG', 'b: expected features, got null'],
    [{ rows: 3, columns: 2 }, 'ERR_CONFIG', 'b.values: expected a Float64Array, got undefined'],
    [{ ...good, rows: 2 }, 'ERR_SHAPE', 'b.values: expected 4 elements for [2, 2], got 6'],
    [featuresFrom([[1, 2]]), 'ERR_RANGE', 'b.rows: expected an integer from 2 on, got 1'],
    [
      { rows: 2, columns: 0, values: new Float64Array(0) },
      'ERR_RANGE',
      'b.columns: expected an integer from 1 on, got 0',
    ],
    [featuresFrom([[1], [2]]), 'ERR_SHAPE', 'b: expected 2 columns, as the other set has, got 1'],
    [
      featuresFrom([
        [1, 2],
        [Number.NaN, 0],
      ]),
      'ERR_NONFINITE',
      'b.values: expected finite numbers, got NaN in row 1',
    ],
  ])('%j', (bad, code, message) => {
    expectRefusal(() => frechetDistance(good, bad as evaluation.Features), code, message)
  })
})
