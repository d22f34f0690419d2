import { describe, expect, it } from 'vitest'
import { train } from '../../lib/index.js'

const { seedsFrom, ShuffledBatches } = train

describe('seeds', () => {
  it('are different for each seed and place', () => {
    const all = [1, 2, 3].flatMap((seed) => Object.values(seedsFrom(seed, ['a', 'b', 'c'])))
    expect(new Set(all).size).toBe(9)
    expect(() => seedsFrom(-1, ['a'])).toThrow('seed: expected an integer from 0')
    expect(() => seedsFrom(1, Array.from({ length: 65 }, String))).toThrow('expected at most 64')
  })
})

describe('shuffled batches', () => {
  it('visit each index once an epoch, in another order each time', () => {
    for (const [count, batchSize] of [
      [10, 3],
      [7, 7],
      [3, 8],
      [1, 2],
      [100, 1],
    ] as const) {
      const batches = new ShuffledBatches(count, batchSize, { seed: 1 })
      const epochs = 6
      const steps = Math.ceil((epochs * count) / batchSize)
      const visited = Array.from({ length: steps }, (_, step) => batches.at(step)).flat()
      const orders = Array.from({ length: epochs }, (_, epoch) =>
        visited.slice(epoch * count, (epoch + 1) * count),
      )
      for (const order of orders)
        expect(order.toSorted((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i))
      if (count > 3) expect(new Set(orders.map(String)).size).toBe(epochs)
    }
  })

  it('are the same from wherever one starts', () => {
    const all = new ShuffledBatches(11, 4, { seed: 5 })
    const first = Array.from({ length: 20 }, (_, step) => all.at(step))
    for (const step of [19, 3, 12, 0])
      expect(new ShuffledBatches(11, 4, { seed: 5 }).at(step)).toEqual(first[step])
    expect(all.at(2)).toEqual(first[2])
    expect(new ShuffledBatches(11, 4, { seed: 6 }).at(0)).not.toEqual(first[0])
  })

  it('put every index in every place about equally often', () => {
    const batches = new ShuffledBatches(5, 5, { seed: 2 })
    const counts = Array.from({ length: 5 }, () => new Array<number>(5).fill(0))
    const epochs = 4000
    for (let epoch = 0; epoch < epochs; epoch++)
      for (const [place, index] of batches.at(epoch).entries())
        (counts[place] as number[])[index] = ((counts[place] as number[])[index] as number) + 1
    // Five standard deviations of a binomial count.
    const deviation = Math.sqrt(epochs * 0.2 * 0.8)
    for (const row of counts)
      for (const count of row) expect(Math.abs(count - epochs / 5)).toBeLessThan(5 * deviation)
  })
})
