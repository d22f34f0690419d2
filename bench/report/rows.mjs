// @ts-check
// Rates and ratios of what was timed, and tables of them. Pure, so that it is tested.

/**
 * One thing timed.
 * @typedef {object} Row
 * @property {string} case
 * @property {string} family
 * @property {string} dtype
 * @property {string} label of the size, as it was asked for
 * @property {number} size
 * @property {string} unit of the size
 * @property {number} threads
 * @property {string} bound `memory`, `compute`, `call` or `step`
 * @property {number} elements
 * @property {number} bytes that the contract asks to move at least
 * @property {number} flops
 * @property {number} median seconds
 * @property {number} spread
 * @property {number} low
 * @property {number} high
 * @property {number} turns
 * @property {number} disturbed
 */

/** The family of the machine's own limits. */
export const ceilingFamily = 'ceiling'

/** @param {Row} row */
export function gigabytesPerSecond({ bytes, median }) {
  return bytes / median / 1e9
}

/** @param {Row} row */
export function gigaflops({ flops, median }) {
  return flops / median / 1e9
}

/** @param {Row} row */
export function nanosecondsPerElement({ elements, median }) {
  return (median * 1e9) / elements
}

/**
 * The highest rate that plain C reached with as many threads: streaming at the same size, or of a matrix product.
 * @param {readonly Row[]} rows
 * @param {Row} row
 * @returns {number | undefined} in the unit that the row's bound is in
 */
export function ceilingOf(rows, { bound, label, threads }) {
  if (bound !== 'memory' && bound !== 'compute') return undefined
  const rate = bound === 'memory' ? gigabytesPerSecond : gigaflops
  const rates = rows
    .filter((other) => other.family === ceilingFamily && other.bound === bound)
    .filter((other) => other.threads === threads && (bound === 'compute' || other.label === label))
    .map(rate)
  return rates.length === 0 ? undefined : Math.max(...rates)
}

/**
 * From 0 to 1, or above where the package does better than the loop.
 * @param {readonly Row[]} rows
 * @param {Row} row
 */
export function fractionOfCeiling(rows, row) {
  const ceiling = ceilingOf(rows, row)
  if (ceiling === undefined) return undefined
  return (row.bound === 'memory' ? gigabytesPerSecond(row) : gigaflops(row)) / ceiling
}

/**
 * How much faster more threads are than one.
 * @param {readonly Row[]} rows
 * @param {Row} row
 */
export function speedup(rows, row) {
  const single = rows.find(
    (other) =>
      other.threads === 1 &&
      ['case', 'dtype', 'label', 'size'].every(
        (field) =>
          other[/** @type {keyof Row} */ (field)] === row[/** @type {keyof Row} */ (field)],
      ),
  )
  return single === undefined ? undefined : single.median / row.median
}

/**
 * Markdown.
 * @param {readonly string[]} titles
 * @param {readonly (readonly (string | undefined)[])[]} lines
 */
export function table(titles, lines) {
  const line = (/** @type {readonly (string | undefined)[]} */ cells) =>
    `| ${cells.map((cell) => cell ?? '').join(' | ')} |`
  return [line(titles), `|${'---|'.repeat(titles.length)}`, ...lines.map(line)].join('\n')
}

/**
 * A time with three digits that count and a unit.
 * @param {number} seconds
 */
export function time(seconds) {
  const units = /** @type {const} */ ([
    [1, 's'],
    [1e-3, 'ms'],
    [1e-6, 'µs'],
    [1e-9, 'ns'],
  ])
  const [scale, unit] = units.find(([scale]) => seconds >= scale) ?? [1e-9, 'ns']
  return `${digits(seconds / scale)} ${unit}`
}

/**
 * Three digits that count, never with an exponent.
 * @param {number} value
 */
export function digits(value) {
  if (!Number.isFinite(value)) return String(value)
  const before = value === 0 ? 1 : Math.floor(Math.log10(Math.abs(value))) + 1
  return value.toFixed(Math.min(Math.max(3 - before, 0), 6))
}

/** @param {number | undefined} fraction */
export function percent(fraction) {
  return fraction === undefined ? undefined : `${Math.round(100 * fraction)}%`
}

/** @param {Row} row */
const sizeOf = ({ label, size, unit }) =>
  unit === 'elements' && label !== String(size) ? label : `${size} ${unit}`

/**
 * A line for each row: time, per element, rates, percentage of the ceiling, spread.
 * @param {readonly Row[]} rows
 */
export function opsTable(rows) {
  return table(
    [
      'op',
      'dtype',
      'size',
      'threads',
      'time',
      'ns/element',
      'GB/s',
      'GFLOP/s',
      '% of ceiling',
      'spread',
      'turns',
    ],
    rows.map((row) => {
      const works = row.bound === 'memory' || row.bound === 'compute'
      return [
        row.case,
        row.dtype,
        sizeOf(row),
        String(row.threads),
        time(row.median),
        works ? digits(nanosecondsPerElement(row)) : undefined,
        works && row.bytes > 0 ? digits(gigabytesPerSecond(row)) : undefined,
        works && row.flops > 0 ? digits(gigaflops(row)) : undefined,
        row.family === ceilingFamily ? 'ceiling' : percent(fractionOfCeiling(rows, row)),
        percent(row.spread),
        row.disturbed > 0 ? `${row.turns} (${row.disturbed} disturbed)` : String(row.turns),
      ]
    }),
  )
}

/**
 * Sizes across, threads below: nanoseconds per element (or the time of what has no elements) and the gain over one thread.
 * @param {readonly Row[]} rows
 */
export function scalingTable(rows) {
  const labels = [...new Set(rows.map(({ label }) => label))]
  const kinds = [...new Set(rows.map((row) => `${row.case} ${row.dtype} ${row.threads}`))]
  const lines = kinds.map((kind) => {
    const own = rows.filter((row) => `${row.case} ${row.dtype} ${row.threads}` === kind)
    const cells = labels.map((label) => {
      const row = own.find((other) => other.label === label)
      if (row === undefined) return undefined
      const shown =
        row.bound === 'step' || row.bound === 'call'
          ? time(row.median)
          : `${digits(nanosecondsPerElement(row))} ns`
      const gain = row.threads === 1 ? undefined : speedup(rows, row)
      return gain === undefined ? shown : `${shown}, ${gain.toFixed(2)}x`
    })
    return [...kind.split(' '), ...cells]
  })
  return table(['op', 'dtype', 'threads', ...labels], lines)
}
