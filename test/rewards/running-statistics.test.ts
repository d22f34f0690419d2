import { expect, test } from 'vitest'
import { RunningStatistics } from '../../lib/rewards/running-statistics.js'
import { generator } from '../reference.js'

const draw = generator(11)

test('batches of any size give the moments of all numbers', () => {
  for (const offset of [0, 3, -1000]) {
    const statistics = new RunningStatistics()
    const all: number[] = []
    for (const size of [3, 1, 0, 64, 7, 1]) {
      const batch = Float32Array.from({ length: size }, () => offset + 4 * draw())
      statistics.add(batch)
      all.push(...batch)
    }
    const mean = all.reduce((a, b) => a + b) / all.length
    const variance = all.reduce((sum, x) => sum + (x - mean) ** 2, 0) / all.length
    expect(statistics.count).toBe(all.length)
    expect(Math.abs(statistics.mean - mean)).toBeLessThan(1e-13 * (1 + Math.abs(mean)))
    expect(Math.abs(statistics.std - Math.sqrt(variance))).toBeLessThan(1e-12)
  }
})

test('no numbers, one number, equal numbers', () => {
  const statistics = new RunningStatistics()
  expect([statistics.count, statistics.mean, statistics.std]).toEqual([0, 0, 0])
  statistics.add(Float32Array.of(5))
  expect([statistics.count, statistics.mean, statistics.std]).toEqual([1, 5, 0])
  statistics.add(Float32Array.of(5, 5))
  expect([statistics.count, statistics.mean, statistics.std]).toEqual([3, 5, 0])
})

test('goes on from its state, through JSON, with the same bits', () => {
  const [a, b] = [new RunningStatistics(), new RunningStatistics()]
  const batch = () => Float32Array.from({ length: 5 }, () => draw() - 0.3)
  a.add(batch())
  a.add(batch())
  b.load(JSON.parse(JSON.stringify(a.state())))
  const next = batch()
  a.add(next)
  b.add(next)
  expect(b.state()).toEqual(a.state())
})
