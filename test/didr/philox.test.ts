import { describe, expect, it } from 'vitest'
import { hostUniform, RandomStream } from '../../lib/didr/philox.js'
import { uniform } from '../../lib/index.js'

describe('hostUniform', () => {
  it.each([
    [0, 0],
    [1, 0],
    [0, 1],
    [42, 7],
    [2 ** 31, 2 ** 31],
    [2 ** 32 - 1, 2 ** 32 - 1],
    [2 ** 32, 2 ** 32],
    [2 ** 32 + 5, 3 * 2 ** 33 + 11],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    [0xdeadbeefcafe, 0x1234567890ab],
  ])('gives the bits of uniform for seed %d and offset %d', async (seed, offset) => {
    for (const count of [0, 1, 2, 3, 4, 5, 63, 1001]) {
      using drawn = uniform([count], { seed, offset })
      expect([...hostUniform(count, seed, offset)]).toEqual([...(await drawn.data())])
    }
  })

  it('goes on past blocks whose number has 16 bits', async () => {
    const count = 4 * 2 ** 16 + 9
    using drawn = uniform([count], { seed: 3, offset: 2 ** 40 })
    const expected = Buffer.from((await drawn.data()).buffer)
    expect(expected.equals(Buffer.from(hostUniform(count, 3, 2 ** 40).buffer))).toBe(true)
  })
})

describe('RandomStream', () => {
  it('gives every draw an offset of its own, and pairs two that nobody else has', () => {
    const random = new RandomStream(5, 2 ** 33)
    const taken: number[] = []
    for (const pair of [false, true, false, false, true, true, false, true]) {
      if (!pair) {
        const { seed, offset } = random.next()
        expect(seed).toBe(5)
        taken.push(offset)
        continue
      }
      const { seed, offset } = random.nextPair()
      expect(seed).toBe(5)
      taken.push(2 * offset, 2 * offset + 1)
    }
    expect(new Set(taken).size).toBe(taken.length)
    expect(Math.min(...taken)).toBe(2 ** 33)
    expect(random.offset).toBeGreaterThan(Math.max(...taken))
  })
})
