import { describe, expect, it } from 'vitest'
import {
  counted,
  disturbed,
  leastRounds,
  median,
  pairedRatio,
  quantile,
  summarize,
  verdict,
} from '../../bench/statistics.mjs'

const quiet = (...seconds: number[]) => seconds.map((value) => ({ seconds: value, foreign: 0 }))

describe('quantile', () => {
  it('is linear between the two nearest, whatever the order', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([4, 1, 2, 3])).toBe(2.5)
    expect(quantile([10, 0], 0.25)).toBe(2.5)
    expect(quantile([7], 0.9)).toBe(7)
  })

  it('leaves its argument as it is, and has nothing to say of nothing', () => {
    const values = [3, 1, 2]
    quantile(values, 0.5)
    expect(values).toEqual([3, 1, 2])
    expect(median([])).toBeNaN()
  })
})

describe('disturbed turns', () => {
  it('are those during which others ran', () => {
    const turns = [
      { seconds: 1, foreign: 0 },
      { seconds: 1, foreign: 0.5 },
      { seconds: 1, foreign: undefined },
    ]
    expect(disturbed(turns)).toEqual([false, true, false])
  })

  it('are those far slower than the rest, not those that are faster', () => {
    expect(disturbed(quiet(1, 1.01, 0.99, 1, 1.5, 0.5))).toEqual([
      ...[false, false, false, false, true, false],
    ])
  })

  it('are not those of a contestant that varies', () => {
    expect(disturbed(quiet(1, 1.2, 0.8, 1.4, 0.9, 1.3))).not.toContain(true)
  })

  it('are not told by differences of less than a hundredth', () => {
    expect(disturbed(quiet(1, 1, 1, 1, 1.02))).not.toContain(true)
  })

  it('are measured against the quiet ones, however few', () => {
    const turns = [
      ...quiet(1, 1.01),
      ...[3, 3.1, 3.2, 3.3].map((seconds) => ({ seconds, foreign: 1 })),
    ]
    expect(disturbed(turns)).toEqual([false, false, true, true, true, true])
    expect(disturbed([])).toEqual([])
  })
})

describe('summarize', () => {
  it('leaves disturbed turns out and counts them', () => {
    const turns = [...quiet(1, 1.02, 0.98, 1), { seconds: 1.01, foreign: 1 }, ...quiet(9)]
    const { median: middle, turns: kept, disturbed: bad, high } = summarize(turns, 4)
    expect([middle, kept, bad]).toEqual([1, 4, 2])
    expect(high).toBeLessThan(1.03)
  })

  it('has the middle half over the median as the spread', () => {
    expect(summarize(quiet(1, 1, 1), 3).spread).toBe(0)
    expect(summarize(quiet(1, 2, 3, 4, 5), 5).spread).toBeCloseTo(2 / 3, 12)
  })

  it('takes the least disturbed where nearly all are', () => {
    const turns = [0.9, 0.2, 0.5, 0.3].map((foreign, i) => ({ seconds: i + 1, foreign }))
    expect(counted(turns, 2).map(({ seconds }) => seconds)).toEqual([2, 4])
    expect(summarize(turns, 2)).toMatchObject({ median: 3, turns: 2, disturbed: 4 })
  })
})

describe('verdict', () => {
  const base = Array.from({ length: 11 }, (_, i) => 1 + 0.5 * Math.sin(i))

  it('sees a small change through slow moments that both met', () => {
    const slower = base.map((value, i) => value * (1.05 + 0.01 * Math.cos(3 * i)))
    expect(verdict(pairedRatio(slower, base))).toBe('slower')
    expect(verdict(pairedRatio(base, slower))).toBe('faster')
    expect(pairedRatio(slower, base).ratio).toBeCloseTo(1.05, 1)
  })

  it('calls noise, and changes of less than a fiftieth, none', () => {
    const noisy = base.map((value, i) => value * (1.05 + 0.2 * Math.cos(3 * i)))
    expect(verdict(pairedRatio(noisy, base))).toBe('same')
    const hardly = base.map((value) => value * 1.015)
    expect(verdict(pairedRatio(hardly, base))).toBe('same')
    expect(verdict(pairedRatio(hardly, base), 0.01)).toBe('slower')
  })

  it('is unsure with few rounds', () => {
    const few = base.slice(0, leastRounds - 1)
    const double = few.map((value) => 2 * value)
    expect(verdict(pairedRatio(double, few))).toBe('unsure')
  })

  it('pairs as many rounds as both have', () => {
    expect(pairedRatio([2, 4, 99], [1, 1])).toMatchObject({ ratio: 3, rounds: 2 })
  })
})
