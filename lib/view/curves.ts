/** Metrics of several runs in one chart. */
import { chart, type Series } from '../plot/chart.js'
import type { Curves } from './api.js'
import type { MetricSeries } from './metrics-file.js'

export type Point = readonly [step: number, value: number]

/**
 * The running average Σ s^(n - i) xᵢ / Σ s^(n - i) with s = 1 - 1/span, as `BestTracker` has it: about the last `span`
 * values. A span of 1 changes nothing.
 */
export function smoothed(values: readonly number[], span: number): number[] {
  const keep = 1 - 1 / span
  let [mean, weight] = [0, 0]
  return values.map((value) => {
    weight = keep * weight + 1
    mean += (value - mean) / weight
    return mean
  })
}

/**
 * At most about 2 × `buckets` points that look the same: in each of as many equal intervals of steps the smallest and the
 * largest value, in their order; the first and the last point stay.
 */
export function thinned(series: MetricSeries, buckets: number): Point[] {
  const { steps, values } = series
  const count = steps.length
  const point = (i: number): Point => [steps[i] as number, values[i] as number]
  if (count <= 2 * buckets) return steps.map((_, i) => point(i))
  const [first, last] = [steps[0] as number, steps[count - 1] as number]
  const width = (last - first) / buckets || 1
  const kept = [0]
  let begin = 1
  while (begin < count - 1) {
    const bucket = Math.floor(((steps[begin] as number) - first) / width)
    let [low, high, end] = [begin, begin, begin]
    for (; end < count - 1; end++) {
      if (Math.floor(((steps[end] as number) - first) / width) !== bucket) break
      if ((values[end] as number) < (values[low] as number)) low = end
      if ((values[end] as number) > (values[high] as number)) high = end
    }
    kept.push(Math.min(low, high))
    if (low !== high) kept.push(Math.max(low, high))
    begin = end
  }
  kept.push(count - 1)
  return kept.map(point)
}

export interface CurvesOptions {
  metric: string
  runs: readonly { run: string; slot: number; series: MetricSeries | undefined }[]
  /** Of {@link smoothed}. From 2 on the values themselves are drawn faintly behind it. */
  span: number
  log: boolean
  /** In pixels. */
  width: number
}

/** The chart, with a curve for each run that has the metric. */
export function curvesOf({ metric, runs, span, log, width }: CurvesOptions): Curves {
  const buckets = Math.round(width / 2)
  const faint: Series[] = []
  const series: Curves['series'] = []
  for (const { run, slot, series: own } of runs) {
    if (own === undefined) continue
    const { steps, values } = own
    const points = thinned({ steps, values: smoothed(values, span) }, buckets)
    series.push({ run, slot, points: points.map(([step, value]) => [step, value]) })
    if (span > 1) faint.push({ label: '', points: thinned(own, buckets), slot, opacity: 0.22 })
  }
  const lines = series.map(
    ({ points, slot }): Series => ({
      label: '',
      points,
      slot,
      // A line of one point is none.
      kind: points.length === 1 ? 'points' : 'line',
    }),
  )
  const steps = series.flatMap(({ points }) => points.map(([step]) => step))
  const range = rangeOf(lines, faint, log)
  const svg = chart({
    title: metric,
    width,
    height: Math.round(Math.min(320, Math.max(220, 0.62 * width))),
    x: {
      label: 'step',
      ...(steps.length === 0 ? {} : { range: widened(least(steps), most(steps)) }),
    },
    y: { label: '', log, ...(range === undefined ? {} : { range }) },
    series: [...faint, ...lines],
  })
  return { svg, series }
}

/**
 * The range of the lines and of nearly all that is faint behind them: the first losses of a run, or a single outlier, are
 * not to press everything else flat.
 */
function rangeOf(
  lines: readonly Series[],
  faint: readonly Series[],
  log: boolean,
): [number, number] | undefined {
  const valuesOf = (series: readonly Series[]) =>
    series.flatMap(({ points }) =>
      points.map(([, value]) => value).filter((value) => !log || value > 0),
    )
  if (faint.length === 0) return undefined
  const behind = valuesOf(faint).sort((a, b) => a - b)
  const at = (fraction: number) => behind[Math.round(fraction * (behind.length - 1))] as number
  const all = [...valuesOf(lines), ...(behind.length === 0 ? [] : [at(0.02), at(0.98)])]
  if (all.length === 0) return undefined
  const [low, high] = [least(all), most(all)]
  if (log) return [low / 1.1, high * 1.1]
  const room = 0.04 * (high - low)
  return widened(low - room, high + room)
}

/** A range that is no point. */
function widened(low: number, high: number): [number, number] {
  return high > low ? [low, high] : [low - 0.5, high + 0.5]
}

// Not Math.min(...all): there may be more values than a call takes arguments.
function least(values: readonly number[]): number {
  return values.reduce((a, b) => Math.min(a, b), Infinity)
}

function most(values: readonly number[]): number {
  return values.reduce((a, b) => Math.max(a, b), -Infinity)
}
