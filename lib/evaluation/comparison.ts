/** What a comparison of methods found, as a table and as a chart. */
import type { Objective } from '../didr/config.js'
import { chart } from '../plot/chart.js'
import type { Judgement } from './judge.js'

/** One run's result. */
export interface Comparison extends Judgement {
  method: string
  objective: Objective | undefined
  beta: number | undefined
  seed: number
  /** The weighted sum that was optimised. */
  reward: number
  alarms: string[]
}

/** Points of one method and temperature, over seeds. */
function grouped(results: readonly Comparison[]): Comparison[][] {
  const groups = new Map<string, Comparison[]>()
  for (const result of results) {
    const key = `${result.method} ${result.beta}`
    groups.set(key, [...(groups.get(key) ?? []), result])
  }
  return [...groups.values()]
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/**
 * A row for each method and temperature, the first one the heads: means over seeds, with the range behind them where there
 * are several.
 */
export function compareRows(results: readonly Comparison[]): string[][] {
  const [first] = results
  if (first === undefined) return []
  const rewards = Object.keys(first.rewards)
  const references = Object.keys(first.references)
  const heads = [
    'method',
    'β',
    'calls',
    'reward',
    ...rewards,
    ...references.map((name) => `Fréchet to ${name}`),
    'precision / recall',
    'diversity',
    'alarms',
  ]
  const cell = (values: readonly number[], digits = 3) => {
    const mean = meanOf(values).toFixed(digits)
    if (values.length === 1) return mean
    return `${mean} (${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)})`
  }
  const rows = grouped(results).map((group) => {
    const [one] = group as [Comparison]
    const of = (name: string) =>
      group.map(({ references: own }) => own[name] as Judgement['references'][string])
    const alarms = [...new Set(group.flatMap(({ alarms: own }) => own))]
    return [
      one.method,
      one.beta === undefined ? '' : String(one.beta),
      String(one.calls),
      cell(group.map(({ reward }) => reward)),
      ...rewards.map((name) => cell(group.map((own) => own.rewards[name]?.mean ?? Number.NaN))),
      ...references.map((name) => cell(of(name).map(({ frechet }) => frechet))),
      references.length === 0
        ? ''
        : ['precision', 'recall']
            .map((field) =>
              meanOf(
                of(references[0] as string).map((own) => own[field as 'precision' | 'recall']),
              ).toFixed(2),
            )
            .join(' / '),
      cell(
        group.map(({ diversity }) => diversity.all.euclidean),
        2,
      ),
      alarms.join(', ') || 'none',
    ]
  })
  return [heads, ...rows]
}

/** The table in Markdown. */
export function compareTable(results: readonly Comparison[]): string {
  const [heads, ...rows] = compareRows(results)
  if (heads === undefined) return ''
  return [heads, heads.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')
}

/** Reward against the Fréchet distance to a reference: a curve for each method, a point for each temperature. */
export function compareChart(results: readonly Comparison[], reference: string): string {
  const methods = [...new Set(results.map(({ method }) => method))]
  return chart({
    title: `Reward against Fréchet distance to ${reference}`,
    width: 720,
    height: 520,
    x: { label: `Fréchet distance to ${reference}` },
    y: { label: 'reward' },
    series: methods.map((method) => {
      const points = grouped(results.filter((result) => result.method === method))
        .map((group) => ({
          beta: (group[0] as Comparison).beta,
          distance: meanOf(
            group.map(({ references }) => references[reference]?.frechet ?? Number.NaN),
          ),
          reward: meanOf(group.map((result) => result.reward)),
        }))
        .sort((a, b) => a.reward - b.reward)
      return {
        label: method,
        kind: 'both' as const,
        points: points.map(({ distance, reward }) => [distance, reward] as const),
        names: points.map(
          ({ beta, distance, reward }) =>
            `${method}${beta === undefined ? '' : `, β = ${beta}`}: reward ${reward.toFixed(3)}, distance ${distance.toFixed(3)}`,
        ),
      }
    }),
  })
}
