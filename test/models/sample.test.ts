import { describe, expect, it } from 'vitest'
import { memory, models, normal, schedules, type Tensor } from '../../lib/index.js'

const { sample, samplingTimes } = models
type Float = Tensor<'float32'>

describe('the times', () => {
  it('are those of Z-Image', () => {
    // Published for 4 and 8 steps at shift 3.
    const published = {
      4: [1, 0.900359, 0.751121, 0.502985, 0],
      8: [1, 0.954694, 0.900359, 0.833998, 0.751121, 0.644686, 0.502985, 0.305009, 0],
    }
    for (const [steps, expected] of Object.entries(published)) {
      const times = samplingTimes(Number(steps))
      expect(times).toHaveLength(expected.length)
      for (const [i, time] of times.entries()) expect(time).toBeCloseTo(expected[i] as number, 6)
    }
  })

  it('are even without a shift', () => {
    const times = samplingTimes(3, { shift: 1 })
    const gap = (1 - 0.003 / 1.002) / 3
    for (const [i, time] of times.entries()) expect(time).toBeCloseTo(i === 3 ? 0 : 1 - gap * i, 12)
    expect(samplingTimes(1)).toEqual([1, 0])
  })

  it('are refused for no steps and shifts that are not positive', () => {
    expect(() => samplingTimes(0)).toThrow('steps: expected an integer from 1')
    expect(() => samplingTimes(4, { shift: 0 })).toThrow('options.shift: expected a number above 0')
  })
})

describe('samples of a normal distribution', () => {
  // N(m, s²) has the denoiser x̂0 = m + α s² (x - α m) / (α² s² + σ²), which is linear in x: the sampler's steps can be
  // followed in float64.
  const [mean, std] = [1.5, 0.4]
  const model = models.gaussianMixture({ means: [[mean, mean]], std, weights: [1] })
  const noise = normal([5, 2], { seed: 3 })
  /** Not from 1, where the mixture has no signal to go by. */
  const timesBelow1 = (steps: number) => [
    0.99,
    ...samplingTimes(steps).filter((time) => time < 0.99),
  ]

  function reference(
    x: number,
    times: readonly number[],
    schedule: ReturnType<typeof schedules.flow>,
  ) {
    let value = x
    for (let i = 0; i + 1 < times.length; i++) {
      const [from, to] = [times[i] as number, times[i + 1] as number]
      const [a, s] = [schedule.alpha(from), schedule.sigma(from)]
      const x0 = mean + (a * std ** 2 * (value - a * mean)) / (a ** 2 * std ** 2 + s ** 2)
      const epsilon = (value - a * x0) / s
      value = schedule.alpha(to) * x0 + schedule.sigma(to) * epsilon
    }
    return value
  }

  it.each([
    ['flow', schedules.flow()],
    ['shifted flow', schedules.flow({ shift: 3 })],
    ['vp', schedules.vp()],
    ['edm', schedules.edm({ sigmaMin: 0.01, sigmaMax: 5 })],
  ])('follow the closed form on %s', async (_, schedule) => {
    const mixture = models.gaussianMixture({ means: [[mean, mean]], std, weights: [1], schedule })
    const times = timesBelow1(7)
    const got = await (await sample(mixture, noise, { schedule, times })).data()
    for (const [i, start] of (await noise.data()).entries())
      expect(got[i]).toBeCloseTo(reference(start, times, schedule), 4)
  })

  it('come near the distribution as steps get many', async () => {
    const start = normal([2000, 2], { seed: 4 })
    const times = timesBelow1(100)
    const x = await sample(model, start, { schedule: schedules.flow(), times })
    const values = await x.data()
    const average = values.reduce((sum, value) => sum + value, 0) / values.length
    const variance = values.reduce((sum, value) => sum + (value - average) ** 2, 0) / values.length
    expect(Math.abs(average - mean)).toBeLessThan(0.04)
    expect(Math.abs(Math.sqrt(variance) - std)).toBeLessThan(0.04)
  })
})

describe('guidance', () => {
  // Predicts its condition as x0, whatever x is: one step to time 0 gives the guided prediction itself.
  const model: models.ScoreModel = {
    prediction: 'x0',
    forward: (_, __, condition) => (condition as Float).clone(),
    parameters: () => [],
  }
  const [condition, unconditional] = [normal([2, 3], { seed: 5 }), normal([2, 3], { seed: 6 })]
  const schedule = schedules.flow()

  it('goes from the unconditional output through the conditional one', async () => {
    const [c, u] = [await condition.data(), await unconditional.data()]
    for (const guidance of [0, 1, 3, -0.5]) {
      const noise = normal([2, 3], { seed: 7 })
      const options = { schedule, condition, unconditional, guidance, times: [1, 0] }
      const got = await (await sample(model, noise, options)).data()
      for (const [i, value] of got.entries()) {
        const [on, off] = [c[i] as number, u[i] as number]
        expect(value).toBeCloseTo(off + guidance * (on - off), 5)
      }
    }
  })

  it('asks the model only for what it needs', async () => {
    for (const [guidance, calls] of [
      [1, 2],
      [0, 2],
      [2, 4],
    ] as const) {
      let count = 0
      const counting = {
        ...model,
        forward: (...args: Parameters<typeof model.forward>) => {
          count++
          return model.forward(...args)
        },
      }
      const noise = normal([2, 3], { seed: 7 })
      const times = [1, 0.5, 0]
      await sample(counting, noise, { schedule, condition, unconditional, guidance, times })
      expect(count).toBe(calls)
    }
  })

  it('leaves nothing behind but the sample, and the noise alive', async () => {
    const noise = normal([2, 3], { seed: 7 })
    const before = memory().tensors
    const steps: number[] = []
    const options = { schedule, condition, unconditional, guidance: 2 }
    const x = await sample(model, noise, { ...options, onStep: (step) => steps.push(step) })
    expect(memory().tensors).toBe(before + 1)
    expect([noise.disposed, steps.length, steps[0], steps.at(-1)]).toEqual([false, 50, 1, 50])
    x.dispose()
  })

  it('refuses what it cannot do', async () => {
    const noise = normal([2, 3], { seed: 7 })
    for (const [options, message] of [
      [{ guidance: 2 }, 'options.unconditional: needed for guidance 2'],
      [{ times: [1] }, 'options.times: expected at least two'],
      [{ times: [0.5, 0.5] }, 'options.times[1]: expected decreasing times'],
      [{ times: [1.5, 0] }, 'options.times[0]: expected decreasing times'],
      [{ times: [1, Number.NaN] }, 'options.times[1]: expected decreasing times'],
      [{ cfg: 2 }, 'options.cfg: unknown option'],
    ] as const)
      await expect(
        sample(model, noise, { schedule, condition, ...options } as models.SampleOptions),
      ).rejects.toThrow(message)
  })
})
