import { describe, expect, it } from 'vitest'
import { BestTracker } from '../../lib/train/best.js'
import { curvesOf, smoothed, thinned } from '../../lib/view/curves.js'

const noise = (count: number) =>
  Array.from({ length: count }, (_, i) => Math.sin(i * i * 0.7) + Math.cos(i * 1.3))

describe('smoothing', () => {
  it('is the average by its definition', () => {
    const values = noise(40)
    for (const span of [1, 2, 7.5, 300]) {
      const keep = 1 - 1 / span
      for (const [n, average] of smoothed(values, span).entries()) {
        let [sum, weights] = [0, 0]
        for (let i = 0; i <= n; i++) {
          sum += keep ** (n - i) * (values[i] as number)
          weights += keep ** (n - i)
        }
        expect(average).toBeCloseTo(sum / weights, 10)
      }
    }
  })

  it('is that of the best checkpoint', () => {
    const values = noise(25)
    const tracker = new BestTracker({ metric: 'm', mode: 'max', smoothing: 0.9 })
    for (const m of values) tracker.update({ m })
    expect(smoothed(values, 10).at(-1)).toBeCloseTo(tracker.state().mean, 12)
  })

  it('leaves a constant and an empty series as they are', () => {
    expect(smoothed([3, 3, 3], 50)).toEqual([3, 3, 3])
    expect(smoothed([], 5)).toEqual([])
  })
})

describe('thinning', () => {
  const seriesOf = (values: number[]) => ({ steps: values.map((_, i) => 10 + 3 * i), values })

  it('leaves short series alone', () => {
    expect(thinned(seriesOf([5, 1]), 1)).toEqual([
      [10, 5],
      [13, 1],
    ])
    expect(thinned({ steps: [], values: [] }, 10)).toEqual([])
  })

  it('keeps both ends and the extremes of every interval, in their order', () => {
    const values = noise(4001)
    const series = seriesOf(values)
    const buckets = 97
    const points = thinned(series, buckets)
    expect(points.length).toBeLessThanOrEqual(2 * buckets + 2)
    expect(points[0]).toEqual([10, values[0]])
    expect(points.at(-1)).toEqual([10 + 3 * 4000, values[4000]])
    const steps = points.map(([step]) => step)
    expect(steps).toEqual([...steps].sort((a, b) => a - b))
    const width = (3 * 4000) / buckets
    const inner = series.steps.slice(1, -1)
    for (let bucket = 0; bucket < buckets; bucket++) {
      const all = inner.flatMap((step, i) =>
        Math.floor((step - 10) / width) === bucket ? [values[i + 1] as number] : [],
      )
      const kept = points
        .slice(1, -1)
        .filter(([step]) => Math.floor((step - 10) / width) === bucket)
        .map(([, value]) => value)
      expect(Math.min(...kept)).toBe(Math.min(...all))
      expect(Math.max(...kept)).toBe(Math.max(...all))
    }
  })

  it('ends for steps that do not grow', () => {
    const values = noise(500)
    expect(thinned({ steps: values.map(() => 7), values }, 20).length).toBeGreaterThan(1)
    expect(thinned({ steps: values.map((_, i) => -i), values }, 20).length).toBeGreaterThan(1)
  })
})

describe('a chart of runs', () => {
  const options = { metric: 'a<b', span: 1, log: false, width: 500 }
  const frame = (svg: string, name: string) =>
    (new RegExp(`data-${name}="([^"]*)"`).exec(svg)?.[1] ?? '').split(' ').map(Number)

  it('has a line for each run that has the metric, in its colour, with its values', () => {
    const { svg, series } = curvesOf({
      ...options,
      runs: [
        { run: 'one', slot: 2, series: { steps: [1, 2], values: [4, 8] } },
        { run: 'two', slot: 0, series: undefined },
        { run: 'three', slot: 9, series: { steps: [2, 6], values: [1, 2] } },
      ],
    })
    expect(series).toEqual([
      {
        run: 'one',
        slot: 2,
        points: [
          [1, 4],
          [2, 8],
        ],
      },
      {
        run: 'three',
        slot: 9,
        points: [
          [2, 1],
          [6, 2],
        ],
      },
    ])
    expect(svg.match(/<polyline [^>]*>/g)).toHaveLength(2)
    expect(svg).toContain('stroke="#009e73"')
    // The second round of colours is broken.
    expect(svg).toMatch(/stroke="#d55e00" [^>]*stroke-dasharray/)
    expect(frame(svg, 'x')).toEqual([1, 6])
    expect(svg).not.toContain('a<b')
  })

  it('with smoothing has the values faintly behind, and no outlier rules the axis', () => {
    const values = Array.from({ length: 400 }, (_, i) => (i === 200 ? 1e6 : 1 + (i % 2)))
    const series = { steps: values.map((_, i) => i), values }
    const one = (span: number) =>
      curvesOf({ ...options, span, runs: [{ run: 'r', slot: 0, series }] })
    expect(frame(one(1).svg, 'y')[1]).toBeGreaterThan(1e6)
    const { svg } = one(50)
    expect(svg.match(/<polyline [^>]*>/g)).toHaveLength(2)
    expect(svg).toContain('opacity="0.22"')
    expect(frame(svg, 'y')[1]).toBeLessThan(1e5)
  })

  it('survives no points, one, equal ones, and none that a logarithm has', () => {
    for (const values of [[], [3], [3, 3, 3], [0, -1], [0, 5]])
      for (const log of [false, true])
        for (const span of [1, 4]) {
          const series = { steps: values.map((_, i) => i), values }
          const { svg } = curvesOf({ ...options, log, span, runs: [{ run: 'r', slot: 0, series }] })
          expect(svg).not.toMatch(/NaN|Infinity/)
        }
  })
})
