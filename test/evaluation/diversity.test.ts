import { describe, expect, it } from 'vitest'
import { evaluation } from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'
import { generator } from '../reference.js'
import { distance, featuresFrom, gaussianRows, type Rows } from './points.js'

/** Means over a list of all pairs. */
function byPairs(rows: Rows): evaluation.PairwiseDistances {
  const pairs = rows.flatMap((a, i) => rows.slice(i + 1).map((b) => [a, b] as const))
  const mean = (f: (a: readonly number[], b: readonly number[]) => number) =>
    pairs.reduce((sum, [a, b]) => sum + f(a, b), 0) / pairs.length
  const inner = (a: readonly number[], b: readonly number[]) =>
    a.reduce((sum, x, k) => sum + x * (b[k] as number), 0)
  return {
    euclidean: mean(distance),
    cosine: mean((a, b) => 1 - inner(a, b) / Math.sqrt(inner(a, a) * inner(b, b))),
  }
}

function expectDistances(
  got: evaluation.PairwiseDistances | undefined,
  expected: evaluation.PairwiseDistances,
) {
  expect(got?.euclidean).toBeCloseTo(expected.euclidean, 12)
  expect(got?.cosine).toBeCloseTo(expected.cosine, 12)
}

const all = (rows: Rows) => evaluation.diversity(featuresFrom(rows)).all

describe('over all images', () => {
  it.each([
    [2, 1],
    [3, 7],
    [40, 5],
  ])('%i rows of %i columns, against all pairs', (rows, columns) => {
    const points = gaussianRows(generator(rows), rows, columns)
    expectDistances(all(points), byPairs(points))
  })

  it('opposite rows: the cosine distance is 2', () => {
    expectDistances(
      all([
        [3, 4],
        [-3, -4],
      ]),
      { euclidean: 10, cosine: 2 },
    )
  })

  it('rows of one direction differ in length alone', () => {
    const { euclidean, cosine } = all([
      [1, 1],
      [2, 2],
      [4, 4],
    ])
    expect(euclidean).toBeCloseTo((Math.SQRT2 * (1 + 3 + 2)) / 3, 12)
    expect(cosine).toBeLessThan(1e-15)
  })

  it('a collapse is exactly 0 apart', () => {
    const copies = Array.from({ length: 8 }, () => [0.25, 0.5, -1])
    expect(all(copies).euclidean).toBe(0)
    expect(all(copies).cosine).toBeLessThan(1e-30)
  })

  it('rows of zeros stay as they are', () => {
    expect(
      all([
        [0, 0],
        [0, 0],
      ]),
    ).toEqual({ euclidean: 0, cosine: 0 })
    expect(
      all([
        [0, 0],
        [0, 5],
      ]),
    ).toEqual({ euclidean: 5, cosine: 0.5 })
  })
})

describe('within prompts', () => {
  const points = gaussianRows(generator(21), 9, 4)
  const prompts = ['a', 'b', 'a', 'c', 'b', 'a', 'a', 'd', 'a']
  const chosen = (prompt: string) => points.filter((_, i) => prompts[i] === prompt)

  it('the mean over prompts of several images, large and small groups alike', () => {
    const { all, withinPrompt } = evaluation.diversity(featuresFrom(points), prompts)
    const [a, b] = [byPairs(chosen('a')), byPairs(chosen('b'))]
    expectDistances(all, byPairs(points))
    expectDistances(withinPrompt, {
      euclidean: (a.euclidean + b.euclidean) / 2,
      cosine: (a.cosine + b.cosine) / 2,
    })
  })

  it('one prompt for all is all images', () => {
    const { all, withinPrompt } = evaluation.diversity(
      featuresFrom(points),
      points.map(() => ''),
    )
    expect(withinPrompt).toEqual(all)
  })

  it('a collapse for each prompt shows although images of different prompts differ', () => {
    const same = prompts.map((prompt) => points[prompts.indexOf(prompt)] as number[])
    const { all, withinPrompt } = evaluation.diversity(featuresFrom(same), prompts)
    expect(withinPrompt?.euclidean).toBe(0)
    expect(all.euclidean).toBeGreaterThan(0.5)
  })

  it('absent without prompts, and when every prompt has one image', () => {
    const features = featuresFrom(points)
    expect(evaluation.diversity(features)).not.toHaveProperty('withinPrompt')
    const different = points.map((_, i) => `prompt ${i}`)
    expect(evaluation.diversity(features, different)).not.toHaveProperty('withinPrompt')
  })
})

it('refuses a single image, and prompts of another number', () => {
  const [one, two] = [featuresFrom([[1, 2]]), featuresFrom([[1], [2]])]
  expectRefusal(
    () => evaluation.diversity(one),
    'ERR_RANGE',
    'features.rows: expected an integer from 2 on, got 1',
  )
  expectRefusal(
    () => evaluation.diversity(two, ['a']),
    'ERR_SHAPE',
    'prompts: expected 2, one per row, got 1',
  )
})
