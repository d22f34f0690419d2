// @ts-check
// The roofline (Williams, Waterman and Patterson, 2009): what rate of arithmetic an op can have, by how much arithmetic
// there is to a byte, and what rates were measured.
import { ceilingFamily, gigabytesPerSecond, gigaflops } from './rows.mjs'

/** @typedef {import('./rows.mjs').Row} Row */

/**
 * The highest rates of the machine's own loops with so many threads.
 * @param {readonly Row[]} rows
 * @param {number} threads
 */
export function roofOf(rows, threads) {
  const own = rows.filter((row) => row.family === ceilingFamily && row.threads === threads)
  const best = (/** @type {string} */ bound, /** @type {(row: Row) => number} */ rate) =>
    Math.max(0, ...own.filter((row) => row.bound === bound).map(rate))
  return { bandwidth: best('memory', gigabytesPerSecond), arithmetic: best('compute', gigaflops) }
}

/**
 * What a chart of lib/plot/chart.ts is made of, for the float32 rows of one size at the most threads. Ops without
 * arithmetic have no place on it.
 * @param {readonly Row[]} rows
 * @param {string} label of the size of the ops that stream; the roof is measured at that size, too
 */
export function rooflineChart(rows, label) {
  const atSize = rows.filter((row) => row.bound === 'compute' || row.label === label)
  const threads = Math.max(...rows.map((row) => row.threads))
  const shown = atSize.filter(
    (row) =>
      row.threads === threads &&
      row.dtype === 'float32' &&
      row.family !== ceilingFamily &&
      row.flops > 0 &&
      row.bytes > 0 &&
      (row.bound === 'memory' || row.bound === 'compute'),
  )
  const { bandwidth, arithmetic } = roofOf(atSize, threads)
  const point = (/** @type {Row} */ row) =>
    /** @type {const} */ ([row.flops / row.bytes, gigaflops(row)])
  const intensities = shown.map((row) => point(row)[0])
  const [least, most] = [Math.min(0.05, ...intensities), Math.max(100, ...intensities)]
  // Where the two limits meet; without a matrix product in the run there is no flat part.
  const ridge = arithmetic > 0 && bandwidth > 0 ? arithmetic / bandwidth : Infinity
  const roof = [least, Math.min(ridge, most), most]
    .filter((x, i, all) => i === 0 || x > /** @type {number} */ (all[i - 1]))
    .map((x) => /** @type {const} */ ([x, Math.min(x * bandwidth, arithmetic || Infinity)]))
  const families = [...new Set(shown.map(({ family }) => family))]
  return {
    title: `Roofline, ${threads} ${threads === 1 ? 'thread' : 'threads'}, float32, ${label} elements`,
    x: { label: 'operations per byte of least traffic', log: true },
    y: { label: 'GFLOP/s', log: true },
    series: [
      {
        label: `plain C: ${bandwidth.toFixed(0)} GB/s${arithmetic > 0 ? `, BLAS ${arithmetic.toFixed(0)} GFLOP/s` : ''}`,
        points: roof,
      },
      ...families.map((family) => ({
        label: family,
        kind: /** @type {const} */ ('points'),
        points: shown.filter((row) => row.family === family).map(point),
      })),
    ],
    width: 720,
  }
}
