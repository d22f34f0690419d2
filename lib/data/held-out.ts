import { createHash } from 'node:crypto'
import { wordsOf } from '../models/caption-encoder.js'

/** Which images are for training and which for asking whether known words work in new combinations; indices. */
export interface Split {
  kept: number[]
  heldOut: number[]
}

/**
 * Holds out combinations of words. A combination is the set of a prompt's words, two or more; images whose prompts are
 * one combination go together. Held out is a share of those combinations all of whose words occur in other kept prompts
 * too, taken in the order of a hash, so that the choice depends on the prompts alone.
 *
 * @param share how many of the combinations that could be held out one by one are, rounded to the nearest. Default 0.1.
 */
export function holdOutCombinations(prompts: readonly string[], share = 0.1): Split {
  const combinations = new Map<string, number[]>()
  for (const [i, prompt] of prompts.entries()) {
    const key = [...new Set(wordsOf(prompt))].sort().join(' ')
    const members = combinations.get(key)
    if (members === undefined) combinations.set(key, [i])
    else members.push(i)
  }
  // In how many kept combinations each word is.
  const uses = new Map<string, number>()
  for (const key of combinations.keys())
    for (const word of key.split(' ')) uses.set(word, (uses.get(word) ?? 0) + 1)
  const spare = (words: readonly string[]) =>
    words.length >= 2 && words.every((word) => (uses.get(word) as number) >= 2)

  const candidates = [...combinations.keys()]
    .filter((key) => spare(key.split(' ')))
    .map((key) => ({ key, hash: createHash('sha256').update(key).digest('hex') }))
    .sort((a, b) => (a.hash < b.hash ? -1 : 1))
  const wanted = Math.round(share * candidates.length)
  const heldOut = new Set<number>()
  let count = 0
  for (const { key } of candidates) {
    if (count === wanted) break
    const words = key.split(' ')
    if (!spare(words)) continue
    for (const word of words) uses.set(word, (uses.get(word) as number) - 1)
    for (const i of combinations.get(key) as number[]) heldOut.add(i)
    count++
  }
  const indices = prompts.map((_, i) => i)
  return {
    kept: indices.filter((i) => !heldOut.has(i)),
    heldOut: indices.filter((i) => heldOut.has(i)),
  }
}
