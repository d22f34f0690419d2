import { describe, expect, it } from 'vitest'
import { type ErrorCode, evaluation } from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'
import { generator, integer } from '../reference.js'
import { distance, featuresFrom, gaussianRows, type Rows } from './points.js'

const measured = (generated: Rows, reference: Rows, neighbours?: number) =>
  evaluation.precisionRecall(
    featuresFrom(generated),
    featuresFrom(reference),
    neighbours === undefined ? {} : { neighbours },
  )

/** The definition, with whole matrices of distances and a sort. */
function byDefinition(generated: Rows, reference: Rows, k: number) {
  const share = (points: Rows, manifold: Rows) => {
    const radii = manifold.map(
      (p, i) =>
        manifold
          .filter((_, j) => j !== i)
          .map((q) => distance(p, q))
          .sort((a, b) => a - b)[k - 1] as number,
    )
    const inside = points.filter((p) =>
      manifold.some((q, j) => distance(p, q) <= (radii[j] as number)),
    )
    return inside.length / points.length
  }
  return { precision: share(generated, reference), recall: share(reference, generated) }
}

describe('against the definition', () => {
  it.each([
    [20, 31, 5, 3],
    [4, 4, 1, 3],
    [50, 10, 2, 1],
    [61, 64, 13, 5],
    [2, 9, 3, 1],
  ])('%i and %i points, %i columns, k = %i', (m, n, columns, k) => {
    const draw = generator(m + n + columns)
    const shares = new Set<number>()
    for (const shift of [0, 0.7, 1.5]) {
      const generated = gaussianRows(draw, m, columns).map((row) => row.map((x) => 0.8 * x + shift))
      const reference = gaussianRows(draw, n, columns)
      const got = measured(generated, reference, k)
      expect(got).toEqual(byDefinition(generated, reference, k))
      shares.add(got.precision)
    }
    // The trials are about something: not all inside, not all outside.
    if (m > 10) expect(shares.size).toBeGreaterThan(1)
  })

  it('on a grid, where distances tie', () => {
    const draw = generator(11)
    const points = (n: number) =>
      Array.from({ length: n }, () => [integer(draw, 0, 4), integer(draw, 0, 4)])
    for (let trial = 0; trial < 10; trial++) {
      const [a, b] = [points(12), points(9)]
      for (const k of [1, 2, 3, 8]) expect(measured(a, b, k)).toEqual(byDefinition(a, b, k))
    }
  })

  it('three neighbours unless told otherwise', () => {
    const draw = generator(12)
    const [a, b] = [gaussianRows(draw, 60, 4), gaussianRows(draw, 60, 4)]
    expect(measured(a, b)).toEqual(byDefinition(a, b, 3))
    expect(measured(a, b)).not.toEqual(byDefinition(a, b, 1))
  })
})

describe('known cases', () => {
  const points = gaussianRows(generator(13), 40, 6)

  it('the same images: all inside and all covered', () => {
    expect(measured(points, points)).toEqual({ precision: 1, recall: 1 })
    expect(measured(points, [...points].reverse(), 1)).toEqual({ precision: 1, recall: 1 })
  })

  it('the same images, each four times over: radii are 0, and a point is inside its own', () => {
    const copies = points.flatMap((p) => [p, p, p, p])
    expect(measured(copies, copies)).toEqual({ precision: 1, recall: 1 })
    expect(measured(copies, points)).toEqual({ precision: 1, recall: 1 })
  })

  it('images far from the reference: none', () => {
    const far = points.map((row) => row.map((x) => x + 1000))
    expect(measured(far, points)).toEqual({ precision: 0, recall: 0 })
  })

  it('a collapse onto one image of the reference: precise, and almost nothing covered', () => {
    const one = Array.from({ length: 30 }, () => points[7] as number[])
    expect(measured(one, points)).toEqual({ precision: 1, recall: 1 / 40 })
  })

  it('half of the modes: precise, half covered', () => {
    const draw = generator(14)
    const cluster = (centre: number) =>
      gaussianRows(draw, 20, 3).map((row) => row.map((x) => 0.01 * x + centre))
    const reference = [...cluster(0), ...cluster(100)]
    const generated = reference.slice(0, 20)
    expect(measured(generated, reference)).toEqual({ precision: 1, recall: 0.5 })
  })

  it('exchanging the sets exchanges the shares', () => {
    const draw = generator(15)
    const [a, b] = [gaussianRows(draw, 25, 3), gaussianRows(draw, 35, 3)]
    const wide = b.map((row) => row.map((x) => 3 * x))
    const { precision, recall } = measured(a, wide)
    expect(precision).not.toBe(recall)
    expect(measured(wide, a)).toEqual({ precision: recall, recall: precision })
  })
})

describe('what it refuses', () => {
  const four = featuresFrom(gaussianRows(generator(16), 4, 2))
  const three = featuresFrom(gaussianRows(generator(16), 3, 2))
  it.each<[evaluation.Features, unknown, ErrorCode, string]>([
    [three, {}, 'ERR_RANGE', 'generated.rows: expected an integer from 4 on, got 3'],
    [four, { neighbours: 4 }, 'ERR_RANGE', 'generated.rows: expected an integer from 5 on, got 4'],
    [
      four,
      { neighbours: 0 },
      'ERR_RANGE',
      'options.neighbours: expected an integer from 1 on, got 0',
    ],
    [four, { k: 3 }, 'ERR_CONFIG', 'options.k: unknown option; known are neighbours'],
    [
      featuresFrom(gaussianRows(generator(16), 4, 3)),
      {},
      'ERR_SHAPE',
      'generated: expected 2 columns, as the other set has, got 3',
    ],
  ])('case %#', (generated, options, code, message) => {
    const call = () =>
      evaluation.precisionRecall(generated, four, options as evaluation.PrecisionRecallOptions)
    expectRefusal(call, code, message)
  })

  it('a reference too small', () => {
    const call = () => evaluation.precisionRecall(four, three)
    expectRefusal(call, 'ERR_RANGE', 'reference.rows: expected an integer from 4 on, got 3')
  })
})
