// @ts-check
// Tables of the package beside its peers. Pure, so that it is tested.
import { digits, percent, table, time } from './rows.mjs'

/**
 * A task at one number of threads.
 * @typedef {object} PeerRow
 * @property {string} task
 * @property {number} size
 * @property {number} threads
 * @property {boolean} training
 * @property {Record<string, number>} errors of the peers, relative
 * @property {Record<string, { median: number, spread: number, disturbed: number }>} contestants by name
 */

/** The package's own name among the contestants, and that of the plain loops. */
export const ownName = 'didr'
export const loopName = 'C'

/**
 * Ours over theirs: below 1 the package is faster.
 * @param {PeerRow} row
 * @param {string} name
 * @returns {number | undefined} undefined where it was not there
 */
export function ratioTo({ contestants }, name) {
  const [ours, theirs] = [contestants[ownName], contestants[name]]
  return ours === undefined || theirs === undefined ? undefined : ours.median / theirs.median
}

/**
 * The peers of some rows, in the order in which they come.
 * @param {readonly PeerRow[]} rows
 */
function peersOf(rows) {
  const names = new Set(rows.flatMap(({ contestants }) => Object.keys(contestants)))
  return [...names].filter((name) => name !== ownName && name !== loopName)
}

/** @param {PeerRow} row */
const spreadOf = ({ contestants }) => percent(contestants[ownName]?.spread)

const products = ['matmul']

/**
 * Time per element, or of a product; beside C as a ratio of times, beside the peers as how many times faster.
 * @param {readonly PeerRow[]} rows
 */
export function kernelPeersTable(rows) {
  const peers = peersOf(rows)
  const per = (/** @type {PeerRow} */ row, /** @type {number} */ seconds) =>
    products.includes(row.task)
      ? `${digits((2 * row.size ** 3) / seconds / 1e9)} GFLOP/s`
      : `${digits((seconds / row.size) * 1e9)} ns`
  return table(
    [
      'op',
      'threads',
      'didr',
      'spread',
      'plain C, the same bytes',
      'ratio of times',
      ...peers.map((peer) => `${peer} (times slower)`),
    ],
    rows.map((row) => {
      const [ours, loop] = [row.contestants[ownName], row.contestants[loopName]]
      return [
        row.task,
        String(row.threads),
        ours && per(row, ours.median),
        spreadOf(row),
        loop && per(row, loop.median),
        ratioTo(row, loopName)?.toFixed(2),
        ...peers.map((peer) => {
          const [ratio, theirs] = [ratioTo(row, peer), row.contestants[peer]]
          if (ratio === undefined || theirs === undefined) return undefined
          return `${per(row, theirs.median)} (${digits(1 / ratio)})`
        }),
      ]
    }),
  )
}

/**
 * Time of a step, and ours over each peer's.
 * @param {readonly PeerRow[]} rows
 */
export function trainingPeersTable(rows) {
  const peers = peersOf(rows)
  return table(
    ['step', 'threads', 'didr', 'spread', ...peers.map((peer) => `${peer} (ratio)`)],
    rows.map((row) => [
      row.task,
      String(row.threads),
      row.contestants[ownName] && time(row.contestants[ownName].median),
      spreadOf(row),
      ...peers.map((peer) => {
        const [ratio, theirs] = [ratioTo(row, peer), row.contestants[peer]]
        if (ratio === undefined || theirs === undefined) return undefined
        return `${time(theirs.median)} (${ratio.toFixed(2)})`
      }),
    ]),
  )
}
