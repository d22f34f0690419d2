// @ts-check
// What the commands are told: sizes, lists, and which cases. Pure, so that it is tested.

const powers = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }

/**
 * A size as it is written: `65536`, `64K`, `16M` (powers of 1024), or `10x`, that many times the last-level cache, which
 * is a size in elements for each case by what it moves.
 * @typedef {{ label: string, elements: number } | { label: string, caches: number }} Size
 */

/**
 * @param {string} text
 * @returns {Size}
 */
export function parseSize(text) {
  const [, digits, suffix] = /^(\d+)([KMGx]?)$/.exec(text) ?? []
  const number = Number(digits)
  if (suffix === undefined || !(number > 0))
    throw new Error(`--size: expected sizes such as 64K, 16M or 10x, got ${text}`)
  return suffix === 'x'
    ? { label: text, caches: number }
    : { label: text, elements: number * powers[/** @type {keyof typeof powers} */ (suffix)] }
}

/** Sizes that do not stand for themselves are rounded down to this: batches and rows divide it. */
const grain = 2 ** 16

/**
 * How many elements a size is for something that moves so many bytes for each.
 * @param {Size} size
 * @param {{ bytesPerElement: number, cacheBytes: number, memoryBytes: number }} machine `memoryBytes` may be taken
 */
export function elementsOf(size, { bytesPerElement, cacheBytes, memoryBytes }) {
  if ('elements' in size) return size.elements
  const bytes = Math.min(size.caches * cacheBytes, memoryBytes)
  return Math.max(Math.floor(bytes / bytesPerElement / grain), 1) * grain
}

/**
 * @template T
 * @param {string} name of the option
 * @param {string} text separated by commas
 * @param {(item: string) => T} parse
 * @returns {T[]}
 */
export function parseList(name, text, parse) {
  const items = text.split(',').filter((item) => item !== '')
  if (items.length === 0) throw new Error(`--${name}: expected a list, got ${JSON.stringify(text)}`)
  return items.map(parse)
}

/**
 * A whole number from `least` on.
 * @param {string} name of the option
 * @param {string} text
 * @param {number} [least]
 */
export function parseCount(name, text, least = 1) {
  const count = Number(text)
  if (!Number.isInteger(count) || count < least)
    throw new Error(`--${name}: expected a whole number from ${least} on, got ${text}`)
  return count
}

/**
 * Cases whose name or family has the text in it, letter case aside; several texts are separated by commas.
 * @template {{ name: string, family: string }} T
 * @param {readonly T[]} cases
 * @param {string | undefined} filter undefined: all
 * @returns {T[]}
 */
export function chosen(cases, filter) {
  if (filter === undefined) return [...cases]
  const texts = parseList('filter', filter, (text) => text.toLowerCase())
  const found = cases.filter(({ name, family }) =>
    texts.some((text) => name.toLowerCase().includes(text) || family.toLowerCase() === text),
  )
  if (found.length === 0)
    throw new Error(
      `--filter: nothing has ${filter} in its name; there are ${cases.map(({ name }) => name).join(', ')}`,
    )
  return found
}
