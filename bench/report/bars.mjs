// @ts-check
// What the package is meant to reach, beside what was measured. Pure, so that it is tested.
import { loopName, ownName, ratioTo } from './peers-table.mjs'
import { ceilingFamily, digits, nanosecondsPerElement, speedup, table, time } from './rows.mjs'

/** @typedef {import('./rows.mjs').Row} Row */
/** @typedef {import('./peers-table.mjs').PeerRow} PeerRow */

/**
 * @typedef {object} Bar
 * @property {string} name
 * @property {'nanosecondsPerElement' | 'seconds' | 'ratio' | 'timesFaster' | 'speedup'} measure the first two and `speedup`
 *   are of `npm run bench`, the other two of `npm run bench:peers`: our time over the peer's, and the other way round
 * @property {string} [case] of the first two
 * @property {string} [task] of the ratios
 * @property {string} [peer] of the ratios
 * @property {string} [label] the size of the first two
 * @property {string} [dtype] of the first two
 * @property {number} [threads] default: all that were measured, of which the worst counts
 * @property {number} [elementsAbove] `speedup` is of everything larger than this, and of training steps
 * @property {number} [most] at most this is a pass
 * @property {number} [least] at least this is a pass; with neither the number is shown alone
 * @property {string} source where the number comes from
 */

/**
 * @typedef {object} Judged
 * @property {Bar} bar
 * @property {number | undefined} measured the worst
 * @property {string} at where the worst is
 * @property {'pass' | 'miss' | 'not measured' | 'no bar'} verdict
 * @property {string[]} missed each one that misses, for bars over many
 */

/**
 * @param {Bar} bar
 * @param {{ ops: readonly Row[], peers: readonly PeerRow[] }} results
 * @returns {Judged}
 */
export function judge(bar, results) {
  const found = measured(bar, results)
  const { most, least } = bar
  const isMissed = (/** @type {number} */ value) =>
    (most !== undefined && !(value <= most)) || (least !== undefined && !(value >= least))
  // Without a bar, small numbers are good.
  const sign = least === undefined ? 1 : -1
  const worst = [...found].sort((a, b) => sign * (b.value - a.value))[0]
  const missed = found.filter(({ value }) => isMissed(value))
  return {
    bar,
    measured: worst?.value,
    at: worst?.at ?? '',
    verdict:
      worst === undefined
        ? 'not measured'
        : most === undefined && least === undefined
          ? 'no bar'
          : missed.length > 0
            ? 'miss'
            : 'pass',
    missed: missed.map(({ at, value }) => `${at}: ${digits(value)}`),
  }
}

/**
 * @param {Bar} bar
 * @param {{ ops: readonly Row[], peers: readonly PeerRow[] }} results
 * @returns {{ value: number, at: string }[]}
 */
function measured(bar, { ops, peers }) {
  const threadsOf = (/** @type {{ threads: number }} */ row) =>
    bar.threads === undefined || row.threads === bar.threads
  const threads = (/** @type {number} */ count) => `${count} ${count === 1 ? 'thread' : 'threads'}`
  const own = ops.filter((row) => row.family !== ceilingFamily && threadsOf(row))
  switch (bar.measure) {
    case 'nanosecondsPerElement':
    case 'seconds':
      return own
        .filter((row) => row.case === bar.case && (bar.dtype ?? row.dtype) === row.dtype)
        .filter((row) => (bar.label ?? row.label) === row.label)
        .map((row) => ({
          value: bar.measure === 'seconds' ? row.median : nanosecondsPerElement(row),
          at: threads(row.threads),
        }))
    case 'ratio':
    case 'timesFaster':
      return peers
        .filter((row) => row.task === bar.task && threadsOf(row))
        .flatMap((row) => {
          const ratio = ratioTo(row, bar.peer ?? loopName)
          if (ratio === undefined) return []
          const value = bar.measure === 'ratio' ? ratio : 1 / ratio
          return [{ value, at: threads(row.threads) }]
        })
    case 'speedup':
      return [...own.filter((row) => isLarge(row, bar)), ...steps(peers)].flatMap((row) => {
        if (row.threads === 1) return []
        const all = row.family === peerFamily ? steps(peers) : ops
        const value = speedup(all, row)
        return value === undefined
          ? []
          : [{ value, at: `${row.case} ${row.dtype} ${row.label}, ${threads(row.threads)}` }]
      })
  }
}

/**
 * @param {Row} row
 * @param {Bar} bar
 */
function isLarge({ bound, elements }, { elementsAbove = 0 }) {
  return bound === 'step' || (bound !== 'call' && elements > elementsAbove)
}

/** The family of what was timed beside peers. */
const peerFamily = 'peers'

/**
 * The package's own training steps of a run beside peers, as rows.
 * @param {readonly PeerRow[]} peers
 * @returns {Row[]}
 */
function steps(peers) {
  return peers.flatMap(({ task, threads, training, contestants }) => {
    const own = contestants[ownName]
    if (!training || own === undefined) return []
    return [
      {
        ...{ case: task, family: peerFamily, dtype: 'float32', label: 'beside peers', size: 1 },
        ...{ unit: 'steps', threads, bound: 'step', elements: 1, bytes: 0, flops: 0 },
        ...{ median: own.median, spread: own.spread, low: own.median, high: own.median },
        ...{ turns: 1, disturbed: own.disturbed },
      },
    ]
  })
}

/** @param {readonly Judged[]} judged */
export function barsTable(judged) {
  return table(
    ['bar', 'asked for', 'measured', 'where', 'verdict', 'source'],
    judged.map(({ bar, measured: value, at, verdict, missed }) => {
      const shown = (/** @type {number} */ number) => {
        if (bar.measure === 'seconds') return time(number)
        return `${digits(number)}${bar.measure === 'nanosecondsPerElement' ? ' ns' : bar.measure === 'ratio' ? '' : 'x'}`
      }
      const asked = [
        bar.most === undefined ? undefined : `≤ ${shown(bar.most)}`,
        bar.least === undefined ? undefined : `≥ ${shown(bar.least)}`,
      ]
      return [
        bar.name,
        asked.filter((text) => text !== undefined).join(', '),
        value === undefined ? undefined : shown(value),
        missed.length > 1 ? missed.join('; ') : at,
        verdict,
        bar.source,
      ]
    }),
  )
}
