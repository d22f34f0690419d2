import { describe, expect, it } from 'vitest'
import { data, models } from '../../lib/index.js'

const { CaptionedImages, holdOutCombinations } = data

/** One image of 4 by 4 pixels with values 0, 1, 2, ... in each channel. */
function counting() {
  const pixels = Uint8Array.from({ length: 48 }, (_, i) => i % 16)
  return new CaptionedImages(4, ['numbers'], [pixels])
}

const level = (value: number) => Math.fround(value / 127.5 - 1)

describe('a batch', () => {
  it('is the images between -1 and 1', async () => {
    const values = await counting().batch([0, 0]).data()
    expect([...values]).toEqual(Array.from({ length: 96 }, (_, i) => level(i % 16)))
  })

  it('moves images by whole pixels, white coming in', async () => {
    for (const [dx, dy] of [
      [1, 0],
      [-2, 1],
      [3, -3],
      [0, 4],
      [9, -9],
    ] as const) {
      const moved = await counting()
        .batch([0], { placements: [{ dx, dy }] })
        .data()
      for (let y = 0; y < 4; y++)
        for (let x = 0; x < 4; x++) {
          const [u, v] = [x - dx, y - dy]
          const inside = u >= 0 && u < 4 && v >= 0 && v < 4
          expect(moved[16 + y * 4 + x]).toBe(inside ? level(v * 4 + u) : 1)
        }
    }
  })

  it('interpolates between pixels, and meets whole pixels where there are some', async () => {
    const batch = async (placement: data.Placement) => [
      ...(await counting()
        .batch([0], { placements: [placement] })
        .data()),
    ]
    const half = await batch({ dx: 0.5, dy: 0 })
    expect(half[5]).toBeCloseTo((level(4) + level(5)) / 2, 6)
    expect(half[4]).toBeCloseTo((1 + level(4)) / 2, 6)
    // A quarter turn clockwise: what was at the left of a row is at its top.
    const turned = await batch({ dx: 0, dy: 0, angle: Math.PI / 2 })
    for (let y = 0; y < 4; y++)
      for (let x = 0; x < 4; x++) expect(turned[y * 4 + x]).toBeCloseTo(level((3 - x) * 4 + y), 5)
    // Twice as large: output pixel x shows source (x - 1.5) / 2 + 1.5.
    const large = await batch({ dx: 0, dy: 0, zoom: 2 })
    expect(large[1]).toBeCloseTo(level(4 * 0.75 + 1.25), 5)
  })

  it('refuses indices outside, and pixels of another size', () => {
    expect(() => counting().batch([1])).toThrow('indices[0]: expected an integer from 0 to 0')
    expect(() => counting().batch([0], { placements: [] })).toThrow('expected 1, one per image')
    expect(() => new CaptionedImages(4, ['a'], [new Uint8Array(3)])).toThrow('expected 48 bytes')
    expect(() => new CaptionedImages(4, ['a'], [])).toThrow('expected 1 images, one per prompt')
    expect(counting().batch([]).shape).toEqual([0, 3, 4, 4])
  })
})

describe('holdOutCombinations', () => {
  const colours = ['red', 'green', 'blue', 'black', 'white']
  const things = ['heart', 'circle', 'flag', 'hand', 'face', 'sign', 'ball', 'cat']
  const prompts = colours.flatMap((colour) => things.map((thing) => `${colour} ${thing}`))

  it('takes a share, and leaves every word in some prompt', () => {
    const { kept, heldOut } = holdOutCombinations(prompts)
    expect(heldOut).toHaveLength(4)
    expect([...kept, ...heldOut].sort((a, b) => a - b)).toEqual(prompts.map((_, i) => i))
    const known = new Set(kept.flatMap((i) => models.wordsOf(prompts[i] as string)))
    for (const i of heldOut)
      for (const word of models.wordsOf(prompts[i] as string)) expect(known).toContain(word)
  })

  it('depends on the prompts alone, not on their order', () => {
    const chosen = (list: readonly string[]) =>
      holdOutCombinations(list)
        .heldOut.map((i) => list[i])
        .sort()
    expect(chosen(prompts.toReversed())).toEqual(chosen(prompts))
  })

  it('keeps images of one combination together, in any order of their words', () => {
    const twice = [...prompts, ...prompts.map((prompt) => prompt.split(' ').reverse().join(' '))]
    const { heldOut } = holdOutCombinations(twice)
    expect(heldOut).toHaveLength(8)
    const keys = heldOut.map((i) =>
      models
        .wordsOf(twice[i] as string)
        .sort()
        .join(' '),
    )
    expect(new Set(keys).size).toBe(4)
  })

  it('never takes single words, words that are nowhere else, or the last of a word', () => {
    expect(holdOutCombinations(['red', 'red heart', 'heart', 'new thing'], 1)).toEqual({
      kept: [0, 2, 3],
      heldOut: [1],
    })
    // Each could go if the others stayed; not all of them can.
    const { kept } = holdOutCombinations(['a b', 'b c', 'c a'], 1)
    expect(kept.length).toBeGreaterThanOrEqual(2)
    expect(holdOutCombinations([], 0.5)).toEqual({ kept: [], heldOut: [] })
    expect(holdOutCombinations(['one'])).toEqual({ kept: [0], heldOut: [] })
  })
})
