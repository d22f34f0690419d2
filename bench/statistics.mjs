// @ts-check
// The statistics of turns: medians, spreads, which turns were disturbed, and paired ratios. Pure, so that they are tested.

/**
 * One contestant's turn.
 * @typedef {object} Turn
 * @property {number} seconds of one run
 * @property {number | undefined} foreign processors, on average, that other programs took during it; undefined where the
 *   system does not tell
 */

/**
 * @typedef {object} Summary
 * @property {number} median seconds
 * @property {number} spread the width of the middle half over the median
 * @property {number} low the 10th percentile, in seconds
 * @property {number} high the 90th
 * @property {number} turns that count
 * @property {number} disturbed turns that do not
 */

/**
 * Linear between the two nearest.
 * @param {readonly number[]} values
 * @param {number} q from 0 to 1
 */
export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (sorted.length - 1) * q
  const [low, high] = [sorted[Math.floor(at)] ?? NaN, sorted[Math.ceil(at)] ?? NaN]
  return low + (high - low) * (at - Math.floor(at))
}

/** @param {readonly number[]} values */
export function median(values) {
  return quantile(values, 0.5)
}

/** Processors' worth of foreign load above which a turn does not count. Below it are the ticks that accounts are kept in. */
const foreignLimit = 0.15

/**
 * How far above the median a turn is an outlier, in median absolute deviations; 1.4826 of them are a standard deviation
 * (of normal numbers), so that this is 5 of those.
 */
const deviationLimit = 5 * 1.4826

/** Turns that agree better than this are not outliers of one another. */
const leastDeviation = 0.01

/**
 * Which turns something else disturbed: those during which other programs ran, and those far slower than the rest. A turn
 * that is faster than the rest has not been disturbed.
 * @param {readonly Turn[]} turns
 * @returns {boolean[]}
 */
export function disturbed(turns) {
  const quiet = turns.filter(({ foreign }) => (foreign ?? 0) <= foreignLimit)
  const seconds = (quiet.length > 0 ? quiet : turns).map((turn) => turn.seconds)
  const middle = median(seconds)
  const deviation = median(seconds.map((value) => Math.abs(value - middle)))
  const limit = middle + deviationLimit * Math.max(deviation, leastDeviation * middle)
  return turns.map(({ seconds, foreign }) => (foreign ?? 0) > foreignLimit || seconds > limit)
}

/**
 * The turns that count: the undisturbed ones; where those are fewer than half of what was asked for, the least disturbed.
 * @param {readonly Turn[]} turns
 * @param {number} wanted
 * @returns {Turn[]} in the order of the turns
 */
export function counted(turns, wanted) {
  const bad = disturbed(turns)
  const good = turns.filter((_, i) => !bad[i])
  if (good.length >= wanted / 2) return good
  const byLoad = [...turns].sort((a, b) => (a.foreign ?? 0) - (b.foreign ?? 0))
  const kept = new Set(byLoad.slice(0, wanted))
  return turns.filter((turn) => kept.has(turn))
}

/**
 * @param {readonly Turn[]} turns
 * @param {number} wanted
 * @returns {Summary}
 */
export function summarize(turns, wanted) {
  const seconds = counted(turns, wanted).map((turn) => turn.seconds)
  const middle = median(seconds)
  return {
    median: middle,
    spread: (quantile(seconds, 0.75) - quantile(seconds, 0.25)) / middle,
    low: quantile(seconds, 0.1),
    high: quantile(seconds, 0.9),
    turns: seconds.length,
    disturbed: disturbed(turns).filter(Boolean).length,
  }
}

/**
 * The ratio of two contestants over their rounds: a slow moment of the machine that both met cancels.
 * @param {readonly number[]} seconds by round
 * @param {readonly number[]} base of the same rounds
 * @returns {{ ratio: number, low: number, high: number, rounds: number }} median, 10th and 90th percentile
 */
export function pairedRatio(seconds, base) {
  const ratios = seconds
    .slice(0, base.length)
    .map((value, round) => value / /** @type {number} */ (base[round]))
  return {
    ratio: median(ratios),
    low: quantile(ratios, 0.1),
    high: quantile(ratios, 0.9),
    rounds: ratios.length,
  }
}

/** With fewer rounds, all of them fall on one side of 1 by chance more than once in a hundred times. */
export const leastRounds = 8

/**
 * Whether a paired ratio says that something has changed: 1 is outside of what the rounds spread over, by more than
 * `least`.
 * @param {ReturnType<typeof pairedRatio>} paired
 * @param {number} [least] default 0.02
 * @returns {'slower' | 'faster' | 'same' | 'unsure'} unsure with too few rounds
 */
export function verdict({ ratio, low, high, rounds }, least = 0.02) {
  if (rounds < leastRounds) return 'unsure'
  if (low > 1 && ratio > 1 + least) return 'slower'
  if (high < 1 && ratio < 1 - least) return 'faster'
  return 'same'
}
