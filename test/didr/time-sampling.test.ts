import { describe, expect, it } from 'vitest'
import { RandomStream } from '../../lib/didr/philox.js'
import { drawTimes, resolveTimeSampling } from '../../lib/didr/time-sampling.js'
import { type Schedule, schedules, type TimeSampling } from '../../lib/index.js'

const count = 40_000

function draw(sampling: TimeSampling, schedule: Schedule = schedules.flow(), seed = 1) {
  return drawTimes(
    count,
    resolveTimeSampling('times', sampling, schedule),
    schedule,
    new RandomStream(seed),
  )
}

function momentsOf(values: ArrayLike<number>) {
  let [sum, squares] = [0, 0]
  for (let i = 0; i < values.length; i++) sum += values[i] as number
  const mean = sum / values.length
  for (let i = 0; i < values.length; i++) squares += ((values[i] as number) - mean) ** 2
  return { mean, variance: squares / values.length }
}

/** Within five standard errors of the mean and some 3% of the variance. */
function expectMoments(values: ArrayLike<number>, mean: number, variance: number) {
  const found = momentsOf(values)
  expect(Math.abs(found.mean - mean)).toBeLessThan(5 * Math.sqrt(variance / values.length))
  expect(Math.abs(found.variance / variance - 1)).toBeLessThan(0.03)
}

describe('drawTimes', () => {
  it.each([
    [undefined, 0.02, 0.98],
    [[0, 1], 0, 1],
    [[0.2, 0.3], 0.2, 0.3],
  ] as const)('uniform in %j', (range, low, high) => {
    const t = draw(range === undefined ? { kind: 'uniform' } : { kind: 'uniform', range })
    expect(Math.min(...t)).toBeGreaterThanOrEqual(Math.fround(low))
    expect(Math.max(...t)).toBeLessThanOrEqual(Math.fround(high))
    expectMoments(t, (low + high) / 2, (high - low) ** 2 / 12)
  })

  it.each([
    [{ kind: 'logit-normal' }, 0, 1, 0.02, 0.98],
    [{ kind: 'logit-normal', mean: -0.7, std: 1.5, range: [0, 1] }, -0.7, 1.5, 0, 1],
    [{ kind: 'logit-normal', mean: 2, std: 0.3, range: [0.4, 0.6] }, 2, 0.3, 0.4, 0.6],
  ] as const)('logit-normal: %j', (sampling, mean, std, low, high) => {
    const t = draw(sampling)
    const logits = Array.from(t, (time) => {
      const fraction = (time - low) / (high - low)
      return Math.log(fraction / (1 - fraction))
    })
    expect(Math.min(...t)).toBeGreaterThan(low)
    expect(Math.max(...t)).toBeLessThan(high)
    expectMoments(logits, mean, std ** 2)
    // Symmetric, and with the tails of a normal number.
    const third = logits.reduce((sum, x) => sum + ((x - mean) / std) ** 3, 0) / count
    const fourth = logits.reduce((sum, x) => sum + ((x - mean) / std) ** 4, 0) / count
    expect(Math.abs(third)).toBeLessThan(0.08)
    expect(Math.abs(fourth - 3)).toBeLessThan(0.25)
  })

  it.each([
    ['flow', schedules.flow({ shift: 3 }), [-6, 5]],
    ['vp', schedules.vp(), [-4, 6]],
    ['edm', schedules.edm(), [-8, 10]],
  ] as const)('uniform in the log-SNR of %s', (_, schedule, range) => {
    const [low, high] = range
    const logSnrs = Array.from(draw({ kind: 'log-snr', range }, schedule), schedule.logSnr)
    expect(Math.min(...logSnrs)).toBeGreaterThan(low - 1e-3)
    expect(Math.max(...logSnrs)).toBeLessThan(high + 1e-3)
    expectMoments(logSnrs, (low + high) / 2, (high - low) ** 2 / 12)
    const counts = new Array<number>(10).fill(0)
    for (const value of logSnrs) {
      const bin = Math.min(9, Math.max(0, Math.floor((10 * (value - low)) / (high - low))))
      counts[bin] = (counts[bin] as number) + 1
    }
    // Chi squared of 9 degrees of freedom: 27.9 with probability 0.001.
    const expected = count / 10
    expect(counts.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0)).toBeLessThan(27.9)
  })

  it('takes the log-SNRs between t = 0.98 and 0.02 where no range is given', () => {
    const schedule = schedules.vp({ kind: 'cosine' })
    const t = draw({ kind: 'log-snr' }, schedule)
    expect(Math.min(...t)).toBeGreaterThan(0.02 - 1e-6)
    expect(Math.max(...t)).toBeLessThan(0.98 + 1e-6)
    expect(Math.min(...t)).toBeLessThan(0.021)
    expect(Math.max(...t)).toBeGreaterThan(0.979)
  })

  it('stays in [0, 1] for log-SNRs that the schedule does not reach', () => {
    for (const schedule of [schedules.flow(), schedules.vp(), schedules.edm()]) {
      const t = draw({ kind: 'log-snr', range: [-200, 200] }, schedule)
      expect(Math.min(...t)).toBeGreaterThanOrEqual(0)
      expect(Math.max(...t)).toBeLessThanOrEqual(1)
    }
  })

  it('takes a single time, or none', () => {
    const schedule = schedules.flow()
    const random = new RandomStream(1)
    const sampling = resolveTimeSampling('times', { kind: 'uniform', range: [0.5, 0.5] }, schedule)
    expect([...drawTimes(3, sampling, schedule, random)]).toEqual([0.5, 0.5, 0.5])
    expect(drawTimes(0, sampling, schedule, random).length).toBe(0)
    expect(random.offset).toBe(2)
  })

  it('gives a batch the first times of a larger one, and each draw others', () => {
    const schedule = schedules.flow()
    for (const kind of ['uniform', 'logit-normal', 'log-snr'] as const) {
      const sampling = resolveTimeSampling('times', { kind }, schedule)
      const random = new RandomStream(1)
      const first = drawTimes(100, sampling, schedule, random)
      const second = drawTimes(100, sampling, schedule, random)
      expect([...drawTimes(37, sampling, schedule, new RandomStream(1))]).toEqual([
        ...first.subarray(0, 37),
      ])
      expect([...second]).not.toEqual([...first])
    }
  })
})
