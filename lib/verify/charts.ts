/** The pictures of `verify`. */
import { chart, colourOf } from '../plot/chart.js'
import { ringProblem } from './ring.js'
import type { VerifyReport } from './verify.js'

type Report = Omit<VerifyReport, 'samples'>

const shownSamples = 4000
const extent = 3.6

/** Samples [n, 2] over the contours of the target: circles of one and two standard deviations, as dark as their weight. */
export function ringChart(settings: Report['settings'], samples: Float32Array): string {
  const { target } = ringProblem(settings.beta)
  const heaviest = Math.max(...target.weights)
  const count = Math.min(shownSamples, samples.length / 2)
  return chart({
    title: `${settings.objective}${settings.objective === 'didr' ? `, ${settings.estimator}` : ''}: samples over p*`,
    x: { label: 'x', range: [-extent, extent] },
    y: { label: 'y', range: [-extent, extent] },
    square: true,
    width: 480,
    series: [
      {
        label: `${count} samples after ${settings.steps} steps`,
        kind: 'points',
        points: Array.from({ length: count }, (_, i) => [
          samples[2 * i] as number,
          samples[2 * i + 1] as number,
        ]),
      },
    ],
    background: (toX, toY) =>
      target.means
        .flatMap((mean, k) => {
          const [x, y] = mean as [number, number]
          const opacity = ((target.weights[k] as number) / heaviest).toFixed(3)
          return [1, 2].map((deviations) => {
            const r = toX(deviations * (target.stds[k] as number)) - toX(0)
            return `<circle cx="${toX(x)}" cy="${toY(y)}" r="${r}" fill="${colourOf(4)}" fill-opacity="${opacity}"/>`
          })
        })
        .join(''),
  })
}

/** The run's own estimate from scores beside the histogram's, over training. */
export function trackingChart({ settings, curve }: Report): string {
  return chart({
    title: `KL to p* over training: ${settings.objective}, ${settings.estimator}`,
    x: { label: 'step' },
    y: {
      label: 'nats',
      range: [0, 1.1 * Math.max(...curve.map(({ klToTarget }) => klToTarget), 0.1)],
    },
    series: [
      { label: 'histogram of samples', points: curve.map((at) => [at.step, at.klToTarget]) },
      {
        label: 'from scores (klToTarget)',
        points: curve.map((at) => [at.step, at.klFromScores ?? Number.NaN]),
      },
    ],
  })
}

/** Reward against distance from the reference: one front for each objective. */
export function paretoChart(reports: readonly Report[]): string {
  const objectives = [...new Set(reports.map(({ settings }) => settings.objective))]
  const exact = new Map(
    reports
      .filter(({ settings }) => settings.objective === 'didr')
      .map(({ settings, target }) => [settings.beta, target]),
  )
  const sorted = (points: [number, number][]) => points.sort(([a], [b]) => a - b)
  return chart({
    title: 'Reward against distance from the reference',
    x: { label: 'mean reward' },
    y: { label: 'KL(p_θ ‖ p_ref) in nats' },
    series: [
      ...objectives.map((objective) => ({
        label: objective,
        kind: 'both' as const,
        points: sorted(
          reports
            .filter(({ settings }) => settings.objective === objective)
            .map(({ meanReward, klToReference }) => [meanReward, klToReference]),
        ),
      })),
      {
        label: 'p* itself',
        kind: 'both' as const,
        dashed: true,
        points: sorted(
          [...exact.values()].map(({ meanReward, klToReference }) => [meanReward, klToReference]),
        ),
      },
    ],
  })
}
